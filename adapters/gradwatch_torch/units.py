"""Counts per unit of an activation: which units are silent, how many are saturated."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from gradwatch import native
from gradwatch.statistics import NULL
from gradwatch_torch.device import HostCopy
from gradwatch_torch.form import KINDS
from gradwatch_torch.layout import storage_order

SILENT_BATCHES: Final = 8
"""Sampled batches in a row for which a unit must be zero on every sample to count as silent."""

_BOUNDS: Final[dict[type[nn.Module], tuple[float, float]]] = {
    nn.Sigmoid: (0.0, 1.0),
    nn.Tanh: (-1.0, 1.0),
    nn.Hardtanh: (-1.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
    nn.Softsign: (-1.0, 1.0),
}
_MARGIN: Final = 0.01
"""Within 1 % of a known bound counts as saturated: tanh |y| > 0.99, sigmoid outside [0.01, 0.99]."""

Alive = npt.NDArray[np.bool_]


class AliveUnits(Protocol):
    """Which units of an activation are not zero on some sample; may still be on a device."""

    def ready(self) -> bool:
        """Tells without waiting whether ``array`` would not wait."""
        ...

    def array(self) -> Alive:
        """Returns one bool a unit, shape [units]."""
        ...


@dataclass(slots=True)
class _InMemory:
    units: Alive

    def ready(self) -> bool:
        return True

    def array(self) -> Alive:
        return self.units


@dataclass(frozen=True, slots=True)
class _OnDevice:
    copy: HostCopy

    def ready(self) -> bool:
        return self.copy.ready()

    def array(self) -> Alive:
        units: Alive = self.copy.tensor().numpy()
        return units


@functools.lru_cache(maxsize=256)
def unit_axis(kind: str, ndim: int, *, owns: bool, inherited: int | None = None) -> int | None:
    """Returns the axis of the units: the channel of convolutions and of what follows them, else the last.

    Args:
        kind: class name of the layer, "" for an input.
        ndim: dimensions of the activation.
        owns: whether the layer owns parameters.
        inherited: the axis of the layer's input.
    """
    if ndim < 2:
        return None
    if "Conv" in kind or "BatchNorm" in kind or "InstanceNorm" in kind or "GroupNorm" in kind:
        return 1
    if not owns and inherited is not None and inherited < ndim:
        return inherited
    return ndim - 1 if owns or ndim < 4 else 1


def alive_units(values: Tensor, axis: int, *, plain: bool) -> AliveUnits:
    """Returns which units are not zero on some sample; ``plain`` when C may read the memory of the values."""
    if plain:
        return _InMemory(native.alive(values.data_ptr(), _around(values, axis), KINDS[values.dtype]))
    others = [d for d in range(values.ndim) if d != axis]
    size = values.detach().abs()
    return _OnDevice(HostCopy((size.amax(dim=others) if others else size) != 0))


def _around(values: Tensor, axis: int) -> tuple[int, int, int]:
    """Returns the shape as [outer, units, inner] in storage order."""
    if values.is_contiguous():
        sizes, at = list(values.shape), axis
    else:
        order = storage_order(values)
        sizes, at = [values.shape[d] for d in order], order.index(axis)
    return math.prod(sizes[:at]), sizes[at], math.prod(sizes[at + 1 :])


def saturated_pairs(module: nn.Module, output: Tensor) -> Tensor | None:
    """Counts the elements within 1 % of the nonlinearity's known bound; None where there is no such bound."""
    bounds = _BOUNDS.get(type(module))
    if bounds is None:
        return None
    low, high = bounds
    margin = _MARGIN if low == 0 else _MARGIN * high
    values = output.detach()
    return ((values < low + margin) | (values > high - margin)).sum()


@dataclass
class UnitMemory:
    """Remembers per site and unit for how many sampled batches in a row it was silent. Used on the writer thread."""

    _silent: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)

    def count(self, site: int, alive: Alive | None) -> int:
        """Takes one sampled batch; returns the number of silent units, or ``NULL`` without a unit axis."""
        if alive is None:
            return NULL
        if np.count_nonzero(alive) == alive.size:
            self._silent.pop(site, None)
            return 0
        batches = self._silent.get(site)
        if batches is None or batches.shape != alive.shape:
            batches = self._silent[site] = np.zeros(alive.shape, dtype=np.uint8)
        np.minimum(batches, SILENT_BATCHES - 1, out=batches)
        batches += 1
        batches[alive] = 0
        return int(np.count_nonzero(batches == SILENT_BATCHES))


def join_alive(parts: Sequence[AliveUnits]) -> Alive | None:
    """Joins the passes of one step: a unit is alive if it was in any; None when their shapes differ."""
    if len(parts) == 1:
        return parts[0].array()
    arrays = [part.array() for part in parts]
    if not arrays or any(array.shape != arrays[0].shape for array in arrays):
        return None
    return np.asarray(np.logical_or.reduce(arrays), dtype=np.bool_)
