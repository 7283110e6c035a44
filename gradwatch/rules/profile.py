"""How a signal changes from layer to layer along the chain of layers that own a weight matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradwatch.rules.cut import Cut, find
from gradwatch.rules.history import History
from gradwatch.rules.layout import Index
from gradwatch.rules.view import Rows, StepView, decades
from gradwatch.statistics import Float, median


@dataclass(frozen=True, slots=True)
class Profile:
    """The size of the gradient along depth at one step.

    Attributes:
        step: of the sample.
        layers: layer indices, input first, shape [c].
        size: log10 of the norm of the loss's gradient at each layer's output, or of the rms of the weight gradient
            where activation gradients are not captured; null where not seen, shape [c].
        lost_inside: decades lost between a layer's output and its input, null where unknown, shape [c].
        ratio: latest update ratio of each layer's largest matrix, null where unknown, shape [c].
        measured: what ``size`` is, for sentences.
        cut: the place that shrinks signals and gradients alike, or None.
    """

    step: int
    layers: Index
    size: Float
    lost_inside: Float
    ratio: Float
    measured: str
    cut: Cut | None = None

    def bottom(self) -> float:
        """Returns the largest size in the quarter of layers next to the input."""
        return float(np.max(self._seen()[: self._quarter()]))

    def top(self) -> float:
        """Returns the median size in the quarter of layers next to the output; above a cut, the largest."""
        if self.cut is not None:
            return float(np.nanmax(self.size[self.cut.place :]))
        return median(self._seen()[-self._quarter() :])

    def seen(self) -> int:
        """Counts the layers whose gradient is known."""
        return int(np.isfinite(self.size).sum())

    def _seen(self) -> Float:
        return self.size[np.isfinite(self.size)]

    def _quarter(self) -> int:
        return max(1, self.seen() // 4)


def gradient_profile(view: StepView, history: History, ratio: Float | None) -> Profile | None:
    """Returns the profile of a step, or None when the step holds no sample of it.

    The *norm* of the activation gradient, not its rms, is compared over layers: with weights of variance
    2 / fan_in it is kept through layers of any width, and through strides and pooling (He et al. 2015, section 2.2).
    Weight gradients stand in only for runs without activation gradients of most layers, because in a net with the same
    gain in every layer they are equal at all depths.
    """
    layout = view.layout
    deltas = view.activation_gradient if history.sees_inside else None
    chain = layout.chain
    if deltas is None and (history.sees_inside or view.gradient is None):
        return None
    if len(chain) == 0:
        return None
    at = np.full(len(chain), np.nan) if ratio is None else _at(ratio, layout.primary)
    if deltas is not None:
        size = decades(deltas.l2[chain])
        inside = view.activation_gradient_input
        lost = np.full(len(chain), np.nan) if inside is None else size - decades(inside.l2[chain])
        return Profile(
            view.step, chain, size, lost, at, "gradient at the layers' outputs", find(gains(view), ways(view), size)
        )
    assert view.gradient is not None
    size = decades(view.gradient.rms[layout.primary])
    return Profile(view.step, chain, size, np.full(len(chain), np.nan), at, "weight gradient")


def gains(view: StepView) -> Float | None:
    """Returns log10 of each chain layer's gain, null where unknown, shape [2, c]; None without activations.

    Going forward it is rms(output) / rms(input), going back norm(gradient at the input) / norm(gradient at the
    output). A wrong scale of the layer's weight moves both alike; pooling or a normalisation beside it moves only one.
    """
    if view.activation is None:
        return None
    chain = view.layout.chain
    forward = _ratio(view.activation, view.activation_input, chain, "rms", 1)
    backward = _ratio(view.activation_gradient, view.activation_gradient_input, chain, "l2", -1)
    return np.stack([forward, backward])


def ways(view: StepView) -> Float | None:
    """Returns log10 of the gain of what lies before each chain layer, null where unknown, shape [2, c].

    That is from the outputs of the layer before to this one's inputs, forward and back as in ``gains``. Known where a
    layer's inputs were captured; elsewhere it is in the layer's own gain. None without activations.
    """
    outputs, inputs = view.activation, view.activation_input
    deltas, behind = view.activation_gradient, view.activation_gradient_input
    if outputs is None or inputs is None:
        return None
    chain = view.layout.chain
    found = np.full((2, len(chain)), np.nan)
    found[0, 1:] = decades(inputs.rms[chain[1:]]) - decades(outputs.rms[chain[:-1]])
    if deltas is not None and behind is not None:
        found[1, 1:] = decades(deltas.l2[chain[:-1]]) - decades(behind.l2[chain[1:]])
    return found


def _ratio(outputs: Rows | None, inputs: Rows | None, chain: Index, statistic: str, sign: int) -> Float:
    """Returns sign * log10(output / input); where inputs were not captured, the layer before stands in for them."""
    if outputs is None or len(chain) == 0:
        return np.full(len(chain), np.nan)
    out = decades(getattr(outputs, statistic)[chain])
    before = np.concatenate([[np.nan], out[:-1]])
    if inputs is not None:
        own = decades(getattr(inputs, statistic)[chain])
        before = np.where(np.isfinite(own), own, before)
    change: Float = sign * (out - before)
    return change


def _at(column: Float, index: Index) -> Float:
    inside = index < len(column)
    return np.where(inside, column[np.where(inside, index, 0)] if len(column) else np.nan, np.nan)
