"""The schedule's plan as one small number that enters the compiled step, so that one program serves all steps."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.schedule import Plan

GRADIENT: Final = 1
HISTOGRAM: Final = 2
UPDATE: Final = 4
WEIGHT: Final = 8
ACTIVATION: Final = 16
ACTIVATION_GRADIENT: Final = 32


def encode(plan: Plan) -> np.int32:
    """Returns the bits of a plan."""
    signals = ("gradient", GRADIENT), ("update", UPDATE), ("weight", WEIGHT), ("activation", ACTIVATION)
    bits = sum(bit for name, bit in (*signals, ("activation_gradient", ACTIVATION_GRADIENT)) if name in plan.signals)
    return np.int32(bits | (HISTOGRAM if plan.histogram else 0))
