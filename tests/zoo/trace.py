"""The plain record of a run: every gradient, output and update, read as arrays and reduced by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Row(NamedTuple):
    """One array in numbers; over the finite elements, except ``nonfinite``, which is a count."""

    n: int
    l2: float
    mean: float
    mean_abs: float
    absmax: float
    std: float
    zeros: float
    tiny: float
    nonfinite: int

    @property
    def rms(self) -> float:
        """Root mean square."""
        return self.l2 / max(self.n, 1) ** 0.5


class UnitRow(NamedTuple):
    """The outputs of a nonlinearity: which units were not 0 in the batch, and shares of the elements.

    ``saturated`` is the share within 1 % of the bound of tanh or sigmoid, ``low`` that of outputs at or below 0.
    """

    active: Array
    saturated: float
    low: float


def row(values: Array) -> Row:
    """Reduces an array; ``tiny`` is the share below 2^-24, the least number of fp16, zeros included."""
    flat = np.asarray(values, np.float64).ravel()
    good = flat[np.isfinite(flat)]
    if good.size == 0:
        return Row(flat.size, np.nan, np.nan, np.nan, np.nan, np.nan, 0.0, 0.0, flat.size)
    size = np.abs(good)
    return Row(
        n=good.size,
        l2=float(np.sqrt(np.sum(good * good))),
        mean=float(good.mean()),
        mean_abs=float(size.mean()),
        absmax=float(size.max()),
        std=float(good.std()),
        zeros=float(np.mean(good == 0)),
        tiny=float(np.mean(size < 2.0**-24)),
        nonfinite=flat.size - good.size,
    )


def unit_row(values: Array, activation: str, axis: int = -1) -> UnitRow:
    """Reduces the outputs of a nonlinearity, whose units lie along ``axis``."""
    moved = np.moveaxis(np.asarray(values, np.float64), axis, -1).reshape(-1, values.shape[axis])
    shares = {
        "tanh": np.mean(np.abs(moved) > 0.99),
        "sigmoid": np.mean((moved < 0.01) | (moved > 0.99)),
    }
    return UnitRow(np.any(moved != 0, axis=0), float(shares.get(activation, 0.0)), float(np.mean(moved <= 0)))


@dataclass
class Trace:
    """What happened at each step; tables have a list of rows a name, in the order of the steps.

    Attributes:
        chain: the layers that the signal passes, in forward order.
        losses: the loss of the task, without constant factors.
        accuracies: share of right answers, or NaN where there are none.
        gradients: by parameter; None where there was no gradient. Unscaled, before clipping.
        weights: by parameter, before the step.
        updates: by parameter: the norm of what the step changed.
        outputs: by layer, before the nonlinearity.
        pre: by layer, the share of outputs beyond 5 in size.
        units: by layer, after the nonlinearity.
        deltas: by layer: the gradient of the loss by the outputs.
        cosines: between the gradients of this and the last step, over all parameters.
        clips: the factor by which clipping shrank the gradient.
        travel: by parameter: norm of the whole change over the norm at the start.
        trained: parameters that are meant to be trained.
    """

    chain: tuple[str, ...]
    activation: str = ""
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    gradients: dict[str, list[Row | None]] = field(default_factory=lambda: defaultdict(list))
    weights: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    updates: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    outputs: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    pre: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    units: dict[str, list[UnitRow]] = field(default_factory=lambda: defaultdict(list))
    deltas: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    cosines: list[float] = field(default_factory=list)
    clips: list[float] = field(default_factory=list)
    travel: dict[str, float] = field(default_factory=dict)
    _start: dict[str, Array] = field(default_factory=dict)
    _last: Array | None = None

    def add_gradients(self, gradients: Mapping[str, Array | None], *, direction: bool = True) -> None:
        """Adds the gradients of a step; those of one step may come in parts, of which one tells the direction."""
        for name, values in gradients.items():
            self.gradients[name].append(None if values is None else row(values))
        if direction:
            parts = [np.zeros(1) if v is None else np.asarray(v, np.float64).ravel() for v in gradients.values()]
            flat = np.concatenate(parts)
            self.cosines.append(_cosine(flat, self._last))
            self._last = flat

    def add_weights(self, before: Mapping[str, Array], after: Mapping[str, Array]) -> None:
        """Adds the weights before and after a step."""
        for name, old in before.items():
            self._start.setdefault(name, old)
            self.weights[name].append(row(old))
            change = np.asarray(after[name], np.float64) - np.asarray(old, np.float64)
            self.updates[name].append(row(change))
            whole = np.asarray(after[name], np.float64) - np.asarray(self._start[name], np.float64)
            self.travel[name] = _ratio(whole, self._start[name])

    def add_output(self, layer: str, values: Array) -> None:
        """Adds the outputs of a layer."""
        self.outputs[layer].append(row(values))
        self.pre[layer].append(float(np.mean(np.abs(np.nan_to_num(np.asarray(values, np.float64))) > 5)))

    def add_units(self, layer: str, values: Array, axis: int = -1) -> None:
        """Adds the outputs of the nonlinearity behind a layer."""
        self.units[layer].append(unit_row(values, self.activation, axis))

    @property
    def steps(self) -> int:
        """Steps recorded."""
        return len(self.losses)

    def of_layer(self, layer: str) -> list[str]:
        """Returns the parameters of a layer, those of modules inside it included."""
        return [name for name in self.weights if name.startswith(f"{layer}.")]


def layer_of(parameter: str) -> str:
    """Returns the layer that owns a parameter."""
    return parameter.rpartition(".")[0]


def _cosine(one: Array, other: Array | None) -> float:
    if other is None or one.shape != other.shape:
        return 0.0
    with np.errstate(all="ignore"):
        found = float(one @ other / (np.sqrt(one @ one) * np.sqrt(other @ other)))
    return found if np.isfinite(found) else 0.0


def _ratio(change: Array, start: Array) -> float:
    size = float(np.sqrt(np.mean(np.square(np.asarray(start, np.float64)))))
    moved = float(np.sqrt(np.mean(np.square(change))))
    return moved / max(size, 1e-3) if np.isfinite(moved) else float("inf")
