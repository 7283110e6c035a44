"""How large the inputs of a network are, and its targets beside its outputs."""

from __future__ import annotations

import math
from typing import Final

from gradwatch.rules.view import StepView

RAW: Final = 30.0
"""rms of inputs from which nobody normalised them: standardised ones have 1, evenly spread pixels 255 / sqrt(3)."""
FAR: Final = 100.0
"""Error over output, rms, from which targets are of another scale."""
EXACT: Final = 1e-3
SAMPLES: Final = 5


class Scales:
    """Reads the scale of inputs at the first layer of the chain, and of targets from the gradient at the last one.

    The gradient of a mean squared error over n outputs is 2 error / n at the output, and the loss is mean(error^2):
    if n rms(gradient) / 2 is sqrt(loss) within ``EXACT``, that is what the loss is, and both give rms(error). The same
    for a sum, of gradient 2 error.

    Attributes:
        inputs: rms of the inputs, NaN while not captured; ``steps`` samples of it exceeded ``RAW``.
        error, output: rms of both at the latest sample of a squared error; ``far`` samples of it exceeded ``FAR``.
        first_error: rms of the first error.
    """

    def __init__(self) -> None:
        self.inputs = self.error = self.output = self.first_error = math.nan
        self.raw = self.far = 0
        self.first_step: int | None = None

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        chain = view.layout.chain
        if view.skipped or view.spoilt or view.activation is None or not len(chain):
            return
        self.first_step = view.step if self.first_step is None else self.first_step
        if view.activation_input is not None and view.activation_input.rms[chain[0]] > 0:
            self.inputs = float(view.activation_input.rms[chain[0]])
            self.raw += self.inputs > RAW
        error = _error(view)
        if error is not None:
            self.error, self.output = error, float(view.activation.rms[chain[-1]])
            self.first_error = self.error if math.isnan(self.first_error) else self.first_error
            self.far += self.error > FAR * self.output

    def raw_inputs(self) -> bool:
        """Whether the inputs are raw."""
        return self.raw >= SAMPLES and self.inputs > RAW

    def far_targets(self) -> bool:
        """Whether the targets are far off, and stay so: the error has not fallen by half."""
        return self.far >= SAMPLES and self.error > FAR * self.output and self.error > 0.5 * self.first_error


def _error(view: StepView) -> float | None:
    """Returns rms(error) of a squared error, or None for another loss."""
    rows, last = view.activation_gradient, view.layout.chain[-1]
    if rows is None or view.loss is None or not view.loss > 0 or not rows.rms[last] > 0:
        return None
    size, n = float(rows.rms[last]), int(rows.n[last])
    for error, loss in ((n * size / 2, view.loss), (size / 2, view.loss / n)):
        if abs(error / math.sqrt(loss) - 1) < EXACT:
            return error
    return None
