"""The schedule's plan as one small number that enters the compiled step, so that one program serves all steps."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.schedule import Plan

GRADIENT: Final = 1
HISTOGRAM: Final = 2
UPDATE: Final = 4
WEIGHT: Final = 8
ACTIVATION: Final = 16
ACTIVATION_GRADIENT: Final = 32


@functools.lru_cache(maxsize=64)
def encode(plan: Plan) -> npt.NDArray[np.int32]:
    """Returns the bits of a plan, an array of no dimension."""
    signals = ("gradient", GRADIENT), ("update", UPDATE), ("weight", WEIGHT), ("activation", ACTIVATION)
    bits = sum(bit for name, bit in (*signals, ("activation_gradient", ACTIVATION_GRADIENT)) if name in plan.signals)
    encoded = np.asarray(bits | (HISTOGRAM if plan.histogram else 0), dtype=np.int32)
    encoded.setflags(write=False)
    return encoded
