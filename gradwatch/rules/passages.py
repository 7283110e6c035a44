"""What lies between a layer that owns a weight matrix and the next one: nonlinearities, norms, the next one's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradwatch.rules.layout import NOWHERE, Index, Layout
from gradwatch.statistics import Float


@dataclass(frozen=True, slots=True)
class Passages:
    """The way from each layer of the chain to the next, in order of use in the forward pass.

    Attributes:
        version: of the layout.
        chain: the layers of the chain, shape [c].
        after: the next layer of the chain, ``NOWHERE`` behind the last, shape [c].
        at, layer: position in the chain, and layer, of every layer that stands from one of the chain to before the
            next, shape [q] each.
        vector_at, vector: position in the chain, and parameter, of the trained parameters of one dimension there, which
            have an entry a unit: biases, scales and shifts of norms, shape [v] each.
        last: the last layer of each way that owns a parameter: what it gives meets the nonlinearity, shape [c].
        units: outputs of each layer of the chain for an example, or a position, shape [c].
    """

    version: int
    chain: Index
    after: Index
    at: Index
    layer: Index
    vector_at: Index
    vector: Index
    last: Index
    units: Float

    def highest(self, share: Float, *, inner: bool = False) -> Float:
        """Returns the largest known share among the layers of each passage, shape [c]; of a share a layer, shape [l].

        Args:
            share: NaN where unknown.
            inner: leave out the layers of the chain themselves.
        """
        chosen = self.layer != self.chain[self.at] if inner else np.ones(len(self.at), dtype=np.bool_)
        return _highest(share[self.layer[chosen]], self.at[chosen], len(self.chain))

    def highest_of_vectors(self, share: Float) -> Float:
        """Returns the same of a share a parameter, over the vectors; shape [c]."""
        return _highest(share[self.vector], self.vector_at, len(self.chain))

    def next_input(self, column: Float) -> Float:
        """Returns a column over the inputs of layers at the next layer of each, NaN behind the last; shape [c]."""
        return np.where(self.after != NOWHERE, column[self.after], np.nan)


def passages(layout: Layout) -> Passages:
    """Reads the ways off a layout."""
    chain, size = layout.chain, len(layout.layers)
    start = np.full(size, NOWHERE, dtype=np.int64)
    start[chain] = np.arange(len(chain))
    # Each layer belongs to the last one of the chain that was used before it.
    place = np.full(size, NOWHERE, dtype=np.int64)
    place[layout.depth] = np.maximum.accumulate(start[layout.depth])
    layers = layout.depth[place[layout.depth] != NOWHERE]
    flat = np.array([len(shape) == 1 for shape in layout.shapes], dtype=np.bool_)
    vectors = np.flatnonzero(layout.trained & flat & (place[layout.layer_of] != NOWHERE))
    owners = layers[np.isin(layers, layout.layer_of)]
    last = chain.copy()
    last[place[owners]] = owners
    return Passages(
        version=layout.version,
        chain=chain,
        after=np.append(chain[1:], NOWHERE)[: len(chain)],
        at=place[layers],
        layer=layers,
        vector_at=place[layout.layer_of[vectors]],
        vector=vectors,
        last=last,
        units=np.maximum(layout.numel[layout.primary] * 3.0 * layout.initial_rms[layout.primary] ** 2, 1.0),
    )


def _highest(values: Float, at: Index, size: int) -> Float:
    found = np.full(size, np.nan)
    np.fmax.at(found, at, values)
    return found
