"""Which share of a layer's units is silent at one sample: 0 for every example, with a gradient of exactly 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gradwatch.rules.layout import Index, Mask
from gradwatch.rules.passages import Passages
from gradwatch.rules.view import Rows, StepView
from gradwatch.statistics import Float, Integer

LIVE: Final = 0.15
"""Share of zeros that the units which do answer have at least, because ReLU cuts about half of their values: fewer
zeros than silent units and these together can make show zero gradients of another origin, such as underflow."""
ACCIDENT: Final = 0.05
"""Share of units that may be silent in one batch by chance."""
CENTRED: Final = -0.25
"""Mean over spread of the values before the nonlinearity, above which they lie around 0."""


@dataclass(frozen=True, slots=True)
class Silence:
    """The silent shares at one step, of the layers of the chain, NaN where unknown, shape [c] each.

    Attributes:
        batch: share of units that are silent in this batch.
        lasting: share of units that were so on the last 8 sampled batches, where the adapter counts it.
        push: mean of the values before the nonlinearity over their spread.
    """

    batch: Float
    lasting: Float
    push: Float


def silence(view: StepView, ways: Passages) -> Silence:
    """Measures each layer of the chain that another one follows; where activations are not captured, all is unknown.

    The zeros of a nonlinearity show at what lies between the layer and the next, or at the next one's input; the lost
    gradient shows in the vectors of the layer and of norms behind it, one entry a unit, whose exact zeros say which
    units got none in this batch. Both have to agree. A layer that is silent as a whole has no other gradient either.
    """
    inputs, outputs = view.activation_input, view.activation
    if inputs is None or outputs is None:
        nothing = np.full(len(ways.chain), np.nan)
        return Silence(nothing, nothing, nothing)
    own = outputs.n[ways.chain].astype(np.float64)
    # Where the next layer in the order of use takes more than this one gives, it takes it from elsewhere.
    follows = ways.next_input(inputs.n.astype(np.float64)) <= own
    push = _push(outputs, ways.last)
    batch = _agreed(
        without_gradient(view, ways), _behind(ways, inputs, outputs, "zeros", "n", follows), own / ways.units
    )
    # What lies around 0 and is 0 behind the nonlinearity was rounded or cut.
    batch[(batch == 1) & (push > CENTRED) & (outputs.absmax[ways.last] < 1)] = 0.0
    delta = ways.highest(share(outputs.silent_delta_units, outputs.units))
    lasting = np.minimum(_behind(ways, inputs, outputs, "silent_units", "units", follows), delta)
    return Silence(batch, lasting, push)


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


def _behind(ways: Passages, inputs: Rows, outputs: Rows, part: str, whole: str, follows: Mask) -> Float:
    """Returns the largest share behind each layer, up to the next one's input."""
    taken = ways.next_input(share(getattr(inputs, part), getattr(inputs, whole)))
    inner = ways.highest(share(getattr(outputs, part), getattr(outputs, whole)), inner=True)
    return np.fmax(np.where(follows, taken, np.nan), inner)


def _push(outputs: Rows, last: Index) -> Float:
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = outputs.sum[last] / np.maximum(outputs.n[last] - outputs.bad[last], 1)
        push: Float = mean / np.sqrt(np.maximum(outputs.rms[last] ** 2 - mean**2, 0))
    return push


def share(part: Integer, whole: Integer) -> Float:
    """Returns part / whole, NaN where one was not taken."""
    return np.where((part >= 0) & (whole > 0), part / np.maximum(whole, 1), np.nan)
