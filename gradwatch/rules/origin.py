"""Where the first non-finite number came from, read off one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gradwatch.rules.classes import suspect
from gradwatch.rules.layout import Mask
from gradwatch.rules.rule import at_start, called, in_depth_order, listing, number
from gradwatch.rules.view import Rows, StepView

_ADVICE: Final = (
    "Guard operations that fail at 0 (log, sqrt, division, norm, power): clamp the argument or add a small epsilon "
    "inside them, also where the derivative fails.",
    "Check the batch of this step for missing values and for extreme inputs.",
    "If sizes grow before the step, lower the learning rate or normalise the layer's input.",
)
_OVERFLOW: Final = 1e18


@dataclass(frozen=True, slots=True)
class Origin:
    """The place of the first non-finite number and what to say about it; the fields are those of a finding."""

    title: str
    layer: str | None
    layers: tuple[str, ...]
    evidence: tuple[str, ...]
    cause: str
    advice: tuple[str, ...] = _ADVICE
    confidence: str = "high"
    confidence_reason: str = ""


def locate(view: StepView) -> Origin:
    """Finds the origin at the first spoilt step.

    In this order: the first module in forward order with a non-finite output; with all outputs finite, the loss
    itself; the module whose backward pass turned a finite gradient into a non-finite one; without activations, the
    place between the parameter gradients that are finite and those that are not.
    """
    if view.activation is not None and view.activation.any_bad:
        return _forward(view, view.activation)
    if view.activation is not None:
        return _after_finite_outputs(view, view.activation)
    return _between_gradients(view)


def _forward(view: StepView, outputs: Rows) -> Origin:
    layout, rank = view.layout, view.layout.rank()
    bad = np.flatnonzero(outputs.bad)
    first = int(bad[np.argmin(rank[bad])])
    name = called(layout.layers[first])
    inputs = view.activation_input
    at = f"At step {view.step} the output of {name} is the first in forward order that is not finite"
    share = f"{outputs.bad[first] / max(outputs.n[first], 1):.1%} of its elements"
    if inputs is not None and inputs.bad[first] > 0:
        before = _before(view, first, outputs)
        if before is None:
            return _data(view, in_depth_order(layout, bad, first), f"{at}, and so is its input.")
        previous = called(layout.layers[before])
        return Origin(
            title=f"Non-finite numbers arise between {previous} and {name}",
            layer=layout.layers[before],
            layers=in_depth_order(layout, [before, *bad], before),
            evidence=(f"{at} ({share}); its input is not finite, though the output of {previous} is.", *_facts(view)),
            cause=f"An operation between {previous} and {name}, probably one that fails at 0 or overflows.",
        )
    received = "" if inputs is None or inputs.n[first] <= 0 else f"; its input is finite, rms {_rms(inputs, first)}"
    grown = inputs is not None and inputs.n[first] > 0 and float(inputs.absmax[first]) > _OVERFLOW
    return Origin(
        title=f"{at_start(name)} puts out numbers that are not finite",
        layer=layout.layers[first],
        layers=in_depth_order(layout, bad, first),
        evidence=(f"{at} ({share}){received}.", *_facts(view)),
        cause=f"The input of {name} had grown so large that the result overflows."
        if grown
        else f"An operation inside {name} ({layout.class_of[first]}) makes non-finite numbers, probably one that "
        "fails at 0 (log, division) or overflows.",
    )


def _data(view: StepView, layers: tuple[str, ...], at: str) -> Origin:
    return Origin(
        title=f"The input of {called(layers[0])} is not finite",
        layer=layers[0],
        layers=layers,
        evidence=(at, *_facts(view)),
        cause="No layer runs before it: the data of this step holds numbers that are not finite.",
        advice=("Look at the batch of this step for missing values.", *_ADVICE[:1]),
    )


def _after_finite_outputs(view: StepView, outputs: Rows) -> Origin:
    deltas = view.activation_gradient
    order = [int(i) for i in view.layout.depth if outputs.n[i] > 0]
    top = order[-1]
    spoilt_top = deltas is not None and deltas.any_bad and _last_bad(order, deltas) in (None, top)
    if view.loss is not None and not np.isfinite(view.loss):
        return _loss(
            view, top, f"The loss became {view.loss} from finite outputs of {called(view.layout.layers[top])}."
        )
    if spoilt_top:
        last = called(view.layout.layers[top])
        return _loss(view, top, f"The derivative of the loss became non-finite from finite outputs of {last}.")
    if deltas is not None and deltas.any_bad:
        return _backward(view, order, deltas)
    return _between_gradients(view)


def _loss(view: StepView, top: int, cause: str) -> Origin:
    value = "not finite" if view.loss is None or np.isfinite(view.loss) else str(view.loss)
    return Origin(
        title=f"The loss itself becomes {value}",
        layer=None,
        layers=(),
        evidence=(f"At step {view.step} the outputs of all layers are finite.", *_facts(view)),
        cause=cause,
        advice=(
            f"Guard the loss's log, division or root against 0, or use a form that works on the unbounded outputs of "
            f"{called(view.layout.layers[top])}.",
            "Check the targets of this step for missing values and for values outside the allowed range.",
        ),
    )


def _backward(view: StepView, order: list[int], deltas: Rows) -> Origin:
    """Names the module behind the non-finite gradient that is nearest to the loss."""
    nearest = _last_bad(order, deltas)
    place = order.index(nearest) if nearest is not None else 0
    culprit = order[min(place + 1, len(order) - 1)]
    inner = view.activation_gradient_input
    known = inner is not None and inner.n[culprit] > 0
    clean = inner is not None and known and inner.bad[culprit] == 0
    # A plain layer does not fail: then the operation between the two does, which belongs to the lower one's block.
    if nearest is not None and (clean or (not known and not suspect(view.layout.class_of[culprit]))):
        return _behind(view, nearest, culprit, deltas)
    name = called(view.layout.layers[culprit])
    return Origin(
        title=f"The gradient becomes non-finite on its way back through {name}",
        layer=view.layout.layers[culprit],
        layers=in_depth_order(view.layout, [*np.flatnonzero(deltas.bad), culprit], culprit),
        evidence=(
            f"At step {view.step} all outputs are finite; the gradient is finite at the output of {name} and not "
            "finite before it.",
            *_facts(view),
        ),
        cause=f"The derivative of an operation in {name} fails, as that of a root, a norm or a quotient does at 0.",
    )


def _behind(view: StepView, lower: int, upper: int, deltas: Rows) -> Origin:
    """Names the lower of the two modules between which the gradient stops being finite."""
    name, following = called(view.layout.layers[lower]), called(view.layout.layers[upper])
    between = f"between {name} and {following}" if upper != lower else f"behind {name}"
    return Origin(
        title=f"The gradient becomes non-finite on its way back to {name}",
        layer=view.layout.layers[lower],
        layers=in_depth_order(view.layout, np.flatnonzero(deltas.bad), lower),
        evidence=(
            f"At step {view.step} all outputs are finite; the gradient is not finite at the output of {name}, the last "
            "layer in forward order where it is not.",
            *_facts(view),
        ),
        cause=f"The derivative of an operation {between} fails, as that of a root, a norm or a quotient does at 0.",
    )


def _between_gradients(view: StepView) -> Origin:
    """Brackets the origin by the parameters, for a step without activations."""
    layout, rows = view.layout, view.gradient or view.update or view.weight
    unknown = "the activations were not captured at this step"
    if rows is None or not rows.any_bad:
        value = view.loss if view.loss is not None else float("nan")
        return Origin(
            title=f"The loss becomes {value}",
            layer=None,
            layers=(),
            evidence=(f"At step {view.step} the loss is {value}, while every gradient is finite.",),
            cause=f"The loss became {value} although the gradients are finite: it is lost in the loss itself.",
            confidence="medium",
            confidence_reason=unknown,
        )
    ranked = [int(i) for i in layout.depth]
    bad = _layers(view, (rows.bad > 0) | ((rows.n > 0) & np.isnan(rows.l2)))
    good = _layers(view, rows.present & (rows.bad == 0) & (rows.absmax > 0))
    places = {layer: place for place, layer in enumerate(ranked)}
    nearest = max(bad, key=lambda layer: places[layer])
    above = [layer for layer in good if places[layer] > places[nearest]]
    if not above:
        return _everywhere(view, bad, unknown)
    following = min(above, key=lambda layer: places[layer])
    between = ranked[places[nearest] + 1 : places[following]]
    culprit = next((i for i in between if suspect(layout.class_of[i])), None)
    if culprit is None:
        culprit = following if suspect(layout.class_of[following]) else nearest
    name = called(layout.layers[culprit])
    lower, upper = called(layout.layers[nearest]), called(layout.layers[following])
    return Origin(
        title=f"Gradients become non-finite at {name}",
        layer=layout.layers[culprit],
        layers=in_depth_order(layout, [*bad, culprit], culprit),
        evidence=(
            f"At step {view.step} the gradients from {lower} down are not finite, those from {upper} up are.",
            *_facts(view),
        ),
        cause=f"The derivative of an operation between {lower} and {upper} fails, "
        "as that of a root, a norm or a quotient does at 0.",
        confidence="medium",
        confidence_reason=unknown,
    )


def _everywhere(view: StepView, bad: set[int], unknown: str) -> Origin:
    layout = view.layout
    suspects = [i for i in layout.depth.tolist() if suspect(layout.class_of[i])]
    culprit = suspects[0] if len(suspects) == 1 else None
    name = None if culprit is None else called(layout.layers[culprit])
    what = "loss" if view.loss is not None and not np.isfinite(view.loss) else "gradient"
    return Origin(
        title=f"Numbers stop being finite, probably in {name}" if name else f"The {what} stops being finite",
        layer=None if culprit is None else layout.layers[culprit],
        layers=in_depth_order(layout, bad if culprit is None else [*bad, culprit], culprit),
        evidence=(
            f"At step {view.step} the gradients of all layers down from the output are not finite.",
            *_facts(view),
        ),
        cause=f"The forward pass or the loss became non-finite; {name} is the only layer of an unusual class."
        if name
        else "The forward pass or the loss became non-finite; which layer came first cannot be told from gradients.",
        advice=("Record the same steps with every=1 to see which layer's output is the first.", *_ADVICE),
        confidence="low",
        confidence_reason=unknown,
    )


def _facts(view: StepView) -> tuple[str, ...]:
    facts: list[str] = []
    if view.loss is not None:
        facts.append(f"The loss is {'NaN' if np.isnan(view.loss) else number(view.loss)}.")
    if view.gradient is not None:
        rows = view.gradient
        bad = np.flatnonzero(rows.bad)
        if len(bad):
            names = listing([view.layout.parameters[int(i)] for i in bad])
            facts.append(f"{len(bad)} of {int(rows.present.sum())} gradients hold non-finite elements: {names}.")
    return tuple(facts)


def _before(view: StepView, layer: int, outputs: Rows) -> int | None:
    order = [int(i) for i in view.layout.depth if outputs.n[i] > 0]
    place = order.index(layer)
    return order[place - 1] if place else None


def _last_bad(order: list[int], rows: Rows) -> int | None:
    return next((i for i in reversed(order) if rows.bad[i] > 0), None)


def _layers(view: StepView, parameters: Mask) -> set[int]:
    return {int(i) for i in view.layout.layer_of[parameters]}


def _rms(rows: Rows, at: int) -> str:
    return number(float(rows.rms[at]))
