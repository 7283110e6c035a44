"""The plain record of a run: every gradient, output and update, read as arrays and reduced by hand."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Row(NamedTuple):
    """One array in numbers over its finite elements; ``zeros`` is a share, ``nonfinite`` a count."""

    n: int
    l2: float
    mean: float
    mean_abs: float
    absmax: float
    std: float
    zeros: float
    nonfinite: int

    @property
    def rms(self) -> float:
        """Root mean square."""
        return float(self.l2 / math.sqrt(max(self.n, 1)))


class UnitRow(NamedTuple):
    """The outputs of a nonlinearity: which units were not 0 in the batch, and shares of the elements.

    ``saturated`` is the share within 1 % of the bound of tanh or sigmoid, ``low`` that of outputs at or below 0.
    """

    active: Array
    saturated: float
    low: float


def row(values: Array) -> Row:
    """Reduces an array."""
    flat = np.asarray(values, np.float64).ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        squares, n = float(flat @ flat), flat.size
    if not math.isfinite(squares):
        good = flat[np.isfinite(flat)]
        if good.size == 0:
            return Row(n, np.nan, np.nan, np.nan, np.nan, np.nan, 0.0, n)
        return row(good)._replace(nonfinite=n - good.size) if good.size < n else _huge(flat)
    size = np.abs(flat)
    mean = float(flat.sum()) / n
    return Row(
        n=n,
        l2=math.sqrt(squares),
        mean=mean,
        mean_abs=float(size.sum()) / n,
        absmax=float(size.max()),
        std=math.sqrt(max(squares / n - mean * mean, 0.0)),
        zeros=1.0 - np.count_nonzero(flat) / n,
        nonfinite=0,
    )


def _huge(flat: Array) -> Row:
    """Reduces finite numbers whose squares overflow."""
    scale = float(np.abs(flat).max())
    small = row(flat / scale)
    scaled = {name: getattr(small, name) * scale for name in ("l2", "mean", "mean_abs", "absmax", "std")}
    return small._replace(**scaled)


def unit_row(values: Array, activation: str, axis: int = -1) -> UnitRow:
    """Reduces the outputs of a nonlinearity, whose units lie along ``axis``."""
    moved = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
    saturated = 0.0
    if activation == "tanh":
        saturated = np.count_nonzero(np.abs(moved) > 0.99) / moved.size
    elif activation == "sigmoid":
        saturated = np.count_nonzero(np.abs(moved - 0.5) > 0.49) / moved.size
    return UnitRow(np.any(moved != 0, axis=0), saturated, np.count_nonzero(moved <= 0) / moved.size)


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
        self.pre[layer].append(np.count_nonzero(np.abs(values) > 5) / values.size)

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
