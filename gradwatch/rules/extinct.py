"""Gradients that were there and became exactly 0: the form of vanishing that rounds to nothing."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.gaps import PERSIST, Gaps
from gradwatch.rules.history import History
from gradwatch.rules.layout import Layout, Mask
from gradwatch.rules.rule import count, in_depth_order, number, padded, without_loss
from gradwatch.rules.view import StepView

ALIVE: Final = 1e-3
"""Global norm over its start, below which the run had converged before the gradients became 0."""
SHARE: Final = 0.5
"""Share of the layers in the chain that must be affected: a single expert or head without examples is no fault."""


class Extinct:
    """Finds weights whose gradient is exactly 0 at ``gaps.PERSIST`` steps in a row after it was not.

    Not when the global norm had fallen below ``ALIVE`` of its start, or the loss to that share of its own: that is
    convergence.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._gaps = Gaps()
        self._onset: int | None = None
        self._last: int | None = None
        self._alive_norm = float("nan")
        self._before = float("nan")

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        rows = view.gradient
        if rows is None or view.skipped or rows.any_bad:
            return
        zero = (rows.absmax == 0) & view.layout.matrix
        flowing = (rows.absmax > 0) & view.layout.matrix
        self._gaps.observe(view, zero, flowing)
        if np.count_nonzero(zero) < SHARE * np.count_nonzero(view.layout.matrix):
            self._alive_norm = view.norm or 0.0
            self._onset = None
            return
        if self._onset is None:
            self._onset, self._before = view.step, self._alive_norm
        self._last = view.step

    def findings(self) -> list[Finding]:
        """Returns at most one finding."""
        layout = self._history.layout
        dead = self._dead(layout)
        if self._onset is None or not dead.any() or dead.sum() < SHARE * layout.matrix.sum() or self._converged():
            return []
        names = in_depth_order(layout, layout.layer_of[dead])
        confidence, reason = without_loss(self._history)
        return [
            Finding(
                kind="vanishing",
                severity="critical",
                title=f"Gradients become exactly 0 in {count(len(names), 'layer')}",
                layer=names[0],
                layers=names,
                first_step=self._onset,
                last_step=self._last,
                evidence=(
                    f"The weight gradients of {count(len(names), 'layer')} are exactly 0 since step {self._onset} "
                    f"({PERSIST} steps are enough); just before, the gradient norm was {number(self._before)}, at the "
                    f"start {number(self._history.norm.start())}.",
                ),
                cause="The units of a layer died or saturated at once, most often after an update that was too large.",
                advice=(
                    "Lower the learning rate, or warm it up.",
                    "Use an activation that never has slope 0, such as leaky ReLU or GELU.",
                    "Normalise the inputs and check the initialisation.",
                ),
                check="After the fix every layer's weight gradient stays above 0.",
                confidence=confidence,
                confidence_reason=reason,
                figure=Figure("gradient", "rms", "step"),
            )
        ]

    def _dead(self, layout: Layout) -> Mask:
        size = len(layout.parameters)
        lasting = padded(self._gaps.lasting() & self._gaps.ever, size, False)
        return lasting & layout.matrix

    def _converged(self) -> bool:
        loss = self._history.loss
        solved = loss.count > 0 and abs(loss.now()) < ALIVE * abs(loss.start())
        return solved or not self._before >= ALIVE * self._history.norm.start()
