"""Signals that grow from layer to layer or from step to step until training breaks."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import replace
from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules import blame
from gradwatch.rules.growth import (
    AT_ONCE,
    BEFORE_LATER,
    LATER,
    Culprit,
    Gains,
    lagging,
    multiplied,
    standing_out,
)
from gradwatch.rules.history import TRAIL, History, Point
from gradwatch.rules.layout import Layout
from gradwatch.rules.persistence import Persistence
from gradwatch.rules.profile import gains, ways
from gradwatch.rules.rule import called, in_depth_order, number, too_few, without_loss
from gradwatch.rules.swollen import Swollen
from gradwatch.rules.view import StepView
from gradwatch.statistics import Float

GROWTH: Final = 10.0
WINDOW: Final = 10
"""Growth of the norm or the loss within this many steps before the overflow."""
RUNTIME_GROWTH: Final = 100.0
RATIO: Final = 0.1
LOSS_GROWTH: Final = 10.0
LOSS_STEPS: Final = 30
JUMP: Final = 3.0
ROSE: Final = 1.25
FIRST: Final = 5


class Exploding:
    """Finds growth that breaks training, and the layer that causes it.

    Formula: key 1, any of (a) one layer's gains (``profile.gains``) exceed the medians of the chain by ``growth.JUMP``,
    and the next largest by ``growth.NEXT_JUMP``, or are above ``growth.ABSOLUTE``, both forward and backward; or
    what lies before a layer does (``profile.ways``); or signals grow by ``growth.THROUGH`` on their way through the
    chain and gradients on their way back; on the first sample or on 5 of 8; or a layer's gain leaves what it was by
    ``growth.SINCE`` on two samples; or its weight gradient lags behind when those of the others jump at one step; (b)
    the global gradient norm exceeds ``RUNTIME_GROWTH`` times its running median on 5 of 8 steps; (c) it or the loss
    grew ``GROWTH``-fold within the ``WINDOW`` steps before an overflow. Key 2, any of: the overflow of (c); with (a) or
    (b), update ratios above ``RATIO`` at or above the culprit on 5 of 8 samples, or above 1 on one of the first
    ``FIRST``, or a loss above ``LOSS_GROWTH`` times its first value for ``LOSS_STEPS`` steps; with (a) on the first
    sample, outputs that start too large and are brought down (``swollen.py``); with a gain that grew, one that still
    stands out, a loss ``ROSE`` or a norm ``GROWTH`` times what it was. Key 1 alone is no finding: training recovers
    from it, or a normalisation absorbs it. A gain that grew after updates were too large is their work.
    Severity: critical with the overflow or the loss, else warning; notice when training recovered and nothing grows
    any more.
    Sources: He et al. 2015 (gain per layer), Pascanu et al. 2013 (growth); thresholds calibrated on He-initialised
    nets with one weight scaled up, with and without normalisation.
    Advice: the culprit's initialisation, the learning rate, clipping, normalisation.
    """

    kind = "exploding"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._culprit: Culprit | None = None
        self._latest: Culprit | None = None
        self._gain_samples = 0
        self._sampled: deque[int] = deque(maxlen=TRAIL)
        self._gains, self._ways = Gains(), Gains(BEFORE_LATER)
        self._swollen = Swollen()
        self._loss_before = self._norm_before = math.nan
        self._large_since: int | None = None
        self._rewritten = False
        self._jumps = Persistence()
        self._grown = Persistence()
        self._large = Persistence()
        self._gradients: deque[Float] = deque(maxlen=8)
        self._growing: int | None = None
        self._grown_since: int | None = None
        self._overflow: tuple[int, int, float, str] | None = None
        self._spoilt = False
        self._first_loss: float | None = None
        self._high_loss = 0
        self._highest_loss = 0
        self._high_since: int | None = None
        self._last: int | None = None

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if view.skipped or self._spoilt:
            return
        self._see_gains(view)
        self._see_loss(view)
        self._see_norm(view)
        if view.captured:
            self._last = view.step

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        layout = self._history.layout
        culprit = self._culprit
        lost_loss = self._highest_loss >= LOSS_STEPS
        harm = lost_loss or self._large.ever or self._rewritten or self._rose() or self._starts_swollen()
        if self._overflow is None and not (harm and (culprit is not None or self._grown.ever)):
            return []
        return [self._finding(layout, culprit, lost_loss)]

    def not_applied(self) -> str | None:
        """Needs a few gradients."""
        return too_few("gradient", self._history.samples["gradient"], 5) if not self._spoilt else None

    def _see_gains(self, view: StepView) -> None:
        gain = gains(view)
        if gain is None:
            self._see_ratio(view, None)
            return
        self._sampled.append(view.step)
        self._swollen.observe(view)
        place = standing_out(view, gain)
        self._latest = multiplied(view, place, gain)
        self._jumps.observe(view.step, self._latest is not None)
        grown = self._gains.observe(view, gain)
        way = ways(view)
        grown = (None if way is None else self._ways.observe(view, way)) or grown
        if self._gain_samples == 0:
            self._blame(self._latest)
        elif self._culprit is None and self._latest is not None and self._jumps.holds:
            self._blame_later(replace(self._latest, step=self._jumps.onset or 0))
        elif self._culprit is None and grown is not None:
            self._blame_later(grown)
        self._gain_samples += 1
        self._see_ratio(view, place)

    def _blame_later(self, culprit: Culprit) -> None:
        """Blames a layer unless updates were too large before: weights that these made are no origin."""
        step = self._jumped(culprit.step)
        if self._large_since is None or step <= self._large_since:
            self._blame(replace(culprit, step=step))

    def _blame(self, culprit: Culprit | None) -> None:
        self._culprit = culprit
        if culprit is not None:
            before = [point for point in self._history.trail if point.step < culprit.step]
            self._norm_before = statistics.median(point.norm for point in before) if before else math.nan
            self._loss_before = statistics.median(point.loss for point in before) if before else math.nan

    def _jumped(self, step: int) -> int:
        """Returns the step since the sample before ``step`` at which the gradient norm left what it was until then."""
        last = max((sample for sample in self._sampled if sample < step), default=-1)
        trail = [point for point in self._history.trail if math.isfinite(point.norm)]
        before = [point.norm for point in trail if point.step <= last]
        usual = statistics.median(before) if before else math.nan
        return min((p.step for p in trail if last < p.step <= step and p.norm > JUMP * usual), default=step)

    def _see_ratio(self, view: StepView, jump: int | None) -> None:
        ratio = self._history.ratio
        if ratio is None:
            return
        layout = view.layout
        at = ratio[layout.primary]
        known = at[np.isfinite(at)] if jump is None else at[jump:][np.isfinite(at[jump:])]
        large = len(known) > 0 and float(np.max(known)) > RATIO
        self._large.observe(view.step, large)
        if large and self._large_since is None:
            self._large_since = view.step
        self._rewritten |= len(known) > 0 and float(np.max(known)) > 1 and self._gain_samples < FIRST

    def _see_loss(self, view: StepView) -> None:
        if view.loss is None or not np.isfinite(view.loss):
            return
        if self._first_loss is None:
            self._first_loss = abs(view.loss)
        high = view.loss > LOSS_GROWTH * self._first_loss
        if high and self._high_loss == 0:
            self._high_since = view.step
        self._high_loss = self._high_loss + view.span if high else 0
        self._highest_loss = max(self._highest_loss, self._high_loss)

    def _see_norm(self, view: StepView) -> None:
        if view.spoilt:
            self._see_overflow(view)
            return
        norm = view.norm
        if norm is None:
            return
        before = list(self._history.norm.recent)[:-1]
        if len(before) >= 8:
            usual = statistics.median(before)
            grows = norm > GROWTH * usual > 0
            if grows and self._growing is None:
                self._blame(self._culprit or lagging(view, self._gradients))
            self._growing = (self._growing if self._growing is not None else view.step) if grows else None
            if self._grown.observe(view.step, norm > RUNTIME_GROWTH * usual > 0) and self._grown_since is None:
                self._grown_since = self._growing
        self._gradients.append(view.gradient.rms[view.layout.primary] if view.gradient is not None else np.zeros(0))
        if norm > GROWTH**2 * self._trail()[0].norm > 0:
            self.alarmed = True

    def _rose(self) -> bool:
        """Tells whether a layer's gain grew and still stands out, or loss or norm are still above what they were."""
        history = self._history
        later = self._culprit is not None and self._culprit.how in (LATER, AT_ONCE, BEFORE_LATER)
        return later and (
            self._jumps.holds
            or history.loss.now() > ROSE * self._loss_before
            or history.norm.now() > GROWTH * self._norm_before
        )

    def _starts_swollen(self) -> bool:
        """Tells whether a growth that was there at the start made outputs that training has to bring down."""
        culprit = self._culprit
        return culprit is not None and culprit.step == self._history.first_step and self._swollen.undone()

    def _trail(self) -> list[Point]:
        """Returns this step and the ``WINDOW`` before it."""
        return list(self._history.trail)[-WINDOW - 1 :]

    def _see_overflow(self, view: StepView) -> None:
        """Judges the first non-finite step: did the signals grow into it?"""
        self._spoilt = True
        recent = self._latest is not None and view.step - self._latest.step <= WINDOW
        self._blame(self._culprit or (self._latest if recent else None))
        before = [point for point in self._history.trail if point.step < view.step][-WINDOW - 1 :]
        for column, name in ((1, "gradient norm"), (2, "loss")):
            values = [(point.step, point[column]) for point in before if 0 < point[column] < np.inf]
            if len(values) < 2:
                continue
            lowest = min(range(len(values)), key=lambda i: values[i][1])
            peak = max(value for _, value in values[lowest:])
            growth = peak / values[lowest][1]
            if growth > GROWTH and (self._overflow is None or growth > self._overflow[2]):
                limit = GROWTH * values[lowest][1]
                start = next(step for step, value in values[lowest:] if value > limit)
                self._overflow = (start, view.step, growth, name)
        self._last = view.step

    def _finding(self, layout: Layout, culprit: Culprit | None, lost_loss: bool) -> Finding:
        broken = self._overflow is not None or lost_loss
        calm = not (broken or self._large.holds or self._jumps.holds)
        passed = calm and self._history.recovered(self._large.last)
        layer = None if culprit is None else layout.layers[culprit.layer]
        name = None if layer is None else called(layer)
        confidence, reason = without_loss(self._history)
        return Finding(
            kind=self.kind,
            severity="critical" if broken else "notice" if passed else "warning",
            title=blame.title(culprit, name, broken=broken, updates=self._large.ever or self._rewritten),
            layer=layer,
            layers=() if culprit is None else in_depth_order(layout, layout.chain, culprit.layer),
            first_step=self._onset(culprit),
            last_step=self._last,
            evidence=self._evidence(name, culprit, lost_loss),
            cause=blame.cause(culprit, name),
            advice=blame.advice(culprit, name),
            check="After the fix the gradient norm stays within a factor of 10 of its start.",
            confidence=confidence if culprit is not None or self._overflow is None else "medium",
            confidence_reason=reason or ("" if culprit is not None else "no single layer stands out"),
            figure=Figure("activation", "rms", "depth") if name else Figure("gradient", "l2"),
        )

    def _onset(self, culprit: Culprit | None) -> int | None:
        if culprit is not None:
            return culprit.step
        grown = self._growing if self._overflow is not None and self._grown_since is None else self._grown_since
        found = [self._overflow[0] if self._overflow else None, grown, self._high_since]
        return min((step for step in found if step is not None), default=self._large.onset)

    def _evidence(self, name: str | None, culprit: Culprit | None, lost_loss: bool) -> tuple[str, ...]:
        evidence: list[str] = []
        if culprit is not None and name is not None:
            evidence.append(blame.measured(culprit, name))
        if self._overflow is not None:
            start, end, growth, what = self._overflow
            evidence.append(
                f"The {what} grew {number(growth)}-fold within {WINDOW} steps, {GROWTH:g}-fold by step {start}, and "
                f"stopped being finite at step {end}; {GROWTH:g}-fold counts as growth."
            )
        if lost_loss:
            evidence.append(
                f"The loss stayed above {LOSS_GROWTH:g} times its first value ({number(self._first_loss or 0.0)}) for "
                f"{self._highest_loss} steps; {LOSS_STEPS} are the limit."
            )
        if self._starts_swollen():
            evidence.append(self._swollen.measured())
        if self._grown.ever:
            evidence.append(
                f"From step {self._grown_since} on the gradient norm grows beyond {RUNTIME_GROWTH:g} times its median."
            )
        if self._large.ever and self._overflow is None:
            evidence.append(f"Updates exceed {RATIO:g} of the weights' size from step {self._large.onset} on.")
        elif self._rewritten:
            evidence.append(f"An update of the first {FIRST} samples exceeds the weights' own size.")
        return tuple(evidence)
