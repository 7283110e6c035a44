"""A network whose outputs start far too large, so that training first has to bring them down."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.rules.rule import called, number
from gradwatch.rules.view import StepView

LARGE: Final = 100.0
"""Rms of the last layer's outputs at the first sample. He's and Glorot's scales keep it at about 1 for normalised
inputs; at 100 the cross-entropy of a guess is about 100 too."""
UNDONE: Final = 0.5
"""Share of it that is left later: outputs that are meant to be large stay so."""


class Swollen:
    """Follows the outputs of the last layer of the chain.

    Adaptive optimizers hide an explosion at the start from the updates, which keep their usual size.

    Attributes:
        first, now: rms at the first and at the latest sample, null when unknown.
    """

    def __init__(self) -> None:
        self.first = self.now = float("nan")
        self._layer = ""

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        chain = view.layout.chain
        if view.activation is None or not len(chain):
            return
        layer, size = view.layout.layers[int(chain[-1])], float(view.activation.rms[chain[-1]])
        if np.isnan(self.first):
            self._layer, self.first = layer, size
        if layer == self._layer and np.isfinite(size):
            self.now = size

    def undone(self) -> bool:
        """Whether the outputs started above ``LARGE`` and have been brought down to ``UNDONE`` of that."""
        return self.first > LARGE and self.now < UNDONE * self.first

    def measured(self) -> str:
        """Returns what was measured, in a sentence."""
        return (
            f"The outputs of {called(self._layer)} start at {number(self.first)} in size (rms; {LARGE:g} is "
            f"too large, 1 is usual), and training has brought them down to {number(self.now)}."
        )
