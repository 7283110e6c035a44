"""How far the nonlinearity behind a layer is driven into its bounds at a sample, and what gradient it still passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gradwatch.rules.layout import NOWHERE, Index, Mask
from gradwatch.rules.passages import Passages
from gradwatch.rules.silence import share
from gradwatch.rules.view import Rows, StepView
from gradwatch.statistics import LOWEST_EXPONENT, Float

TANH: Final = 2.65
SIGMOID: Final = 4.6
"""Sizes from which on tanh and the logistic function lie within 1 % of a bound: atanh(0.99), and log(0.99 / 0.01)."""
TOUCHES: Final = 0.98
"""A bounded nonlinearity is driven into its bound when its largest output is at least this."""
BOUND: Final = 1.001
"""Largest output of tanh and the logistic function, with the rounding of the 16-bit formats."""
HALF_OPEN: Final = 0.3
"""Mean output of a logistic function, at least, for its outputs to be told from those of a softmax, whose mean is one
over their number."""


@dataclass(frozen=True, slots=True)
class Saturation:
    """Saturation behind the layers of the chain at one step, NaN where unknown, shape [c] each.

    Attributes:
        share: of the outputs within 1 % of a bound.
        passed: norm of the gradient before the nonlinearity over that behind it.
        size: rms of the values before the nonlinearity.
        gates: whether the nonlinearity is a logistic function rather than tanh.
    """

    share: Float
    passed: Float
    size: Float
    gates: Mask


def saturation(view: StepView, ways: Passages) -> Saturation | None:
    """Measures every layer that another one follows; None where activations are not captured.

    Where the nonlinearity is a layer of its own, the adapter counts its outputs near the bound. Elsewhere the next
    layer's input shows it: bounded by 1 and touching it, while the values before are larger; their histogram tells
    how many lie beyond the size from which on the nonlinearity is within 1 % of its bound.
    """
    if view.activation is None:
        return None
    counted, module = _counted(view.activation, ways)
    guessed, gates = _guessed(view, view.activation, ways)
    known = np.isfinite(counted)
    behind = _behind(view, ways, module, known)
    before = view.activation_gradient
    passed = np.full(len(counted), np.nan)
    if before is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            passed = np.where(behind > 0, before.l2[ways.last] / behind, np.nan)
    sigmoid = np.array(["igmoid" in view.layout.class_of[int(i)] for i in module], dtype=np.bool_)
    return Saturation(
        np.where(known, counted, guessed), passed, view.activation.rms[ways.last], np.where(known, sigmoid, gates)
    )


def _counted(outputs: Rows, ways: Passages) -> tuple[Float, Index]:
    """Returns the largest counted share behind each layer, and the layer that has it."""
    shares = share(outputs.saturated, outputs.n)[ways.layer]
    found, module = np.full(len(ways.chain), np.nan), ways.chain.copy()
    for place, layer, part in zip(ways.at.tolist(), ways.layer.tolist(), shares.tolist(), strict=True):
        if not part <= found[place] and not np.isnan(part):
            found[place], module[place] = part, layer
    return found, module


def _guessed(view: StepView, outputs: Rows, ways: Passages) -> tuple[Float, Mask]:
    """Returns the share that the histogram gives where the next layer's input is bounded by 1, else NaN."""
    inputs = view.activation_input
    if inputs is None:
        nothing = np.full(len(ways.chain), np.nan)
        return nothing, np.isfinite(nothing)
    largest, squares = ways.next_input(inputs.absmax), ways.next_input(inputs.rms) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = ways.next_input(inputs.sum / np.maximum(inputs.n - inputs.bad, 1))
        bounded = (largest <= BOUND) & (largest >= TOUCHES) & (outputs.absmax[ways.last] > TANH)
        # Numbers from 0 to 1 have squares that are no larger than they are.
        gates = bounded & (squares <= mean) & (mean >= HALF_OPEN)
        tanh, sigmoid = _beyond(outputs, ways.last, TANH), _beyond(outputs, ways.last, SIGMOID)
        squashed = bounded & (squares >= tanh * TOUCHES**2)
    # All outputs at 1 fit both; then most values lie beyond the larger size too.
    return np.where(squashed, tanh, np.where(gates, sigmoid, np.nan)), gates & ~squashed


def _beyond(outputs: Rows, layers: Index, size: float) -> Float:
    """Returns the share of elements of this size or more; within an octave they are taken as evenly spread in log."""
    counts = outputs.histogram[layers].astype(np.float64)
    place = float(np.log2(size)) - LOWEST_EXPONENT + 1
    inside = int(place)
    above = counts[:, inside + 1 :].sum(axis=1) + counts[:, inside] * (inside + 1 - place)
    whole = counts.sum(axis=1) + np.maximum(outputs.zeros[layers], 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, above / whole, np.nan)


def _behind(view: StepView, ways: Passages, module: Index, known: Mask) -> Float:
    """Returns the norm of the gradient behind the nonlinearity: at its output, or at the next layer's input."""
    outputs, inputs = view.activation_gradient, view.activation_gradient_input
    nothing = np.full(len(ways.chain), np.nan)
    own = nothing if outputs is None else np.where(known, outputs.l2[module], np.nan)
    following = nothing if inputs is None else np.where(ways.after != NOWHERE, inputs.l2[ways.after], np.nan)
    return np.where(np.isfinite(own), own, following)
