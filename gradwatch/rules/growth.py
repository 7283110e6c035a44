"""The layer that makes signals grow, read off the gains of a chain or off the growth of its gradients."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gradwatch.rules.depth import largest_jump
from gradwatch.rules.profile import ways
from gradwatch.rules.view import StepView, decades, median
from gradwatch.statistics import Float, medians

CHAIN: Final = 3
JUMP: Final = np.log10(5.0)
NEXT_JUMP: Final = np.log10(3.0)
"""Decades by which one layer's gain exceeds the median of the chain, and that of the next largest."""
ABSOLUTE: Final = np.log10(20.0)
"""Decades by which no layer multiplies what passes it both ways: He's scale gives 0.15, ten times that 1.15."""
THROUGH: Final = 1.15
"""Decades by which signals may grow from the input to the output and gradients on their way back: at He's or Glorot's
scale both stay where they are (He et al. 2015). Of 120 healthy nets one reached 0.9 both ways, the others 0.55."""
OUTPUT: Final = 10.0
"""Least rms of the outputs of a layer whose input has no gradient, as data has none: at small inputs the bias rules."""
SINCE: Final = 1.0
ALIVE: Final = -2.0
GROWN: Final = np.log10(5.0)
"""Decades by which one layer's gain exceeds its own earlier ones: of layers that passed something on before, and up to
more than this."""

ALONE, EACH, AT_ONCE, LATER = "alone", "each", "at once", "later"
BEFORE, BEFORE_LATER = "before", "before, later"


@dataclass(frozen=True, slots=True)
class Culprit:
    """The layer that makes signals grow.

    Attributes:
        layer: its index.
        gain, usual: its gain and the typical one.
        step: when it was seen.
        how: ``ALONE``: its gain stands out. ``EACH``: signals grow from layer to layer; ``gain`` is how much they do in
            all, ``usual`` the same of gradients. ``AT_ONCE``: seen by weight gradients that jump at one step; ``gain``
            is how much its own grew, ``usual`` the others. ``LATER``: its gain stands out from its own before, which
            is ``usual``. ``BEFORE`` and ``BEFORE_LATER``: the same as ``ALONE`` and ``LATER`` of what lies before it.
    """

    layer: int
    gain: float
    usual: float
    step: int
    how: str = ALONE


def standing_out(view: StepView, gain: Float) -> int | None:
    """Returns the place of the one layer whose gains, shape [2, c], stand out both ways, or None.

    Among ``CHAIN`` layers and more it is beside the others, else by itself.
    """
    place = _beside_others(gain)
    if place is not None:
        return place
    large = np.zeros(gain.shape[1], dtype=np.bool_)
    if view.activation is not None:
        large = view.activation.rms[view.layout.chain] > OUTPUT
    both = np.where(np.isnan(gain[1]) & large, gain[0], np.minimum(gain[0], gain[1]))
    if not np.isfinite(both).any() or np.nanmax(both) < ABSOLUTE:
        return None
    return int(np.nanargmax(both))


def standing_before(way: Float) -> int | None:
    """Returns the place of the one layer before which both gains, shape [2, c], stand out, as in ``standing_out``."""
    place = _beside_others(way)
    both = np.minimum(way[0], way[1])
    if place is not None or not np.isfinite(both).any() or np.nanmax(both) < ABSOLUTE:
        return place
    return int(np.nanargmax(both))


def throughout(view: StepView) -> Culprit | None:
    """Returns where signals grow on their way through a chain and gradients on their way back, or None.

    It is the layer behind the one step that makes half of the growth, else the first.
    """
    outputs, deltas = view.activation, view.activation_gradient
    if outputs is None or deltas is None:
        return None
    chain = view.layout.chain
    known = chain[(outputs.l2[chain] > 0) & (deltas.l2[chain] > 0)]
    if len(known) < 2:
        return None
    rising, falling = decades(outputs.rms[known]), decades(deltas.l2[known])
    inputs = view.activation_input
    start = np.nan if inputs is None else float(decades(inputs.rms[known[:1]])[0])
    forward = float(rising.max() - (start if np.isfinite(start) else rising[0]))
    backward = float(falling[0] - falling.min())
    if not min(forward, backward) > THROUGH:
        return None
    jump = largest_jump(np.minimum(np.diff(rising), -np.diff(falling)))
    steep = jump is not None and jump.size > min(forward, backward) / 2
    place = jump.index + 1 if jump is not None and steep else 0
    return Culprit(int(known[place]), 10**forward, 10**backward, view.step, EACH)


