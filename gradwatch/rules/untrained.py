"""Layers in the middle of a network that ask for no gradient, although gradients pass them."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History
from gradwatch.rules.layout import Mask
from gradwatch.rules.rule import at_start, called, count, in_depth_order, listing, padded, stretches
from gradwatch.rules.view import StepView

PASSES: Final = 5
"""Samples with a gradient at the layer's output, and an activation gradient other than 0 there."""
MOST: Final = 0.6
"""Share of the elements, in two layers or more, from which freezing is a way of training."""


class Untrained:
    """Finds weights that require no gradient in layers that a gradient passes, between trained layers or behind them.

    A stretch next to the input is what fine-tuning keeps; layers that no gradient passes are copies, such as teachers
    and targets; several layers up to the output judge what is trained, as a perceptual loss does; layers some parameter
    of which is trained are adapted. None of these is found.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._passed = np.zeros(0, dtype=np.int64)
        self._last: int | None = None

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        rows = view.activation_gradient
        if rows is None or not view.layout.untrained.any() or view.skipped:
            return
        self._passed = padded(self._passed, len(view.layout.layers), 0)
        self._passed += rows.absmax > 0
        self._last = view.step

    def findings(self) -> list[Finding]:
        """Returns one finding for each stretch of neighbouring layers."""
        layout = self._history.layout
        if not layout.untrained.any():
            return []
        adapted = np.isin(layout.layer_of, layout.layer_of[layout.trained | layout.missing])
        passed = padded(self._passed, len(layout.layers), 0) >= PASSES
        still = layout.untrained & ~adapted & passed[layout.layer_of]
        every = layout.matrix | layout.untrained
        owners = set(layout.layer_of[every].tolist())
        order = [layer for layer in layout.depth.tolist() if layer in owners]
        layers = set(layout.layer_of[still].tolist())
        most = layout.numel[layout.untrained].sum() >= MOST * layout.numel[every].sum()
        if not layers or (most and len(set(layout.layer_of[layout.untrained].tolist())) > 1):
            return []
        found = [stretch for stretch in stretches(order, layers) if stretch[0] != order[0]]
        found = [stretch for stretch in found if stretch[-1] != order[-1] or len(stretch) == 1]
        return [self._finding(still, stretch) for stretch in found]

    def _finding(self, still: Mask, stretch: list[int]) -> Finding:
        layout = self._history.layout
        names = in_depth_order(layout, stretch)
        name = called(names[0])
        inside = np.flatnonzero(still & np.isin(layout.layer_of, stretch))
        every = layout.numel[layout.matrix | layout.untrained].sum()
        return Finding(
            kind="frozen",
            severity="warning",
            title=f"{at_start(name)} asks for no gradient, so it never changes"
            if len(names) == 1
            else f"{len(names)} layers from {name} on ask for no gradient, so they never change",
            layer=names[0],
            layers=names,
            first_step=self._history.first_step,
            last_step=self._last,
            evidence=(
                f"{listing([layout.parameters[int(i)] for i in inside])} require no gradient, while layers before them "
                "are trained.",
                f"A gradient passes the output of {name} on {count(int(self._passed[stretch[0]]), 'sample')}; {PASSES} "
                "are enough to tell it from a copy.",
                f"That is {layout.numel[inside].sum() / every:.0%} of the elements of all weight matrices.",
            ),
            cause=f"{at_start(name)} was told to take no gradient (requires_grad is False) and still is, perhaps on "
            "purpose.",
            advice=(
                f"Set requires_grad to True for {name} before the optimizer is made, and give it to the optimizer.",
                "If it is to stay fixed, nothing is to be done.",
            ),
            check=f"After the fix {name} has a gradient and updates above 0.",
            confidence="medium",
            confidence_reason="it may be meant so",
            figure=Figure("activation_gradient", "rms", "depth"),
        )
