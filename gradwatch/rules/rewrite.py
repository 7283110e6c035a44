"""One update in the middle of a run that rewrites a weight matrix, and whether the run comes back from it."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.rules.history import History
from gradwatch.rules.view import StepView, median
from gradwatch.statistics import Float

RAISED: Final = 1.25
"""Times the loss before, above which it has not come back."""
AFTER: Final = 10
"""Losses after it that are waited for."""
JUMP: Final = 10.0
"""Times the usual gradient norm, above which the batch is to blame and not the step: a spike."""


class Rewrite:
    """The first update above a limit, of a gradient of usual size.

    The weights that it made are so large that the ratios of later ones look ordinary.

    Attributes:
        step: at which it was applied.
        ratio: of each parameter, 0 where it does not count, shape [p]; empty before.
    """

    def __init__(self, history: History, limit: float) -> None:
        self.step = -1
        self.ratio: Float = np.zeros(0)
        self._history = history
        self._limit = limit
        self._before = float("nan")
        self._read = 0

    def observe(self, view: StepView, ratio: Float) -> None:
        """Takes the ratios of a step, 0 where they do not count, shape [p]."""
        if len(self.ratio) or not float(ratio.max(initial=0.0)) > self._limit:
            return
        trail = self._history.trail
        if view.norm is not None and view.norm > JUMP * median(np.array([point.norm for point in trail])):
            return
        self.step, self.ratio = view.step, np.where(ratio > self._limit, ratio, 0.0)
        # The loss of the step itself was computed before its update.
        self._before = median(np.array([point.loss for point in trail]))
        self._read = self._history.loss.count

    def lasting(self) -> bool:
        """Tells whether the loss stays above what it was; False where none is logged."""
        loss = self._history.loss
        return len(self.ratio) > 0 and loss.count >= self._read + AFTER and abs(loss.now()) > RAISED * self._before
