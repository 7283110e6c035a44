"""Statistics of tensors on an accelerator.

Every reduction is only enqueued, and its results are on their way to the host; the training thread never waits for the
device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gradwatch.statistics import Integer, Statistics, empty
from gradwatch_torch import fused
from gradwatch_torch.arrival import Arrival, is_capturing
from gradwatch_torch.fused import Fused
from gradwatch_torch.layout import flat
from gradwatch_torch.packed import Packed
from gradwatch_torch.rows import ZEROS, Rows, join


class OnDevice:
    """Statistics that are still being computed on a device.

    While a CUDA graph is being captured nothing is computed, so the statistics are null then. Replays of a graph run no
    Python and are not seen: capture the passes, and leave the optimizer's step outside.
    """

    def __init__(self, tensors: Sequence[Tensor], *, counts: bool, histogram: bool) -> None:
        vectors = [tensor if fused.is_plain(tensor) else flat(tensor) for tensor in tensors]
        self._n = np.array([vector.numel() for vector in vectors], dtype=np.int64)
        self._counts, self._histogram = counts, histogram
        self._null = is_capturing()
        self._groups = [] if self._null else [_Group(vectors, index, counts, histogram) for index in _groups(vectors)]
        self._statistics: Statistics | None = None

    def ready(self) -> bool:
        """Tells without waiting whether every result has arrived."""
        return all(group.arrival.ready() for group in self._groups)

    def resolve(self) -> Statistics:
        """Joins the parts of each tensor in float64."""
        if self._statistics is None:
            self._statistics = self._join()
        return self._statistics

    def _join(self) -> Statistics:
        if self._null:
            return _only(empty(len(self._n)), counts=self._counts, histogram=self._histogram)
        parts = [group.rows() for group in self._groups]
        return join(parts, self._n, counts=self._counts, histogram=self._histogram)


class _Group:
    """The reduction of those tensors of a call that one launch, or one series of launches, can take."""

    def __init__(self, vectors: Sequence[Tensor], index: Sequence[int], counts: bool, histogram: bool) -> None:
        chosen = [vectors[i] for i in index]
        self._padding: Integer | int = 0
        reduction: Fused | Packed
        if fused.takes(chosen[0]):
            reduction = Fused(chosen, counts=counts, histogram=histogram)
            reduction.launch()
        else:
            reduction = Packed([flat(tensor) for tensor in chosen], counts=counts, histogram=histogram)
            self._padding = reduction.padding if counts else 0
        self._owner = np.array(index, dtype=np.int64)[reduction.owner]
        self.arrival = Arrival(reduction.results)

    def rows(self) -> Rows:
        values, *bins = [tensor.numpy() for tensor in self.arrival.tensors()]
        values[:, ZEROS] -= self._padding
        return Rows(self._owner, values, bins[0] if bins else None)


def _groups(vectors: Sequence[Tensor]) -> list[list[int]]:
    """Returns the indices of the tensors with elements, grouped by how and where they are reduced."""
    groups: dict[tuple[torch.device, torch.dtype | None], list[int]] = {}
    for i, vector in enumerate(vectors):
        if vector.numel():
            groups.setdefault((vector.device, None if fused.takes(vector) else vector.dtype), []).append(i)
    return list(groups.values())


def _only(statistics: Statistics, *, counts: bool, histogram: bool) -> Statistics:
    statistics = statistics if histogram else replace(statistics, histogram=None)
    return statistics if counts else replace(statistics, zeros=None, subnormal=None)


class HostCopy:
    """A small tensor on its way to the host; unknown when a CUDA graph was being captured."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.detach().clone() if tensor.is_cpu else None
        if self._copy is None:
            self._arrival = Arrival([_unknown(tensor) if is_capturing() else tensor])

    def ready(self) -> bool:
        """Tells without waiting whether the copy is there."""
        return self._copy is not None or self._arrival.ready()

    def tensor(self) -> Tensor:
        """Returns the copy; waits for the device if it must, so it is called on the writer thread."""
        return self._arrival.tensors()[0] if self._copy is None else self._copy

    def scalar(self) -> float:
        """Returns the only element."""
        return float(self.tensor())


def scalar_reader(tensor: Tensor) -> Callable[[], float]:
    """Returns what reads a tensor of one element later, as it is now; on the host that needs no copy."""
    if tensor.is_cpu:
        return functools.partial(float, tensor.item())
    return HostCopy(tensor).scalar


def _unknown(tensor: Tensor) -> Tensor:
    """Returns NaN for numbers, 0 for counts, and true for what tells a unit alive."""
    value = float("nan") if tensor.is_floating_point() else tensor.dtype == torch.bool
    return torch.full(tensor.shape, value, dtype=tensor.dtype)
