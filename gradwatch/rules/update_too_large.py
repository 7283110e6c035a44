"""Updates that rewrite a weight matrix in a few steps."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History
from gradwatch.rules.layout import Index, Layout, Mask
from gradwatch.rules.rewrite import Rewrite
from gradwatch.rules.rule import called, in_depth_order, number, padded, too_few, without_loss
from gradwatch.rules.view import StepView
from gradwatch.statistics import Float

WARNING: Final = 0.2
CRITICAL: Final = 1.0
"""Median update ratio over ``SAMPLES`` samples; over the first of them the root mean square, because weights that are
rewritten grow and so hide in later ratios that the first ones were too large."""
SAMPLES: Final = 10
BRIEF: Final = 3
"""Samples with a ratio above ``WARNING`` from which a run may recover; a learning rate that is too high makes more."""
MILD: Final = 0.5
"""Typical ratio up to which a run may recover from more samples, and later: Adagrad's steps shrink only with the root
of their number, and momentum takes a small net to its minimum in large swings."""
AT_ONCE: Final = 5
"""First steps in which a single ratio above ``CRITICAL`` is enough: a run can be lost by then."""


class UpdateTooLarge:
    """Finds weight matrices whose update is of the size of the weights.

    Formula: u = rms(update) / max(rms(weight before the step), 1 / sqrt(3 fan-in)) of each weight matrix. Warning when
    the median of the last ``SAMPLES`` samples, or the root mean square of the first ones, exceeds ``WARNING``;
    critical above ``CRITICAL``, when one sample of the first ``AT_ONCE`` steps does, or when the run stops being finite
    within ``SAMPLES`` samples of a ratio above ``WARNING``. Biases, norms, embeddings and scalars are left out.
    Also critical: one sample above ``CRITICAL`` later on after which the loss does not come back (``rewrite.py``).
    Notice when it was ``BRIEF``, in the first ``SAMPLES`` steps, or ``MILD``, and training recovered
    (``History.recovered``).
    Source: the usual ratio is 1e-3 (notes of Stanford CS231n). The limit was calibrated: healthy small nets under Adam
    with a learning rate of 0.01 reach 0.12 over the first ten steps and 0.28 at the very first.
    Advice: a lower learning rate, warm-up, clipping.
    """

    kind = "update-too-large"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._window: deque[tuple[int, Float]] = deque(maxlen=SAMPLES)
        self._worst: Float = np.zeros(0)
        self._since: Index = np.zeros(0, dtype=np.int64)
        self._at_once: Mask = np.zeros(0, dtype=np.bool_)
        self._samples = 0
        self._large_samples = 0
        self._rewrite = Rewrite(history, CRITICAL)
        self._lost = self._lost_to_updates = False
        self._last: int | None = None
        self._rate: float | None = None

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if view.spoilt:
            self._judge_loss_of_run(view)
            return
        ratio = self._history.ratio
        if ratio is None:
            return
        ratio = np.where(view.layout.matrix & np.isfinite(ratio), ratio, 0.0)
        self._samples += 1
        self._window.append((view.step, ratio))
        highest = float(ratio.max(initial=0.0))
        self._large_samples += highest > WARNING
        self._grow(len(ratio))
        if highest > CRITICAL and view.step < AT_ONCE:
            self._note(view, (ratio > CRITICAL), ratio, view.step)
            self._at_once |= ratio > CRITICAL
        else:
            self._rewrite.observe(view, ratio)
        if len(self._window) == SAMPLES and (highest > WARNING or self._samples == SAMPLES):
            self._judge_window(view)

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        if (self._worst > 0).any():
            return [self._finding(self._history.layout, self._worst, self._since)]
        if self._rewrite.lasting():
            ratio = self._rewrite.ratio
            return [self._finding(self._history.layout, ratio, np.full(len(ratio), self._rewrite.step))]
        return []

    def not_applied(self) -> str | None:
        """Needs updates and weights."""
        return None if self.findings() else too_few("update", self._samples, SAMPLES)

    def _judge_window(self, view: StepView) -> None:
        stacked = self._stacked()
        if self._samples == SAMPLES:
            typical = np.sqrt(np.mean(np.square(np.minimum(stacked, 1e6)), axis=0))
        elif (stacked > WARNING).sum(axis=0).max() < SAMPLES // 2:
            return
        else:
            typical = np.median(stacked, axis=0)
        large = typical > WARNING
        if large.any():
            first = int(np.argmax((stacked[:, large] > WARNING).any(axis=1)))
            self._note(view, large, typical, self._window[first][0])

    def _judge_loss_of_run(self, view: StepView) -> None:
        """Once, when the run stops being finite: had an update just rewritten a matrix?"""
        if self._lost or not self._window:
            return
        self._lost = True
        stacked = self._stacked()
        highest = stacked.max(axis=0)
        if highest.max(initial=0.0) > WARNING:
            step = next(step for step, ratio in self._window if ratio.max(initial=0.0) > WARNING)
            self._note(view, highest > WARNING, highest, step)
            self._lost_to_updates = True

    def _stacked(self) -> Float:
        """Returns the ratios of the window, shape [samples, p]."""
        return np.stack([padded(ratio, len(self._worst), 0.0) for _, ratio in self._window])

    def _note(self, view: StepView, large: Mask, size: Float, since: int) -> None:
        if not large.any():
            return
        fresh = large & (self._worst == 0)
        self._since[fresh] = since
        self._worst = np.where(large, np.maximum(self._worst, size), self._worst)
        self._last = view.step
        self._rate = view.facts.get("learning_rate", self._rate)

    def _grow(self, size: int) -> None:
        self._worst = padded(self._worst, size, 0.0)
        self._since = padded(self._since, size, 0)
        self._at_once = padded(self._at_once, size, False)

    def _finding(self, layout: Layout, ratio: Float, begins: Index) -> Finding:
        large = np.flatnonzero(ratio)
        since = int(begins[large].min())
        first = large[begins[large] == since]
        worst = int(first[np.argmax(ratio[first])])
        names = in_depth_order(layout, layout.layer_of[large], int(layout.layer_of[worst]))
        critical = self._lost_to_updates or bool(self._at_once.any()) or float(ratio.max()) > CRITICAL
        brief = self._last is not None and self._last < SAMPLES and self._large_samples <= BRIEF
        passed = (brief or float(ratio.max()) < MILD) and self._history.recovered(self._last)
        confidence, reason = without_loss(self._history)
        size = float(ratio[worst])
        rate = "" if self._rate is None else f" The learning rate is {number(self._rate)}."
        how = self._how(ratio, worst)
        return Finding(
            kind=self.kind,
            severity="notice" if passed else "critical" if critical else "warning",
            title=f"Updates are too large for the weights, most in {called(names[0])}",
            layer=names[0],
            layers=names,
            first_step=since,
            last_step=since if self._last is None else self._last,
            evidence=(
                f"An update changes {layout.parameters[worst]} by {number(size)} of its size ({how}); about 1e-3 is "
                f"usual.{rate}",
                f"{len(large)} of {int(layout.matrix.sum())} weight matrices are affected.",
            ),
            cause="The learning rate is too high for these weights."
            if len(large) > 0.6 * layout.matrix.sum()
            else f"The learning rate is too high for {called(names[0])}, or its gradient far exceeds its peers'.",
            advice=(
                f"Lower the learning rate{_suggestion(self._rate, size)}.",
                "Warm it up over the first steps.",
                "Clip the gradient norm.",
            ),
            check=f"After the fix an update changes {called(names[0])} by less than 0.01 of its size.",
            confidence=confidence,
            confidence_reason=reason,
            figure=Figure("update", "ratio"),
        )

    def _how(self, ratio: Float, worst: int) -> str:
        if ratio is self._rewrite.ratio:
            return f"a single update, of which none may exceed {CRITICAL:g}, and the loss has not come back since"
        if self._at_once[worst]:
            return f"a single update of the first {AT_ONCE} steps, of which none may exceed {CRITICAL:g}"
        return f"typical of {SAMPLES} samples, which may not exceed {WARNING:g}"


def _suggestion(rate: float | None, ratio: float) -> str:
    """Suggests the rate at which the ratio would be 0.01, rounded to a power of ten."""
    if rate is None or rate <= 0 or ratio <= 0:
        return ""
    return f", to about {number(10.0 ** np.floor(np.log10(rate * 0.01 / ratio)))}"
