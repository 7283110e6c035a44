"""The one layer that makes signals grow, read off the gains of a chain or off the growth of its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gradwatch.rules.depth import largest_jump
from gradwatch.rules.view import StepView, decades, median
from gradwatch.statistics import Float

CHAIN: Final = 3
JUMP: Final = np.log10(5.0)
NEXT_JUMP: Final = np.log10(3.0)
"""Decades by which one layer's gain exceeds the median of the chain, and that of the next largest."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """The one layer that makes signals grow.

    Attributes:
        layer: its index.
        gain, usual: its gain and the typical one; with ``sudden``, how much its own gradient and the typical one grew.
        step: when it was seen.
        sudden: seen by the growth of weight gradients at one step, not by gains.
    """

    layer: int
    gain: float
    usual: float
    step: int
    sudden: bool = False


def standing_out(gain: Float) -> int | None:
    """Returns the place of the one layer whose gains, shape [2, c], stand out both ways, or None."""
    above = np.stack([row - median(row) for row in gain])
    return _alone(np.fmin(above[0], above[1]))


def multiplier(view: StepView, place: int, gain: Float) -> Culprit:
    """Returns the layer at a place of the chain, with its mean gain both ways and the typical one."""
    usual = np.array([median(row) for row in gain])
    layer = int(view.layout.chain[place])
    return Culprit(layer, 10 ** float(np.nanmean(gain[:, place])), 10 ** float(np.nanmean(usual)), view.step)


def lagging(view: StepView, before: Sequence[Float]) -> Culprit | None:
    """Returns the layer whose own weight gradient lags behind when those of all others jump, or None.

    A layer whose weight grew a-fold passes a-fold gradients to those below and a-fold signals to those above; only its
    own weight gradient holds neither factor.
    """
    layout = view.layout
    if view.gradient is None or len(layout.primary) < CHAIN or any(len(row) != len(layout.primary) for row in before):
        return None
    growth = decades(view.gradient.rms[layout.primary]) - np.median(decades(np.stack(before)), axis=0)
    usual = median(growth)
    place = _alone(usual - growth)
    if place is None:
        return None
    return Culprit(int(layout.chain[place]), 10 ** float(growth[place]), 10**usual, view.step, sudden=True)


def _alone(above: Float) -> int | None:
    """Returns the place of the one layer that lies far above the typical and the next one, or None."""
    jump = largest_jump(above)
    if jump is None or jump.size < JUMP or jump.size - jump.next < NEXT_JUMP:
        return None
    return jump.index
