"""Steps that 16-bit weights cannot take: smaller than half the distance to the next number, they round to nothing."""

from __future__ import annotations

from typing import Final

from gradwatch.rules.history import History
from gradwatch.rules.persistence import Persistence
from gradwatch.rules.view import Rows, StepView

COARSE: Final = 1e-4
"""Formats of 16 bits round at 4.9e-4 (float16) and 3.9e-3 (bfloat16) of a number, those of 32 at 6e-8."""
LOST: Final = 0.85
"""Share of the entries with a gradient that stay where they are. Source: 18 trainings in pure bfloat16 beside their
float32 twins; from 0.85 on each lost a third or more of what the twin gained, below 0.78 at most a fifth."""
TAIL: Final = 0.1
"""Share of the highest learning rate below which small steps are those of a warm-up or of the end of a schedule."""


class Rounding:
    """Follows which share of the entries of 16-bit weight matrices does not move although it has a gradient.

    Formula: (entries of the update that are 0 - entries of the gradient that are 0) / (entries - entries of the
    gradient that are 0), over the trained weight matrices in a format coarser than ``COARSE``; ``LOST`` or more on 5 of
    8 samples, the latest among them. Samples at which nothing moved (an accumulation), of a skipped step, and those
    below ``TAIL`` of the highest learning rate do not count.
    Source: Zamirai et al. 2020, Revisiting BFloat16 Training, section 3: nearest rounding cancels small updates.

    Attributes:
        lost: the share at the latest sample that counted, or null.
        persistence: of samples at which ``LOST`` was reached.
    """

    def __init__(self, history: History) -> None:
        self.lost = float("nan")
        self.persistence = Persistence()
        self._history = history

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        update, gradient = view.update, view.gradient
        if update is None or gradient is None or view.skipped or view.spoilt or not (update.full and gradient.full):
            return
        if self._at_the_tail(view.facts.get("learning_rate")):
            return
        share = _lost(view, update, gradient)
        if share is not None:
            self.lost = share
            self.persistence.observe(view.step, share >= LOST and not self._history.converged())

    def _at_the_tail(self, rate: float | None) -> bool:
        return rate is not None and rate < TAIL * self._history.learning_rate.highest


def _lost(view: StepView, update: Rows, gradient: Rows) -> float | None:
    """Returns the share; None where no weight is coarse, or where nothing moved."""
    layout = view.layout
    counted = layout.matrix & (layout.rounding > COARSE) & (update.zeros >= 0) & (gradient.zeros >= 0)
    entries = int((gradient.n - gradient.zeros)[counted].sum())
    if entries == 0 or not bool((update.absmax[counted] > 0).any()):
        return None
    return int((update.zeros - gradient.zeros)[counted].sum()) / entries
