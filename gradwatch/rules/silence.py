"""Which share of a layer's units is silent at one sample: 0 for every example, with a gradient of exactly 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gradwatch.rules.layout import Index
from gradwatch.rules.passages import Passages
from gradwatch.rules.view import Rows, StepView
from gradwatch.statistics import LOWEST_EXPONENT, Float, Integer

LIVE: Final = 0.3
"""Share of zeros that the units which do answer have at least, because ReLU cuts about half of their values. With
fewer, the zero gradients come from elsewhere, such as underflow; or the signal is so weak that each unit is always on
or always off, as its bias has it, which is no death."""
ACCIDENT: Final = 0.05
"""Share of units that may be silent in one batch by chance."""
CUT: Final = 0.25
"""Share of the size of the values before a nonlinearity that lies above 0, from which on something else than ReLU made
all of them 0: a rounding or a comparison."""
KEPT: Final = 0.7
"""Share of what lies above 0 that has to arrive: where less does, units are chosen, as by top-k, and do not die."""


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
    """What stands behind each layer, at the place with the most zeros: their share, units silent for long, the mean."""

    zeros: Float
    silent: Float
    mean: Float


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
    behind = _behind(ways, inputs, outputs)
    mean = _means(outputs)[ways.last]
    size = np.clip(_sizes(outputs, ways.last), np.abs(mean), outputs.rms[ways.last])
    above = (size + mean) / 2
    examples = outputs.n[ways.chain] / ways.units
    batch = _agreed(without_gradient(view, ways), behind.zeros, examples)
    lasting = np.minimum(behind.silent, ways.highest(share(outputs.silent_delta_units, outputs.units)))
    with np.errstate(divide="ignore", invalid="ignore"):
        alive = (behind.zeros - lasting) / (1 - lasting)
        other = np.where(batch == 1, above > CUT * size, behind.mean < KEPT * above)
    batch[other] = 0.0
    lasting[(lasting < 1) & (other | (alive < LIVE))] = 0.0
    return Silence(batch, lasting, ways.units, mean, size)


def without_gradient(view: StepView, ways: Passages) -> Float:
    """Returns the share of each layer's units that get no gradient in this batch, NaN where unknown; shape [c]."""
    gradient = view.gradient
    if gradient is None:
        return np.full(len(ways.chain), np.nan)
    found = ways.highest_of_vectors(share(gradient.zeros, gradient.n))
    return np.where(gradient.absmax[view.layout.primary] == 0, 1.0, found)


def _agreed(stopped: Float, zeros: Float, examples: Float) -> Float:
    """Returns the share of units without gradient, where the share of zero outputs bears it out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        live = (zeros - stopped) / (1 - stopped)
        chance = np.power(np.clip(live, 0, 1), examples)
        borne = (live >= LIVE) & (chance <= ACCIDENT)
    found = np.where(borne, stopped, 0.0)
    found[(stopped == 1) & (zeros == 1)] = 1.0
    found[~(np.isfinite(stopped) & np.isfinite(zeros))] = np.nan
    return found


def _behind(ways: Passages, inputs: Rows, outputs: Rows) -> _Behind:
    inner = ways.layer != ways.chain[ways.at]
    # Where the next layer in the order of use takes more than this one gives, it takes it from elsewhere.
    follows = np.flatnonzero(ways.next_input(inputs.n.astype(np.float64)) <= outputs.n[ways.chain])
    at = np.concatenate([ways.at[inner], follows])
    parts = [(outputs, ways.layer[inner]), (inputs, ways.after[follows])]
    zeros, silent, means = (
        np.concatenate([column(rows)[layers] for rows, layers in parts]) for column in (_zeros, _silent, _means)
    )
    order = np.argsort(np.nan_to_num(zeros, nan=-1.0), kind="stable")
    found = np.full((3, len(ways.chain)), np.nan)
    for row, values in zip(found, (zeros, silent, means), strict=True):
        row[at[order]] = values[order]
    return _Behind(*found)


def _zeros(rows: Rows) -> Float:
    return share(rows.zeros, rows.n)


def _silent(rows: Rows) -> Float:
    return share(rows.silent_units, rows.units)


def _means(rows: Rows) -> Float:
    mean: Float = rows.sum / np.maximum(rows.n - rows.bad, 1)
    return mean


def _sizes(rows: Rows, layers: Index) -> Float:
    """Returns the mean size of elements from their counts by octave, within which they are spread evenly in log."""
    counts = rows.histogram[layers].astype(np.float64)
    octaves = np.exp2(np.arange(counts.shape[1]) + LOWEST_EXPONENT - 1.0) / np.log(2)
    mean: Float = counts @ octaves / np.maximum(counts.sum(axis=1) + np.maximum(rows.zeros[layers], 0), 1)
    return mean


def share(part: Integer, whole: Integer) -> Float:
    """Returns part / whole, NaN where one was not taken."""
    return np.where((part >= 0) & (whole > 0), part / np.maximum(whole, 1), np.nan)