class Gains:
    """The gains of a chain's layers over the last 8 samples: finds the one that grows beside its own past.

    ``how`` is what it says of it.
    """

    def __init__(self, how: str = LATER) -> None:
        self._how = how
        self._before: deque[Float] = deque(maxlen=8)
        self._place: int | None = None
        self._since = -1

    def observe(self, view: StepView, gain: Float) -> Culprit | None:
        """Takes the gains of a sample, shape [2, c]; returns the layer that has grown, from its second sample on."""
        place = self._grown(gain)
        again = place is not None and place == self._place
        if place is None or not again:
            self._since = view.step
        self._place = place
        if place is None:
            self._before.append(gain)
            return None
        usual = float(np.nanmean(medians(np.stack(self._before))[:, place]))
        layer = int(view.layout.chain[place])
        return (
            Culprit(layer, 10 ** float(np.nanmean(gain[:, place])), 10**usual, self._since, self._how)
            if again
            else None
        )

    def _grown(self, gain: Float) -> int | None:
        if len(self._before) < CHAIN or any(row.shape != gain.shape for row in self._before):
            self._before = deque((row for row in self._before if row.shape == gain.shape), maxlen=8)
            return None
        before = medians(np.stack(self._before))
        both = np.fmin(*(gain - before))
        both[(before <= ALIVE).any(axis=0) | (gain <= GROWN).any(axis=0)] = np.nan
        return int(np.nanargmax(both)) if np.isfinite(both).any() and np.nanmax(both) > SINCE else None


def multiplied(view: StepView, place: int | None, gain: Float) -> Culprit | None:
    """Returns the layer at the place that stands out, else the one that is fed too much, else where all grows."""
    if place is not None:
        return multiplier(view, place, gain)
    way = ways(view)
    before = None if way is None else standing_before(way)
    return throughout(view) if way is None or before is None else multiplier(view, before, way, BEFORE)


def multiplier(view: StepView, place: int, gain: Float, how: str = ALONE) -> Culprit:
    """Returns the layer at a place of the chain, with its mean gain both ways and the typical one."""
    usual = np.array([median(row) for row in gain])
    layer = int(view.layout.chain[place])
    return Culprit(layer, 10 ** float(np.nanmean(gain[:, place])), 10 ** float(np.nanmean(usual)), view.step, how)


def lagging(view: StepView, before: Sequence[Float]) -> Culprit | None:
    """Returns the layer whose own weight gradient lags behind when those of all others jump, or None.

    A layer whose weight grew a-fold passes a-fold gradients to those below and a-fold signals to those above; only its
    own weight gradient holds neither factor.
    """
    layout = view.layout
    if view.gradient is None or len(layout.primary) < CHAIN or any(len(row) != len(layout.primary) for row in before):
        return None
    growth = decades(view.gradient.rms[layout.primary]) - medians(decades(np.stack(before)))
    usual = median(growth)
    place = _alone(usual - growth)
    if place is None:
        return None
    return Culprit(int(layout.chain[place]), 10 ** float(growth[place]), 10**usual, view.step, AT_ONCE)


def _beside_others(gain: Float) -> int | None:
    """Returns the place whose gains both ways stand out from those of ``CHAIN`` or more, or None."""
    if np.isfinite(gain[0]).sum() < CHAIN:
        return None
    above = np.stack([row - median(row) for row in gain])
    return _alone(np.fmin(above[0], above[1]))


def _alone(above: Float) -> int | None:
    """Returns the place of the one layer that lies far above the typical and the next one, or None."""
    jump = largest_jump(above)
    if jump is None or jump.size < JUMP or jump.size - jump.next < NEXT_JUMP:
        return None
    return jump.index
