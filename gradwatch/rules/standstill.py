"""Runs in which nothing ever moves, although gradients arrive: the optimizer's step does not reach the model."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History
from gradwatch.rules.rule import count, number
from gradwatch.rules.view import StepView, median

SURE: Final = 10
"""Samples that are enough where no optimizer holds any parameter, so that nothing can be accumulated."""
LONGEST: Final = 32
"""Micro-batches beyond which nobody accumulates before the first step."""
ABOVE_ROUNDING: Final = 16.0
"""Times half a unit in the last place of the weights, which the smallest step in question exceeds."""


class Standstill:
    """Counts samples at which every update is exactly 0 since the start of the run, although gradients are not.

    They are no rounding when no optimizer holds a parameter; when a parameter that is exactly 0 with a gradient stays
    0, because the smallest step would change it; or when rate times the smaller of 1 and rms(gradient), the least that
    gradient descent and adaptive steps make, exceeds the rounding of the weights by ``ABOVE_ROUNDING``.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._samples = 0
        self._ended = False
        self._sure = False
        self._first: int | None = None
        self._last: int | None = None
        self._norm = 0.0

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if self._ended or view.update is None or view.gradient is None or view.skipped:
            return
        history = self._history
        if not history.still or history.moved_between or view.spoilt:
            self._ended = True
            return
        if not (view.gradient.absmax > 0).any() or view.facts.get("learning_rate") == 0:
            return
        self._samples += 1
        self._first = view.step if self._first is None else self._first
        self._last, self._norm = view.step, view.norm or 0.0
        self._sure |= _beyond_rounding(view)

    def finding(self) -> Finding | None:
        """Returns what was found, or None."""
        layout = self._history.layout
        held = bool(layout.trained.any())
        if self._ended or self._samples < (LONGEST + 1 if held else SURE) or not (self._sure or not held):
            return None
        layers = layout.names(dict.fromkeys(int(layout.layer_of[i]) for i in np.flatnonzero(layout.weight)))
        return Finding(
            kind="frozen",
            severity="critical",
            title="No parameter ever changes, although gradients arrive",
            layer=None,
            layers=layers,
            first_step=self._first,
            last_step=self._last,
            evidence=(
                f"Every update is exactly 0 on all {count(self._samples, 'sample')} since step {self._first}; "
                f"{LONGEST + 1 if held else SURE} are enough.",
                f"The gradient norm is {number(self._norm)}, so there is something to apply.",
                *(() if held else ("The optimizer holds none of the model's parameters.",)),
            ),
            cause="The optimizer's step never reaches the model: it is not called, or what it returns is not kept."
            if held
            else "The optimizer holds other parameters than the model's: those of a copy, or of the model before it "
            "was moved or wrapped.",
            advice=(
                "Call the optimizer's step after each backward pass, and keep the parameters that it returns.",
                "Make the optimizer from the parameters of the model that is trained, after copying and moving it.",
            ),
            check="After the fix updates are above 0 from the first step on.",
            figure=Figure("update", "ratio"),
        )


def _beyond_rounding(view: StepView) -> bool:
    gradient, weight = view.gradient, view.weight
    assert gradient is not None
    trained = view.layout.trained & (gradient.absmax > 0)
    if weight is not None and (trained & (weight.absmax == 0)).any():
        return True
    size = weight.rms if weight is not None else view.layout.initial_rms
    step = view.facts.get("learning_rate", 0.0) * np.minimum(gradient.rms, 1.0)
    margin = step - ABOVE_ROUNDING * view.layout.rounding * size
    return median(margin[trained & view.layout.matrix]) > 0
