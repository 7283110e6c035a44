"""Which share of a layer's units is silent at one sample: 0 for every example, with a gradient of exactly 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gradwatch.rules.layout import NOWHERE, Mask
from gradwatch.rules.passages import Passages
from gradwatch.rules.view import Rows, StepView
from gradwatch.statistics import BINS, Float, Integer, bin_edges

EDGES: Final = bin_edges()
"""Lower ends of the octaves in which sizes are counted."""
LIVE: Final = 0.3
"""Share of zeros that the units which do answer have at least, because ReLU cuts about half of their values. With
fewer, the zero gradients come from elsewhere, such as underflow; or the signal is so weak that each unit is always on
or always off, as its bias has it, which is no death."""
PUSHED: Final = -0.6
"""Mean of the values before the nonlinearity over their mean size, below which units were driven so far down that those
which are left may well be always on."""
ACCIDENT: Final = 0.05
"""Share of units that may be silent in one batch by chance."""
CUT: Final = 0.25
"""Share of the size of the values before a nonlinearity that lies above 0, from which on something else than ReLU made
all of them 0: a rounding or a comparison."""
BELOW: Final = 0.9
"""Share of the least size that values which do not arrive can have, which has to lie below 0: where less does, units
are chosen, as by top-k, and do not die."""


@dataclass(frozen=True, slots=True)
class Silence:
    """The silent shares at one step, of the layers of the chain, NaN where unknown, shape [c] each.

    Attributes:
        batch: share of units that are silent in this batch.
        lasting: share of units that were so on the last 8 sampled batches, where the adapter counts it.
        units: outputs of the layer for an example, or a position.
        mean, size: of the values before the nonlinearity: their mean, and the mean of their sizes.
    """

    batch: Float
    lasting: Float
    units: Float
    mean: Float
    size: Float


@dataclass(frozen=True, slots=True)
class _Behind:
    """What stands behind each layer, at the place with the most zeros.

    Attributes:
        zeros: their share, shape [c].
        silent: share of units that are silent for long, shape [c].
        mean: of the values, shape [c].
        octaves: share of the values by octave, shape [c, 64].
    """

    zeros: Float
    silent: Float
    mean: Float
    octaves: Float


def silence(view: StepView, ways: Passages) -> Silence | None:
    """Measures each layer of the chain that another one follows; None where activations are not captured.

    The zeros of a nonlinearity show at what lies between the layer and the next, or at the next one's input; the lost
    gradient shows in the vectors of the layer and of norms behind it, one entry a unit, whose exact zeros say which
    units got none in this batch. Both have to agree, and the zeros have to be those that ReLU makes of the values
    before it. A layer that is silent as a whole has no other gradient either.
    """
    inputs, outputs = view.activation_input, view.activation
    if inputs is None or outputs is None:
        return None
    means, spread = _means(outputs), _octaves(outputs)
    behind = _behind(ways, inputs, outputs, means, spread)
    mean, octaves = means[ways.last], spread[ways.last]
    # Within an octave, values are taken as evenly spread in log.
    size = np.clip(octaves @ EDGES / np.log(2), np.abs(mean), outputs.rms[ways.last])
    missing = np.maximum(octaves - behind.octaves, 0) @ EDGES
    examples = outputs.n[ways.chain] / ways.units
    pushed = mean < PUSHED * size
    batch = _agreed(without_gradient(view, ways), behind.zeros, examples, pushed)
    lasting = np.minimum(behind.silent, ways.highest(share(outputs.silent_delta_units, outputs.units)))
    with np.errstate(divide="ignore", invalid="ignore"):
        alive = (behind.zeros - lasting) / (1 - lasting)
        cut, chosen = (size + mean) / 2 > CUT * size, behind.mean - mean < BELOW * missing
    batch[np.where(batch == 1, cut, chosen)] = 0.0
    lasting[np.where(lasting == 1, cut, chosen | ((alive < LIVE) & ~pushed))] = 0.0
    return Silence(batch, lasting, ways.units, mean, size)


def without_gradient(view: StepView, ways: Passages) -> Float:
    """Returns the share of each layer's units that get no gradient in this batch, NaN where unknown; shape [c]."""
    gradient = view.gradient
    if gradient is None:
        return np.full(len(ways.chain), np.nan)
    found = ways.highest_of_vectors(share(gradient.zeros, gradient.n))
    return np.where(gradient.absmax[view.layout.primary] == 0, 1.0, found)


def _agreed(stopped: Float, zeros: Float, examples: Float, pushed: Mask) -> Float:
    """Returns the share of units without gradient, where the share of zero outputs bears it out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        live = (zeros - stopped) / (1 - stopped)
        chance = np.power(np.clip(live, 0, 1), examples)
        borne = (live >= np.where(pushed, 0.0, LIVE)) & (chance <= ACCIDENT)
    found = np.where(borne, stopped, 0.0)
    found[(stopped == 1) & (zeros == 1)] = 1.0
    found[~(np.isfinite(stopped) & np.isfinite(zeros))] = np.nan
    return found


def _behind(ways: Passages, inputs: Rows, outputs: Rows, output_means: Float, output_octaves: Float) -> _Behind:
    inner = ways.layer != ways.chain[ways.at]
    # Where the next layer in the order of use takes more than this one gives, it takes it from elsewhere.
    follows = np.flatnonzero(ways.next_input(inputs.n.astype(np.float64)) <= outputs.n[ways.chain])
    at = np.concatenate([ways.at[inner], follows])
    layers, next_layers = ways.layer[inner], ways.after[follows]
    zeros, silent, means, octaves = (
        np.concatenate([here[layers], following[next_layers]])
        for here, following in (
            (_zeros(outputs), _zeros(inputs)),
            (_silent(outputs), _silent(inputs)),
            (output_means, _means(inputs)),
            (output_octaves, _octaves(inputs)),
        )
    )
    order = np.argsort(np.nan_to_num(zeros, nan=-1.0), kind="stable")
    best = np.full(len(ways.chain), NOWHERE, dtype=np.int64)
    best[at[order]] = order
    known = best != NOWHERE
    scalars = [np.where(known, values[best] if len(values) else np.nan, np.nan) for values in (zeros, silent, means)]
    spread = np.zeros((len(best), BINS))
    spread[known] = octaves[best[known]]
    return _Behind(scalars[0], scalars[1], scalars[2], spread)


def _zeros(rows: Rows) -> Float:
    return share(rows.zeros, rows.n)


def _silent(rows: Rows) -> Float:
    return share(rows.silent_units, rows.units)


def _means(rows: Rows) -> Float:
    mean: Float = rows.sum / np.maximum(rows.n - rows.bad, 1)
    return mean


def _octaves(rows: Rows) -> Float:
    """Returns the share of elements in each octave; the rest of them is 0."""
    counts = rows.histogram.astype(np.float64)
    found: Float = counts / np.maximum(counts.sum(axis=1) + np.maximum(rows.zeros, 0), 1)[:, None]
    return found


def share(part: Integer, whole: Integer) -> Float:
    """Returns part / whole, NaN where one was not taken."""
    return np.where((part >= 0) & (whole > 0), part / np.maximum(whole, 1), np.nan)
