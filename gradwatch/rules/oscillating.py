"""A learning rate at the edge of stability: every step jumps over the valley and the next one jumps back."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.directions import coordinates, cosine
from gradwatch.rules.history import History
from gradwatch.rules.persistence import Persistence
from gradwatch.rules.rule import in_depth_order, number, too_few, without_loss
from gradwatch.rules.view import StepView, median
from gradwatch.statistics import Float

REVERSED: Final = -0.5
WINDOW: Final = 20
TURNS: Final = 18
"""Of ``WINDOW`` successive pairs of gradients, how many have to point against each other."""
SHARE: Final = 0.15
"""Share of the loss in the swings from which they cost something. Calibrated: linear models within 1 % of the edge hold
0.23 of it or more, healthy runs 0.10 at most and then for fewer turns."""
DECAY: Final = 4.0
"""Factor by which the gradient may shrink within the window: swings that shrink faster die out by themselves."""
GROWTH: Final = 1.3
"""Factor a step by which it may grow: beyond, updates are simply too large."""
SETTLING: Final = 12
"""Steps within which the swings of a rate that was too high from the start show: flatter directions fade first."""
CENTRED: Final = 0.7
"""|mean| / rms of the inputs above which their mean makes one direction steep."""


class Oscillating:
    """Finds gradients that turn round at every step and hardly shrink.

    Formula: the cosine between the gradients of two successive steps, by ``directions.coordinates``, is below
    ``REVERSED`` at ``TURNS`` of ``WINDOW`` steps, over which the gradient neither shrinks ``DECAY``-fold nor grows
    beyond ``GROWTH`` a step. Second key: swings that turn w into -w along a direction of curvature c hold
    c w^2 / 2 = |gradient| |update| / 4 of the loss, because the update is 2 w and the gradient c w; ``SHARE`` of it, in
    the median over the window. Without a logged loss the first key is enough.
    Source: along an eigenvector of curvature c gradient descent takes w to (1 - rate c) w, so the sign turns at each
    step beyond rate = 1 / c and nothing shrinks at 2 / c (LeCun et al. 1998, Efficient BackProp; with momentum b the
    edge is 2 (1 + b) / c). Networks at the edge of stability (Cohen et al. 2021) train on: the swings hold little.
    Advice: half the learning rate, centred and scaled inputs, less momentum.
    """

    kind = "oscillating"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._turning = Persistence(TURNS, WINDOW)
        self._pairs = 0
        self._before: tuple[int, Float] | None = None
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._shares: deque[float] = deque(maxlen=WINDOW)
        self._cosines: deque[float] = deque(maxlen=WINDOW)
        self._found: tuple[int, int, float, float, float] | None = None
        self._first_loss: float | None = None
        self._off_centre: float | None = None

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        self._see_inputs(view)
        if view.gradient is None or view.skipped or view.spoilt:
            self._before = None
            return
        here = coordinates(view.gradient)
        before, self._before = self._before, (view.step, here)
        if before is None or before[0] != view.step - 1 or len(before[1]) != len(here):
            return
        turn = cosine(before[1], here)
        if np.isnan(turn):
            return
        self._pairs += 1
        self._cosines.append(turn)
        self._measure(view)
        if self._turning.observe(view.step, turn < REVERSED) and self._lasts() and self._costs():
            first = self._found[0] if self._found is not None else self._turning.onset or 0
            self._found = (first, view.step, self._pace(), median(np.array(self._cosines)), self._share())

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        return [self._finding(*self._found)] if self._found is not None else []

    def not_applied(self) -> str | None:
        """Needs gradients of successive steps that do not sum to 0 in every layer."""
        if self._found is not None or self._pairs >= WINDOW:
            return None
        if self._history.samples["gradient"] > 2 * WINDOW:
            return "No gradients of successive steps were captured, or they sum to 0 in every layer."
        return too_few("gradient", self._pairs, WINDOW)

    def _see_inputs(self, view: StepView) -> None:
        rows, chain = view.activation_input, view.layout.chain
        if self._off_centre is None and rows is not None and len(chain) and rows.n[chain[0]] > 0:
            self._off_centre = abs(float(rows.sum[chain[0]])) / float(rows.n[chain[0]] * rows.rms[chain[0]] + 1e-30)

    def _measure(self, view: StepView) -> None:
        norm = view.facts.get("total_norm", view.norm or 0.0)
        self._norms.append(norm)
        if view.loss is None:
            return
        self._first_loss = view.loss if self._first_loss is None else self._first_loss
        if view.update is not None:
            moved = float(np.sqrt(np.nansum(np.square(view.update.l2))))
            held = max(abs(view.loss), abs(self._first_loss - view.loss))
            self._shares.append(norm * moved / 4 / held if held > 0 else np.inf)

    def _lasts(self) -> bool:
        return self._norms[-1] * DECAY > self._norms[0] and self._pace() < GROWTH

    def _pace(self) -> float:
        """Returns the factor by which the gradient changes a step, over the window."""
        if not self._norms[0] > 0:
            return float("inf")
        return float((self._norms[-1] / self._norms[0]) ** (1 / max(len(self._norms) - 1, 1)))

    def _share(self) -> float:
        return median(np.array(self._shares)) if self._shares else float("nan")

    def _costs(self) -> bool:
        return not self._history.loss_logged or self._share() > SHARE

    def _onset(self, first: int) -> int:
        """Returns where it began: with the run, when it shows as soon as flatter directions have faded."""
        start = self._history.first_step or 0
        return start if first - start <= SETTLING else first

    def _finding(self, first: int, last: int, pace: float, turn: float, share: float) -> Finding:
        history = self._history
        confidence, reason = without_loss(history)
        passed = history.loss_logged and history.recovered(last)
        evidence = [
            f"Successive gradients point against each other: the median of their cosine is {number(turn)} and the "
            f"limit {REVERSED:g}, on {TURNS} of {WINDOW} steps at least.",
            f"Each step leaves {pace:.2f} of the gradient, pointing back: under plain gradient descent the learning "
            f"rate is {(1 + pace) / 2:.2f} times the largest stable one, (1 + {pace:.2f}) / 2.",
        ]
        if np.isfinite(share):
            evidence.append(f"The swings hold {min(share, 1.0):.0%} of the loss; {SHARE:.0%} are enough.")
        if history.learning_rate.count:
            evidence.append(f"The learning rate is {number(history.learning_rate.now(1))}.")
        return Finding(
            kind=self.kind,
            severity="notice" if passed else "warning",
            title="Training swings from side to side instead of going down",
            layer=None,
            layers=in_depth_order(history.layout, history.layout.chain),
            first_step=self._onset(first),
            last_step=last,
            evidence=tuple(evidence),
            cause=self._cause(),
            advice=self._advice(),
            check="After the fix the cosine of successive gradients is above -0.5 at most steps, and the loss falls.",
            confidence=confidence,
            confidence_reason=reason,
            figure=Figure("gradient", "l2"),
        )

    def _cause(self) -> str:
        steep = "The learning rate is about twice the inverse of the steepest curvature, the edge of stability"
        if self._off_centre is not None and self._off_centre > CENTRED:
            return f"{steep}; the inputs' mean, {number(self._off_centre)} of their rms, makes one direction steep."
        return f"{steep}, so each step lands as far on the other side."

    def _advice(self) -> tuple[str, ...]:
        rate = self._history.learning_rate
        half = f", to about {number(rate.now(1) / 2)}" if rate.count else ""
        return (
            f"Halve the learning rate{half}; a third of it is safer.",
            "Subtract the mean of the inputs and divide them by their spread.",
            "Lower the momentum, or use an optimizer that scales each parameter.",
        )
