"""What a rule is: a pure fold over the steps of one optimizer, for one kind of trouble."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from gradwatch.findings import Finding
from gradwatch.rules.history import History
from gradwatch.rules.layout import Layout
from gradwatch.rules.view import StepView

Array = TypeVar("Array", bound=npt.NDArray[Any])


class Rule(Protocol):
    """One kind of trouble. Made with the history that has observed each view before the rule does.

    Attributes:
        kind: one of ``findings.KINDS``.
        alarmed: True from the moment on which something was seen that should not wait; never reset.
    """

    kind: str
    alarmed: bool

    def __init__(self, history: History) -> None: ...

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        ...

    def findings(self) -> list[Finding]:
        """Returns what the steps so far show; changes nothing."""
        ...

    def not_applied(self) -> str | None:
        """Returns in one sentence why the kind could not be judged, or None when it could."""
        ...


def in_depth_order(layout: Layout, layers: Iterable[int], culprit: int | None = None) -> tuple[str, ...]:
    """Returns the names of layers, the culprit first and the others from the input to the output."""
    rank = layout.rank()
    ordered = sorted({int(layer) for layer in layers} - {culprit}, key=lambda layer: int(rank[layer]))
    return layout.names(ordered if culprit is None else [culprit, *ordered])


def stretches(order: Iterable[int], chosen: Collection[int]) -> list[list[int]]:
    """Groups the chosen ones of layers in order into runs of neighbours."""
    found: list[list[int]] = [[]]
    for layer in order:
        if layer in chosen:
            found[-1].append(layer)
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]


def padded(array: Array, size: int, fill: float | bool) -> Array:
    """Returns the array with room for sites that were added since."""
    if len(array) >= size:
        return array
    return cast("Array", np.concatenate([array, np.full(size - len(array), fill, dtype=array.dtype)]))


def too_few(signal: str, samples: int, needed: int) -> str | None:
    """Says that a signal has too few samples, or None when it has enough."""
    name = signal.replace("_", " ")
    if samples == 0:
        return f"No {name} was captured."
    if samples < needed:
        return f"Only {samples} of the {needed} samples of the {name} that it needs were captured."
    return None


def without_loss(history: History) -> tuple[str, str]:
    """Returns confidence and reason of a rule that would have liked to see the loss."""
    return ("high", "") if history.loss_logged else ("medium", "no loss was logged")


def called(layer: str) -> str:
    """Returns a layer's name as a sentence needs it: numbers and the root by what they are."""
    return "the top level" if not layer else f"layer {layer}" if layer.isdigit() else layer


def at_start(name: str) -> str:
    """Returns what ``called`` gave as it stands at the start of a sentence; paths are code and keep their case."""
    return name[0].upper() + name[1:] if name.startswith(("layer ", "the ")) else name


def listing(names: Sequence[str], most: int = 3) -> str:
    """Joins names for a sentence and counts the ones it leaves out."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def count(number: int, noun: str) -> str:
    """Returns "1 layer", "2 layers"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def number(value: float) -> str:
    """Returns a number as people read it: 3.2e-07 as 3.2e-7, 0.015 as 0.015, 1468 as 1,470, infinity as inf."""
    if value == 0 or not np.isfinite(value) or 1e-3 <= abs(value) < 1e4:
        return f"{float(f'{value:.3g}'):,.10g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"
