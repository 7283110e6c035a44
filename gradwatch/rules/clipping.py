"""A limit on the gradient's norm so far below the gradient that training is throttled."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History
from gradwatch.rules.normalised import Normalised
from gradwatch.rules.rule import called, in_depth_order, number, too_few, without_loss
from gradwatch.rules.view import StepView, median
from gradwatch.statistics import Float

SEVERE: Final = 0.1
OFTEN: Final = 0.9
"""Clipping is severe where it leaves less than ``SEVERE`` of the gradient, at ``OFTEN`` of the steps or more."""
SAMPLES: Final = 20
PROPORTIONAL: Final = 30.0
"""|update| over rate times |clipped gradient| up to which an optimizer follows the gradient's size. Gradient descent
has 1, with momentum 0.9 it has 10; in adaptive ones the update is about rate times the root of the number of weights,
which the limit divides."""
SLOW: Final = 2e-4
"""Share of its size that the weight matrix that moves most changes a step; about 1e-3 is usual (CS231n)."""


class Clipping:
    """Finds clipping that cuts the learning rate by more than ten.

    Formula: min(1, limit / norm) < ``SEVERE`` at ``OFTEN`` of the steps, ``SAMPLES`` or more, under an optimizer whose
    updates are proportional to the clipped gradient (``PROPORTIONAL``), while the largest update ratio is below
    ``SLOW``, or the loss is flat. Where limit and norm are not known, as inside a chain of optax: updates that follow
    the gradient's direction alone (``Normalised``), with both of the last conditions. Not after convergence.
    Severity: warning; notice while the updates are of usual size.
    Under Adam and its like a constant factor cancels, so clipping at every step is harmless there, and usual.
    Source: Pascanu et al. 2013 set the limit at half to ten times the usual norm; calibrated on healthy nets.
    Advice: a limit near the usual norm.
    """

    kind = "clipping"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._steps = 0
        self._severe = 0
        self._first: int | None = None
        self._last: int | None = None
        self._limit = self._norm = 0.0
        self._factors: deque[float] = deque(maxlen=64)
        self._paces: deque[float] = deque(maxlen=SAMPLES)
        self._ratios: deque[float] = deque(maxlen=SAMPLES)
        self._normalised = Normalised()
        self._shares: Float = np.zeros(0)

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if view.skipped or view.spoilt or view.gradient is None:
            return
        ratio = self._history.ratio
        matrix = view.layout.matrix
        if ratio is not None and np.isfinite(ratio[matrix]).any():
            self._ratios.append(float(np.nanmax(ratio[matrix])))
        self._see_limit(view)
        if "clip_threshold" not in view.facts:
            self._normalised.observe(view)

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        history = self._history
        if len(self._ratios) < SAMPLES or history.converged():
            return []
        slow = median(np.array(self._ratios)) < SLOW
        if self._steps >= SAMPLES:
            severe = self._severe >= OFTEN * self._steps
            proportional = bool(self._paces) and median(np.array(self._paces)) < PROPORTIONAL
            if not (severe and proportional):
                return []
            return [self._finding(self._told(), warns=slow or history.loss_is_flat())]
        if slow and (history.loss_is_flat() or not history.loss_logged):
            pace = self._normalised.pace()
            return [] if pace is None else [self._finding(self._inferred(pace), warns=True)]
        return []

    def not_applied(self) -> str | None:
        """Needs updates; a run that is not clipped passes."""
        return too_few("update", self._history.samples["update"], SAMPLES)

    def _see_limit(self, view: StepView) -> None:
        norm, limit = view.facts.get("total_norm"), view.facts.get("clip_threshold")
        if norm is None or limit is None or norm <= 0 or view.gradient is None:
            return
        factor = min(1.0, limit / norm)
        self._steps += view.span
        self._severe += view.span if factor < SEVERE else 0
        if factor < SEVERE:
            self._first = view.step if self._first is None else self._first
            self._last = view.step
        self._factors.append(factor)
        self._limit, self._norm = limit, norm
        rate = view.facts.get("learning_rate", 0.0)
        if view.update is not None and rate > 0:
            moved = float(np.sqrt(np.nansum(np.square(view.update.l2))))
            self._paces.append(moved / (rate * factor * norm))
            self._shares = np.square(view.gradient.l2) / max(np.nansum(np.square(view.gradient.l2)), 1e-300)

    def _told(self) -> tuple[str, ...]:
        factor, rate = median(np.array(self._factors)), self._history.learning_rate.now(1)
        layout = self._history.layout
        found = [
            f"Clipping leaves {number(factor)} of the gradient (median), and less than {SEVERE:g} of it at "
            f"{self._severe / self._steps:.0%} of the steps: the norm is {number(self._norm)}, the limit "
            f"{number(self._limit)}.",
            f"The learning rate of {number(rate)} has the effect of {number(rate * factor)}.",
        ]
        if len(self._shares) == len(layout.layer_of) and np.isfinite(self._shares).any():
            largest = int(np.nanargmax(self._shares))
            name = called(layout.layers[int(layout.layer_of[largest])])
            found.append(f"{self._shares[largest]:.0%} of the squared norm are those of {name}.")
        return tuple(found)

    def _inferred(self, pace: float) -> tuple[str, ...]:
        return (
            f"Updates follow the direction of the gradient and not its size: a step is {number(pace)} long, while the "
            f"gradient norm is {number(self._history.norm.now())}.",
        )

    def _finding(self, evidence: tuple[str, ...], *, warns: bool) -> Finding:
        history = self._history
        confidence, reason = without_loss(history)
        slow = f"The largest update of a weight matrix is {number(median(np.array(self._ratios)))} of its size (median)"
        return Finding(
            kind=self.kind,
            severity="warning" if warns else "notice",
            title="Clipping cuts the gradient so far that training crawls"
            if warns
            else "Clipping cuts the gradient at nearly every step",
            layer=None,
            layers=in_depth_order(history.layout, history.layout.chain),
            first_step=history.first_step if self._first is None else self._first,
            last_step=history.last_step if self._last is None else self._last,
            evidence=(*evidence, f"{slow}; {number(SLOW)} is the limit, about 1e-3 is usual."),
            cause="The limit on the gradient norm is far below the usual norm, so it cuts the learning rate.",
            advice=(
                f"Raise the limit to about the usual norm, {number(self._norm or history.norm.now())}.",
                "If the limit is meant so, raise the learning rate by the same factor.",
                "If one layer makes most of the norm, mend it, or clip each group by itself.",
            ),
            check=f"After the fix clipping leaves more than {SEVERE:g} of the gradient at most steps.",
            confidence=confidence,
            confidence_reason=reason,
            figure=Figure("gradient", "l2"),
        )
