"""Counts per unit of an activation: which units are silent, how many are saturated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradwatch.statistics import NULL

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


def unit_axis(module: nn.Module, output: Tensor, inherited: int | None) -> int | None:
    """Returns the axis of the units: the channel of convolutions and of what follows them, else the last."""
    if output.ndim < 2:
        return None
    kind = type(module).__name__
    if "Conv" in kind or "BatchNorm" in kind or "InstanceNorm" in kind or "GroupNorm" in kind:
        return 1
    owns = next(module.parameters(recurse=False), None) is not None
    if not owns and inherited is not None and inherited < output.ndim:
        return inherited
    return output.ndim - 1 if owns or output.ndim < 4 else 1


def alive_units(values: Tensor, axis: int) -> Tensor:
    """Returns which units are not zero on some sample, bool, shape [units]."""
    others = [d for d in range(values.ndim) if d != axis]
    size = values.detach().abs()
    return (size.amax(dim=others) if others else size) != 0


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
        before = self._silent.get(site)
        if before is None or before.shape != alive.shape:
            before = np.zeros(alive.shape, dtype=np.uint8)
        self._silent[site] = np.where(alive, 0, np.minimum(before, SILENT_BATCHES - 1) + 1).astype(np.uint8)
        return int((self._silent[site] >= SILENT_BATCHES).sum())


def join_alive(parts: list[Tensor]) -> Alive | None:
    """Joins the passes of one step: a unit is alive if it was in any; None when their shapes differ."""
    if not parts or any(part.shape != parts[0].shape for part in parts):
        return None
    joined = parts[0]
    for part in parts[1:]:
        joined = torch.logical_or(joined, part)
    return np.asarray(joined.numpy(), dtype=np.bool_)
