"""One value that lies far above those before it, and what becomes of a run after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gradwatch.rules.view import median

NORMAL: Final = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
MEDIAN_ERROR: Final = 1.2533
"""Standard error of the median of n normal values, in deviations over sqrt(n): sqrt(pi / 2)."""
FLOOR: Final = 0.05
"""Decades below which a spread does not count: else a quiet run is outside its habits at every step."""
SETTLES: Final = 5
"""Steps after an outlier from which on the run is compared with the time before."""
AFTER: Final = 10
"""Steps over which what follows is compared with the time before."""


def excess(value: float, before: Sequence[float]) -> tuple[float, float, float]:
    """Returns by what factor a value exceeds the median of those before it, in how many deviations, and their maximum.

    All are 0 for a value that does not exceed the maximum, as nearly all do not. Deviations are those of log10, by the
    median absolute deviation, so that heavy tails count as habit.
    """
    known = [x for x in before if 0 < x < math.inf]
    if not known or not max(known) < value < math.inf:
        return 0.0, 0.0, 0.0
    size = np.log10(known)
    centre = median(size)
    spread = NORMAL * median(np.abs(size - centre)) + FLOOR
    above = math.log10(value) - centre
    return 10**above, above / spread, value / max(known)


@dataclass(slots=True)
class Event:
    """An outlier of the gradient, of the update or of both, and what followed.

    Attributes:
        step: when.
        gradient, update: factors by which they exceed what is usual; 1 where they do not or are not known.
        loss: factor by which the loss of that step exceeds the usual one, or None.
        usual_loss, loss_spread: median and deviation of the losses before, or None.
        loss_fall: by how much that median lies below the one of the ``AFTER`` losses before.
        usual_update: median size of the updates before, 0 when unknown.
        share: size of the update over that of the weights, NaN when unknown.
        rate: factor of the learning rate over the usual one, or None.
        inputs: factor of the inputs over the usual ones, or None.
        layers: those whose gradients grew most, with their factors.
        losses, norms, updates: what followed, losses and norms over their usual sizes; updates, from the event on, too.
    """

    step: int
    gradient: float = 1.0
    update: float = 1.0
    loss: float | None = None
    usual_loss: float | None = None
    loss_spread: float = 0.0
    loss_fall: float = 0.0
    usual_update: float = 0.0
    share: float = math.nan
    rate: float | None = None
    inputs: float | None = None
    layers: tuple[tuple[int, float], ...] = ()
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)

    def passed(self, limit: float) -> bool:
        """Tells whether the gradient came back below a factor of what is usual."""
        tail = self.norms[SETTLES:][-AFTER:]
        return bool(tail) and median(np.array(tail)) < limit

    def raised_loss(self) -> float | None:
        """Returns the median loss over the next ``AFTER`` steps, or None for fewer than ``SETTLES`` of them."""
        return median(np.array(self.losses[:AFTER])) if len(self.losses) >= SETTLES else None

    def came_back(self) -> bool:
        """Tells whether the median loss from ``SETTLES`` steps on is where it was going, up to two standard errors.

        Progress slows down: half of what it fell before is what is expected of it.
        """
        tail = self.losses[SETTLES : SETTLES + AFTER]
        if self.usual_loss is None or len(tail) < SETTLES:
            return False
        due = self.usual_loss - self.loss_fall / 2
        return median(np.array(tail)) < due + 2 * MEDIAN_ERROR * self.loss_spread / math.sqrt(len(tail))

    def detour(self) -> float:
        """Returns how many usual steps the weights were moved beyond the usual ones, over the next ``AFTER``."""
        return sum(max(update - 1.0, 0.0) for update in self.updates[: AFTER + 1])

    def shortened(self) -> float:
        """Returns the typical size of the updates once the outlier itself is over; 1 when unknown."""
        tail = self.updates[SETTLES : SETTLES + AFTER]
        return median(np.array(tail)) if len(tail) >= SETTLES else 1.0
