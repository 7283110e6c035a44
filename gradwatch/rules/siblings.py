"""Layers of the same shapes under one name: experts and heads, which take turns, or links of a chain, which do not."""

from __future__ import annotations

import numpy as np

from gradwatch.rules.layout import Index, Layout
from gradwatch.rules.rule import padded
from gradwatch.rules.view import StepView
from gradwatch.statistics import Float, Integer


class Siblings:
    """Follows which layers run, and what they are fed.

    Links of a chain run at every sample, each is fed as many numbers as it gives, and no two the same ones. Experts
    are fed the same batch, or parts of it of various sizes; heads give less than they are fed.
    """

    def __init__(self) -> None:
        self._samples = 0
        self._ran: Index = np.zeros(0, dtype=np.int64)
        self._fed: Integer = np.zeros(0, dtype=np.int64)
        self._given: Integer = np.zeros(0, dtype=np.int64)
        self._norm: Float = np.zeros(0)

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if view.activation is None or view.activation_input is None or view.skipped:
            return
        self._samples += 1
        self._ran = padded(self._ran, len(view.layout.layers), 0)
        self._ran[view.activation.present] += 1
        self._fed, self._given, self._norm = view.activation_input.n, view.activation.n, view.activation_input.l2

    def of(self, layout: Layout, layer: int, connected: set[int]) -> list[int]:
        """Returns the layers with its shapes and family among those that get a gradient, in order of use."""
        own, family = _shapes(layout, layer), _family(layout.layers[layer])
        return [
            int(other)
            for other in layout.depth
            if other in connected and _family(layout.layers[other]) == family and _shapes(layout, other) == own
        ]

    def chained(self, layout: Layout, layers: list[int]) -> bool:
        """Tells whether at least two of these are links of a chain; False where what they are fed was not captured."""
        if len(layers) < 2 or max(layers) >= len(self._ran) or any(self._ran[i] < self._samples for i in layers):
            return False
        ends = [self._ends(layout, layer) for layer in layers]
        fed = {int(self._fed[first]) for first, _ in ends}
        given = {int(self._given[last]) for _, last in ends}
        norms = {float(self._norm[first]) for first, _ in ends}
        return fed == given and len(fed) == 1 and min(fed) > 0 and len(norms) == len(ends)

    def _ends(self, layout: Layout, layer: int) -> tuple[int, int]:
        """Returns the first and the last layer that run in the block around a layer."""
        block = f"{_block(layout.layers[layer])}."
        inside = [
            int(i)
            for i in layout.depth
            if i < len(self._given) and self._given[i] > 0 and f"{layout.layers[i]}.".startswith(block)
        ]
        return inside[0], inside[-1]


def _shapes(layout: Layout, layer: int) -> list[tuple[int, ...]]:
    return sorted(layout.shapes[int(i)] for i in np.flatnonzero(layout.layer_of == layer))


def _block(name: str) -> str:
    """Returns the path up to its last number: ``blocks.3`` of ``blocks.3.fc1``; the whole path when it has none."""
    parts = name.split(".")
    numbered = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbered[-1] + 1]) if numbered else name


def _family(name: str) -> str:
    """Returns the path without its last part that is told apart by number or name: ``experts.0`` and ``experts.1``."""
    parts = name.split(".")
    numbered = [i for i, part in enumerate(parts) if part.isdigit()]
    if numbered:
        parts[numbered[-1]] = "*"
        return ".".join(parts)
    return ".".join([*parts[:-1], "*"]) if len(parts) > 1 else name
