"""Runs in which no parameter has a gradient: the loss does not depend on the network."""

from __future__ import annotations

from typing import Final

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History
from gradwatch.rules.rule import count, in_depth_order, without_loss
from gradwatch.rules.view import StepView

BARREN: Final = 16
"""Steps without any gradient that are no slow start: a network with zeros in two layers begins without one."""


class Barren:
    """Counts the steps from the first on at which every gradient is None or exactly 0.

    Holds after ``BARREN`` of them, unless some number was not finite, the latest logged loss is 0 (a hinge that is
    satisfied has no gradient), or a parameter is float16 (``underflow.py`` tells of those).
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._steps = 0
        self._first: int | None = None
        self._last = 0
        self._ended = False

    def observe(self, view: StepView) -> None:
        """Takes a step without any gradient."""
        if view.gradient is None or view.gradient.any_bad:
            self._ended = True
            return
        self._first = view.step if self._first is None else self._first
        self._last = view.step
        self._steps += view.span

    def end(self) -> None:
        """Takes a step at which some parameter has a gradient."""
        self._ended = True

    @property
    def holds(self) -> bool:
        """Whether nothing has had a gradient for long enough."""
        loss = self._history.loss
        solved = loss.count > 0 and loss.now(1) == 0
        return not (self._ended or solved or self._steps < BARREN or bool(self._history.layout.half.any()))

    def finding(self, kind: str) -> Finding:
        """Returns the finding, of the kind of the rule that asks."""
        layout = self._history.layout
        confidence, reason = without_loss(self._history)
        return Finding(
            kind=kind,
            severity="critical",
            title="No gradient reaches any layer, so nothing learns",
            layer=None,
            layers=in_depth_order(layout, layout.chain),
            first_step=self._first,
            last_step=self._last,
            evidence=(
                f"Every gradient is None or exactly 0 at all {count(self._steps, 'step')} from step {self._first} on; "
                f"{BARREN} are enough.",
            ),
            cause="The loss does not depend on the parameters: it is computed behind a detach or a stop of gradients, "
            "or from rounded or compared values; or the gradient is taken of something else.",
            advice=(
                "Look at how the loss is computed from the network's output: detach, argmax, rounding, comparisons.",
                "Check that the gradient is taken of this loss with respect to these parameters.",
            ),
            check="After the fix the last layer has a gradient above 0 at the first step.",
            confidence=confidence,
            confidence_reason=reason,
            figure=Figure("gradient", "rms", "depth"),
        )
