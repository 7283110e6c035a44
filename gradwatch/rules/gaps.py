"""For how long each parameter has gone without a gradient, and whether that is longer than its habit."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.rules.layout import Index, Mask
from gradwatch.rules.rule import padded
from gradwatch.rules.view import StepView

PERSIST: Final = 5
"""Steps: zero-initialised branches, low-rank adapters and warm-up from 0 have no gradient for one or two."""
CYCLES: Final = 3
"""Times its longest earlier gap: heads that are trained in turn have gaps by design."""


class Gaps:
    """Per parameter: steps without a gradient in a row, the step at which they began, and earlier gaps.

    Attributes:
        run: length of the present gap, shape [p].
        since: first step of the present gap, shape [p].
        ever: whether there ever was a gradient, shape [p].
        longest: the longest gap that ended, shape [p].
        active: steps with a gradient before the present gap, shape [p].
    """

    def __init__(self) -> None:
        self.run: Index = np.zeros(0, dtype=np.int64)
        self.since: Index = np.zeros(0, dtype=np.int64)
        self.longest: Index = np.zeros(0, dtype=np.int64)
        self.active: Index = np.zeros(0, dtype=np.int64)
        self.ever: Mask = np.zeros(0, dtype=np.bool_)

    def observe(self, view: StepView, blocked: Mask, flowing: Mask) -> None:
        """Takes a step; parameters that are neither blocked nor flowing were not captured and keep their state."""
        self._grow(len(blocked))
        # count_nonzero takes a fifth of the time of any(), and most steps have no gap.
        ended = flowing & (self.run > 0)
        if np.count_nonzero(ended):
            counts = ended & self.ever
            self.longest[counts] = np.maximum(self.longest, self.run)[counts]
            self.active[ended] = 0
            self.run[ended] = 0
        if np.count_nonzero(blocked):
            self.since[blocked & (self.run == 0)] = view.step
            self.run[blocked] += view.span
        self.active += flowing * view.span
        self.ever |= flowing

    def lasting(self) -> Mask:
        """Returns the parameters whose gap is at least ``PERSIST`` steps and longer than their habit, shape [p]."""
        return (self.run >= PERSIST) & (self.run > CYCLES * self.longest)

    def _grow(self, size: int) -> None:
        if len(self.run) < size:
            for name in ("run", "since", "longest", "active"):
                setattr(self, name, padded(getattr(self, name), size, 0))
            self.ever = padded(self.ever, size, False)
