"""Batch normalisation that does not see a batch: in evaluation mode, or over one example."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.rules.layout import Index, Layout
from gradwatch.rules.view import StepView

SAMPLES: Final = 5
SAME: Final = 0.02
UNIT: Final = 0.05


class BatchNorms:
    """Tells from sizes whether batch normalisation passes its inputs through, and over how many examples it runs.

    With statistics of the batch, weights of 1 and biases of 0 its output has the rms 1. In evaluation mode from the
    start it multiplies by its weights alone, because its running statistics still are 0 and 1: then the output is as
    large as that of the layer before in all of them, within ``SAME``, and in some it is not 1, by ``UNIT``. Examples
    are the outputs of a linear last layer over its units.

    Attributes:
        idle: samples at which all layers passed their inputs through.
        alone: samples at which the batch was one example.
        first_step: of the samples.
        layers: of batch normalisation, in the order of depth.
    """

    def __init__(self) -> None:
        self.idle = self.alone = self.samples = 0
        self.first_step: int | None = None
        self.layers: Index = np.zeros(0, dtype=np.int64)
        self._version = -1
        self._before: Index = self.layers

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        rows = view.activation
        if rows is None or view.skipped:
            return
        self._find(view.layout)
        if not len(self.layers):
            return
        self.samples += 1
        self.first_step = view.step if self.first_step is None else self.first_step
        units = _units(view.layout)
        self.alone += units is not None and int(rows.n[view.layout.chain[-1]]) == units
        if self.samples <= SAMPLES and view.weight is not None:
            size, wanted = rows.rms[self.layers], rows.rms[self._before] * self._scale(view)
            with np.errstate(divide="ignore", invalid="ignore"):
                same = np.abs(size / wanted - 1) < SAME
            self.idle += bool(same.all() and (np.abs(size - 1) > UNIT).any())

    def evaluates(self) -> bool:
        """Whether the first samples all show evaluation mode."""
        return self.idle >= SAMPLES

    def single(self) -> bool:
        """Whether nearly all batches are single examples."""
        return self.alone >= SAMPLES and self.alone > 0.9 * self.samples

    def _scale(self, view: StepView) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Returns the rms of each layer's weights after the step."""
        assert view.weight is not None
        found = np.full(len(self.layers), np.nan)
        for place, layer in enumerate(self.layers.tolist()):
            owned = np.flatnonzero(view.layout.layer_of == layer)
            weights = [i for i in owned.tolist() if view.layout.parameters[i].endswith((".weight", ".scale"))]
            found[place] = view.weight.rms[weights[0]] if weights else np.nan
        return found

    def _find(self, layout: Layout) -> None:
        if layout.version == self._version:
            return
        self._version = layout.version
        order = layout.depth.tolist()
        found = [i for i, layer in enumerate(order) if i and layout.class_of[layer].startswith("BatchNorm")]
        self.layers = np.array([order[i] for i in found], dtype=np.int64)
        self._before = np.array([order[i - 1] for i in found], dtype=np.int64)


def _units(layout: Layout) -> int | None:
    """Returns the units of the last layer of the chain, where it is a matrix with a bias."""
    if not len(layout.chain) or len(layout.shapes[int(layout.primary[-1])]) != 2:
        return None
    owned = np.flatnonzero(layout.layer_of == layout.chain[-1]).tolist()
    return next((int(layout.numel[i]) for i in owned if len(layout.shapes[i]) == 1), None)
