"""Updates so small that no weight matrix learns, or that 16-bit weights round them away."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History
from gradwatch.rules.rounding import LOST, Rounding
from gradwatch.rules.rule import count, in_depth_order, number, too_few, without_loss
from gradwatch.rules.view import StepView

RATIO: Final = 1e-7
DENSE_SAMPLES: Final = 20
SAMPLES: Final = 8
HABITUAL: Final = 8
"""Updates in a row at the start of a run that show that it does not accumulate: who does has gaps between them."""
DENSE: Final = 64
"""Steps with an update sample each; later samples stand for about 32 steps."""


class UpdateTooSmall:
    """Finds runs in which even the weight matrix that moves most hardly moves.

    Formula: the largest update ratio u over all weight matrices is below ``RATIO`` on ``DENSE_SAMPLES`` consecutive
    samples, or on ``SAMPLES`` that span ``DENSE`` steps or more, while the gradient norm has not fallen to a hundredth
    of its start (convergence). Samples at which the learning rate moves below a hundredth of its peak do not count:
    that is a warm-up or the tail of a decay. Nor do those between two updates of an optimizer that accumulates: exact
    zeros count if no weight changed since the sample before, and while the learning rate is not 0 only when they span
    ``DENSE`` steps, or the run began with ``HABITUAL`` updates in a row; updates that come after them show that it was
    an accumulation.
    Or: nearly all entries of 16-bit weights stay where they are (``rounding.py``).
    Severity: warning.
    Source: half a unit in the last place of a float32 is 6e-8 of the value: smaller updates are lost in rounding.
    Plain gradient descent with a learning rate of 1e-4 moves healthy small nets by 2e-6 or more a step (calibrated).
    Advice: a higher learning rate, or the schedule; a float32 copy of 16-bit weights.
    """

    kind = "update-too-small"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._run: list[int] = []
        self._samples = self._moves = 0
        self._found: tuple[int, int, int] | None = None
        self._largest = 0.0
        self._rate: float | None = None
        self._rounding = Rounding(history)

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        self._rounding.observe(view)
        largest = self._largest_ratio(view)
        if largest is None or view.spoilt or self._history.moved_between:
            return
        self._samples += 1
        rate = view.facts.get("learning_rate")
        decaying = self._decays(rate)
        self._rate = rate
        if largest >= RATIO or decaying or self._history.converged():
            if largest >= RATIO and self._largest == 0:
                self._found = None
            self._run = []
            self._moves += self._moves == self._samples - 1 and largest > 0
            return
        self._run.append(view.step)
        self._largest = max(largest, self._largest if len(self._run) > 1 else 0.0)
        accumulates = self._largest == 0 and rate != 0 and self._moves < HABITUAL
        if (len(self._run) >= DENSE_SAMPLES and not accumulates) or (
            len(self._run) >= SAMPLES and self._run[-1] - self._run[0 if accumulates else -SAMPLES] >= DENSE
        ):
            first = self._found[0] if self._found is not None else self._run[0]
            self._found = (first, view.step, len(self._run))

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        if self._found is not None:
            return [self._finding(self._found)]
        return [self._lost_in_rounding()] if self._rounding.persistence.holds else []

    def not_applied(self) -> str | None:
        """Needs updates and weights."""
        found = self._found is not None or self._rounding.persistence.holds
        return None if found else too_few("update", self._samples, DENSE_SAMPLES)

    def _largest_ratio(self, view: StepView) -> float | None:
        """Returns the update ratio of the matrix that moves most; None for a record without updates."""
        if self._history.still:
            return 0.0
        if self._history.ratio is None:
            return None
        matrix = self._history.ratio[view.layout.matrix]
        return float(np.nanmax(matrix[np.isfinite(matrix)])) if np.isfinite(matrix).any() else np.inf

    def _decays(self, rate: float | None) -> bool:
        """Tells whether the learning rate is on its way up from, or down to, almost nothing."""
        if rate is None or self._rate is None:
            return False
        return rate != self._rate and rate < 0.01 * self._history.learning_rate.highest

    def _finding(self, found: tuple[int, int, int]) -> Finding:
        first, last, samples = found
        layout, history = self._history.layout, self._history
        names = in_depth_order(layout, layout.chain)
        confidence, reason = without_loss(history)
        peak = history.learning_rate.highest
        scheduled = self._rate is not None and self._rate < 0.01 * peak
        evidence = [
            f"The largest update of any weight matrix is {number(self._largest)} of its size, below {number(RATIO)}, "
            f"on {count(samples, 'sample')} in a row from step {first} on.",
            f"The gradient norm is {number(history.norm.now())}, at the start it was {number(history.norm.start())}: "
            "the run has not converged.",
        ]
        if self._rate is not None:
            evidence.append(f"The learning rate is {number(self._rate)}" + _peak(scheduled, peak))
        return Finding(
            kind=self.kind,
            severity="warning",
            title="Updates are too small for any layer to learn",
            layer=None,
            layers=names,
            first_step=first,
            last_step=last,
            evidence=tuple(evidence),
            cause=self._cause(scheduled),
            advice=self._advice(scheduled),
            check="After the fix an update changes most weight matrices by about 1e-3 of their size.",
            confidence=confidence,
            confidence_reason=reason,
            figure=Figure("update", "ratio"),
        )

    def _lost_in_rounding(self) -> Finding:
        history, layout, seen = self._history, self._history.layout, self._rounding
        confidence, reason = without_loss(history)
        if history.loss.count and not history.loss_is_flat():
            confidence, reason = "medium", "the loss still improves"
        evidence = [
            f"{seen.lost:.0%} of the weight entries that have a gradient do not change at a step; {LOST:.0%} are too "
            "many.",
            "They are of a 16-bit format, in which a step below a 500th (bfloat16) or a 4,000th (float16) of a weight "
            "rounds to nothing.",
        ]
        if history.loss.count:
            evidence.append(f"The loss went from {number(history.loss.start())} to {number(history.loss.now())}.")
        return Finding(
            kind=self.kind,
            severity="warning",
            title="Updates are lost in the rounding of 16-bit weights",
            layer=None,
            layers=in_depth_order(layout, layout.chain),
            first_step=seen.persistence.onset,
            last_step=seen.persistence.last,
            evidence=tuple(evidence),
            cause="The weights themselves are kept in 16 bits, and most steps are smaller than their last digit.",
            advice=(
                "Keep the weights in float32 and compute in 16 bits: autocast, or a float32 master copy in the "
                "optimizer.",
                "Round stochastically or with Kahan summation, if the weights have to stay in 16 bits.",
                "Raise the learning rate, if the steps are small for the weights as well.",
            ),
            check="After the fix fewer than a tenth of the weight entries that have a gradient stay unchanged at a "
            "step.",
            confidence=confidence,
            confidence_reason=reason,
            figure=Figure("update", "zeros"),
        )

    def _cause(self, scheduled: bool) -> str:
        if scheduled:
            return "The schedule took the learning rate down to almost nothing before the gradient had converged."
        if self._rate is not None and self._rate >= 1e-6:
            return (
                "The optimizer's step is lost: it is not applied, clipped away, or the gradients are tiny everywhere."
            )
        return "The learning rate is far too low."

    def _advice(self, scheduled: bool) -> tuple[str, ...]:
        if scheduled:
            return (
                "Let the learning rate schedule end later or at a higher value.",
                "Stop the run here if it is done.",
            )
        return (
            "Raise the learning rate, in factors of 10, until updates are about 1e-3 of the weights' size.",
            "Check that the optimizer holds this model's parameters and that its step is called.",
            "Check the clipping threshold and the weight of the loss.",
        )


def _peak(scheduled: bool, peak: float) -> str:
    return f"; its highest value was {number(peak)}." if scheduled else "."
