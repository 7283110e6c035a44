"""What several rules ask of the past of one optimizer: loss, gradient norm, learning rate and update ratios."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

import numpy as np

from gradwatch.record import SiteTable
from gradwatch.rules.layout import Layout, lay_out
from gradwatch.rules.view import StepView
from gradwatch.statistics import Float

START: Final = 10
RECENT: Final = 32


class Series:
    """A scalar over the run in little room: its first ``START`` finite values, its last ``RECENT``, its extremes."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.count = 0
        self.highest = -np.inf
        self.lowest = np.inf

    def observe(self, value: float) -> None:
        """Takes a value; one that is not finite is left out."""
        if not np.isfinite(value):
            return
        self.count += 1
        if len(self.first) < START:
            self.first.append(value)
        self.recent.append(value)
        self.highest = max(self.highest, value)
        self.lowest = min(self.lowest, value)

    def start(self) -> float:
        """Returns the median of the first values, NaN without any."""
        return float(np.median(self.first)) if self.first else float("nan")

    def now(self, last: int = START) -> float:
        """Returns the median of the last values, NaN without any."""
        return float(np.median(list(self.recent)[-last:])) if self.recent else float("nan")


class History:
    """The past of one optimizer's records. Observes each view before the rules do.

    Attributes:
        layout: of the latest record.
        captured: steps with any signal.
        samples: records that hold a signal, by signal.
        steps: the last (step, ...) numbers: first and latest captured.
        loss: the logged loss; ``loss_logged`` tells whether there ever was one.
        norm: the global gradient norm, over all parameters of the record.
        learning_rate: the last values; ``highest`` is the peak.
        ratio: at a record with updates, rms(update) / max(rms(weight before the step), initial rms) of each parameter,
            shape [p], else None. Source of the ratio: the notes of Stanford CS231n, which give 1e-3 as usual. The floor
            keeps weights that start at 0 from counting as moved without bound.
    """

    def __init__(self, sites: SiteTable) -> None:
        self._sites = sites
        self.layout: Layout = lay_out(sites)
        self.captured = 0
        self.samples: Counter[str] = Counter()
        self.first_step: int | None = None
        self.last_step: int | None = None
        self.loss = Series()
        self.loss_logged = False
        self.norm = Series()
        self.learning_rate = Series()
        self.ratio: Float | None = None
        self._weight: Float = np.zeros(0)

    def current_layout(self) -> Layout:
        """Returns the layout of the site table as it is now."""
        if self.layout.version != self._sites.version:
            self.layout = lay_out(self._sites)
        return self.layout

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if view.captured:
            self.captured += 1
            self.first_step = view.step if self.first_step is None else self.first_step
            self.last_step = view.step
        for signal, rows in (
            ("gradient", view.gradient),
            ("update", view.update),
            ("weight", view.weight),
            ("activation", view.activation),
            ("activation_gradient", view.activation_gradient),
        ):
            if rows is not None:
                self.samples[signal] += 1
        if view.loss is not None:
            self.loss_logged = True
            self.loss.observe(view.loss)
        if "learning_rate" in view.facts:
            self.learning_rate.observe(view.facts["learning_rate"])
        if view.gradient is not None and not view.skipped:
            self.norm.observe(_norm(view.gradient.l2))
        self.ratio = self._ratio(view)

    def converged(self) -> bool:
        """Whether the global gradient norm has fallen to a hundredth of its start: then small updates are no fault."""
        return self.norm.count > 0 and self.norm.now() < 0.01 * self.norm.start()

    def loss_change(self) -> float | None:
        """Returns the loss now over the loss at the start, minus 1, or None when the loss is unknown or 0 there."""
        if self.loss.count < 2 * START or self.loss.start() == 0:
            return None
        return self.loss.now() / self.loss.start() - 1

    def _ratio(self, view: StepView) -> Float | None:
        before, self._weight = self._weight, self._next_weight(view)
        if view.update is None or view.skipped:
            return None
        moved = view.update.rms
        floor = view.layout.initial_rms
        after = view.weight.rms if view.weight is not None else np.full(len(moved), np.nan)
        known = np.full(len(moved), np.nan)
        known[: len(before)] = before
        # Weights are read after the step: a large update would hide behind the weights it made.
        usual = np.where(moved < 0.5 * after, after, np.where(np.isfinite(known), known, floor))
        return moved / np.fmax(usual, floor)

    def _next_weight(self, view: StepView) -> Float:
        return self._weight if view.weight is None else view.weight.rms


def _norm(l2: Float) -> float:
    return float(np.sqrt(np.nansum(l2 * l2)))
