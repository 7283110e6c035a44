"""What several rules ask of the past of one optimizer: loss, gradient norm, learning rate and update ratios."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Final, NamedTuple

import numpy as np

from gradwatch.record import SiteTable, StepRecord
from gradwatch.rules.layout import Layout, lay_out
from gradwatch.rules.view import StepView, loss_of
from gradwatch.statistics import Float, median

START: Final = 10
RECENT: Final = 32
SETTLED: Final = 30
ALIVE: Final = 1e-5
TRAIL: Final = 12
HABIT: Final = 3
"""Times the longest stretch of records at which nothing moved, beyond which the next one is no accumulation."""
LEARNS: Final = 0.02
EXCESS: Final = 0.1
"""By how much a loss has to fall to count as learning, and by how much the output layer alone brings it down within the
first steps, which is no learning yet: before, logits of variance v over K classes cost v/2 (1 - 1/K) more than a
constant guess, which costs log K (second order of log-sum-exp). A tenth is v = 1/2 at K = 10."""


class Point(NamedTuple):
    """Global gradient norm and absolute loss of a step, NaN where unknown."""

    step: int
    norm: float
    loss: float


class Series:
    """A scalar over the run in little room.

    Attributes:
        first: its first ``START`` finite values.
        settled: the ``START`` values before the one of number ``SETTLED``.
        recent: its last ``RECENT``.
        count: of all finite values.
        highest, lowest: of all.
    """

    def __init__(self) -> None:
        self.first: list[float] = []
        self.settled: list[float] = []
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.count = 0
        self.highest = -np.inf
        self.lowest = np.inf

    def observe(self, value: float) -> None:
        """Takes a value; one that is not finite is left out."""
        if not math.isfinite(value):
            return
        self.count += 1
        if len(self.first) < START:
            self.first.append(value)
        elif SETTLED - START < self.count <= SETTLED:
            self.settled.append(value)
        self.recent.append(value)
        self.highest = max(self.highest, value)
        self.lowest = min(self.lowest, value)

    def start(self) -> float:
        """Returns the median of the first values, NaN without any."""
        return median(self.first)

    def now(self, last: int = START) -> float:
        """Returns the median of the last values, NaN without any."""
        return median(list(self.recent)[-last:])


class History:
    """The past of one optimizer's records. Observes each view before the rules do.

    Attributes:
        layout: of the latest record.
        captured: steps with any signal.
        samples: records that hold a signal, by signal.
        first_step, last_step: first and latest captured step.
        loss: the logged loss; ``loss_logged`` tells whether there ever was one.
        norm: the global gradient norm, over all parameters of the record.
        spoilt: whether the loss or a gradient of the latest record is not finite.
        learning_rate: the last values; ``highest`` is the peak.
        ratio: at a record with updates, rms(update) / max(rms(weight before the step), initial rms) of each parameter,
            shape [p], else None. Source of the ratio: the notes of Stanford CS231n, which give 1e-3 as usual. The floor
            keeps weights that start at 0 from counting as moved without bound. None where nothing moved.
        sees_inside: whether activation gradients were ever captured at most layers that own a matrix; at layers within
            a loop or a compiled part they are not.
        still: whether nothing moved at a record with updates: every one of them is exactly 0. So it is at the steps of
            an optimizer that accumulates micro-batches on which it applies nothing.
        moved_between: whether a weight changed since the record before with weights, though nothing moves at this one.
        trail: the last ``TRAIL`` captured steps that were not skipped, oldest first.
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
        self.spoilt = False
        self._slowest = float("nan")
        self._weight: Float = np.zeros(0)
        self.sees_inside = False
        self.still = self.moved_between = False
        self._still_run = self._longest_still = 0
        self.trail: deque[Point] = deque(maxlen=TRAIL)

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
        for signal in view.signals:
            self.samples[signal] += 1
        if view.activation_gradient is not None:
            seen = view.activation_gradient.n[view.layout.chain] > 0
            self.sees_inside |= bool(2 * seen.sum() >= seen.size)
        if view.loss is not None:
            self.loss_logged = True
            self.loss.observe(view.loss)
        if "learning_rate" in view.facts:
            self.learning_rate.observe(view.facts["learning_rate"])
        if view.norm is not None and not view.skipped:
            self.norm.observe(view.norm)
        if view.captured and not view.skipped:
            self._follow(view.step, view.norm, view.loss)
        self.spoilt = view.spoilt
        self.ratio = self._ratio(view)

    def pass_over(self, record: StepRecord, norm: float) -> None:
        """Takes a routine record, which the rules do not see, with its global gradient norm."""
        self.captured += 1
        self.last_step = record.step
        self.samples["gradient"] += 1
        loss = loss_of(record.logged)
        if loss is not None:
            self.loss.observe(loss)
        if "learning_rate" in record.facts:
            self.learning_rate.observe(record.facts["learning_rate"])
        self.norm.observe(norm)
        self._follow(record.step, norm, loss)
        self.ratio = None
        self.still = self.moved_between = False

    def converged(self) -> bool:
        """Whether the global gradient norm has fallen to a hundredth of its start: then small updates are no fault."""
        return self.norm.count > 0 and self.norm.now() < 0.01 * self.norm.start()

    def recovered(self, last: int | None) -> bool:
        """Whether training went on well for ``SETTLED`` captured steps after the last step of a disturbance.

        With a logged loss: it is finite and below half of its first value. Without: the gradient norm is not above
        three times its start, and every weight matrix moves, by ``ALIVE`` of its size or more, because parts of a net
        that died no longer do.
        """
        if last is None or self.last_step is None or self.spoilt or self.last_step - last < SETTLED:
            return False
        if self.loss_logged:
            return bool(self.loss.first) and self.loss.now() < 0.5 * self.loss.first[0]
        return self.norm.now() < 3 * self.norm.start() and self._slowest > ALIVE

    def loss_change(self) -> float | None:
        """Returns what the loss gained since the start, in units of its size there; None when unknown or 0 there."""
        if self.loss.count < 2 * START or self.loss.start() == 0:
            return None
        return (self.loss.now() - self.loss.start()) / abs(self.loss.start())

    def loss_is_flat(self) -> bool:
        """Tells whether a logged loss has not improved by ``LEARNS``.

        Either since the start, after ``SETTLED`` steps; or, after twice as many, since steps 20 to 29 (``SETTLED``
        less ``START``), when what it fell before is no more than ``EXCESS``.
        """
        change, loss = self.loss_change(), self.loss
        if change is None or loss.count < SETTLED:
            return False
        if change > -LEARNS:
            return True
        fallen = (median(loss.settled) - loss.now()) / abs(loss.start())
        return loss.count >= 2 * SETTLED and change > -EXCESS and fallen < LEARNS

    def _follow(self, step: int, norm: float | None, loss: float | None) -> None:
        nan = float("nan")
        self.trail.append(Point(step, nan if norm is None else norm, nan if loss is None else abs(loss)))

    def _ratio(self, view: StepView) -> Float | None:
        before, self._weight = self._weight, self._next_weight(view)
        self.still = self.moved_between = False
        if view.update is None or view.skipped:
            return None
        moved = view.update.rms
        known = np.full(len(moved), np.nan)
        known[: len(before)] = before
        if not (view.update.absmax > 0).any() and not view.update.any_bad:
            self._stand_still(known)
            return None
        self._longest_still, self._still_run = max(self._longest_still, self._still_run), 0
        floor = view.layout.initial_rms
        after = view.weight.rms if view.weight is not None else np.full(len(moved), np.nan)
        # Weights are read after the step: a large update would hide behind the weights it made.
        usual = np.where(moved < 0.5 * after, after, np.where(np.isfinite(known), known, floor))
        ratio: Float = moved / np.fmax(usual, floor)
        self._slowest = float(np.min(ratio[view.layout.matrix], initial=np.inf))
        return ratio

    def _stand_still(self, before: Float) -> None:
        self.still = True
        self.moved_between = bool((np.isfinite(before) & (self._weight != before)).any())
        self._still_run = 0 if self.moved_between else self._still_run + 1
        if self._still_run > HABIT * self._longest_still:
            self._slowest = 0.0

    def _next_weight(self, view: StepView) -> Float:
        return self._weight if view.weight is None else view.weight.rms
