"""What is said of the layer that makes signals grow."""

from __future__ import annotations

from typing import Final

from gradwatch.rules.growth import ABSOLUTE, AT_ONCE, BEFORE, BEFORE_LATER, EACH, LATER, THROUGH, Culprit
from gradwatch.rules.rule import at_start, number

_FEEDS: Final = (BEFORE, BEFORE_LATER)
_CLIP: Final = "Clip the gradient norm, or lower the learning rate, until the scale is mended."


def title(culprit: Culprit | None, name: str | None, *, broken: bool, updates: bool) -> str:
    """Returns the title; ``broken`` when training was lost, ``updates`` when they were too large."""
    effect = "training breaks" if broken else "updates are too large" if updates else "training suffers"
    if culprit is None or name is None:
        return f"Gradients explode and {effect}"
    if culprit.how == EACH:
        return f"Signals and gradients grow from layer to layer, so {effect}"
    who = f"What feeds {name}" if culprit.how in _FEEDS else at_start(name)
    return f"{who} makes signals and gradients explode, so {effect if broken else 'training suffers'}"


def measured(culprit: Culprit, name: str) -> str:
    """Returns what was measured, beside what is usual and the limit."""
    gain, usual = number(culprit.gain), number(culprit.usual)
    called = f"What lies between the layer before and {name}" if culprit.how in _FEEDS else at_start(name)
    if culprit.how == EACH:
        return (
            f"From {name} to the output signals grow {gain}-fold, and on their way back gradients grow {usual}-fold; "
            f"{number(10**THROUGH)}-fold is the limit."
        )
    if culprit.how in (LATER, BEFORE_LATER):
        return f"{called} multiplies signals and gradients by {gain}; before step {culprit.step} it did by {usual}."
    if culprit.how == AT_ONCE:
        return (
            f"At step {culprit.step} weight gradients grew {usual}-fold at once, that of {name} only {gain}-fold: a "
            "layer whose weights grew lags behind; 5 times is the limit."
        )
    typical = "what feeds the others" if culprit.how == BEFORE else "the typical layer"
    return (
        f"{called} multiplies signals and gradients by {gain}, {typical} by {usual}; 5 times the typical and 3 "
        f"times the next layer is the limit, and {number(10**ABSOLUTE)} for any."
    )


def cause(culprit: Culprit | None, name: str | None) -> str:
    """Returns the likely cause."""
    if culprit is None or name is None:
        return "Each step overshoots and the next gradient is larger: the learning rate is probably too high."
    if culprit.how == EACH:
        return "Layers pass on more than they receive: the weights are too large for the activation and the depth."
    if culprit.how in _FEEDS:
        return (
            f"An operation between the layer before and {name} multiplies what passes: a division left out, a sum in "
            "place of a mean, or a scale that was not meant for here."
        )
    return f"The weights of {name} are far too large for its place; every layer above and below receives the excess."


def advice(culprit: Culprit | None, name: str | None) -> tuple[str, ...]:
    """Returns what to do, the likeliest first."""
    if culprit is None or name is None:
        return (
            "Lower the learning rate by a factor of 10, or warm it up.",
            "Clip the gradient norm near its usual value.",
            "Normalise inputs and targets.",
        )
    if culprit.how == EACH:
        return (
            "Initialise for the activation: He (variance 2 / fan-in) for ReLU, Glorot for tanh; recurrent weights "
            "orthogonal.",
            "Add a normalisation layer between the layers, or scale residual branches by 1 / sqrt(2 depth).",
            _CLIP,
        )
    if culprit.how in _FEEDS:
        return (f"Look at the code that makes the input of {name} and mend its scale.", "Normalise it there.", _CLIP)
    return (
        f"Initialise {name} as the other layers are (He: variance 2 / fan-in).",
        f"Normalise before or after {name}.",
        _CLIP,
    )
