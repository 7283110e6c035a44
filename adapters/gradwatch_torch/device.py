"""Statistics of tensors on an accelerator.

Every reduction is only enqueued; the rows arrive in pinned memory behind an event that the writer thread polls, so the
training thread never waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from gradwatch.statistics import BINS, LOWEST_EXPONENT, Float, Integer, Statistics, concatenate, merge
from gradwatch_torch.layout import flat, sample, smallest_normal, wide

CHUNK: Final = 2**22
"""Elements reduced at a time, which bounds the memory of intermediate results."""

_COLUMNS: Final = 9


class OnDevice:
    """Statistics that are still being computed on a device."""

    def __init__(self, tensors: Sequence[Tensor], *, counts: bool, histogram: bool) -> None:
        self._counts, self._histogram = counts, histogram
        vectors = [flat(tensor) for tensor in tensors]
        self._parts = [max(1, len(vector.split(CHUNK))) for vector in vectors]
        rows = [_device_row(chunk, counts=counts) for vector in vectors for chunk in vector.split(CHUNK)]
        self._rows = _to_host(rows)
        self._bins = _to_host([_device_histogram(vector) for vector in vectors]) if histogram else None
        self._event = _event(vectors)

    def ready(self) -> bool:
        """Polls the event."""
        return self._event is None or bool(self._event.query())

    def resolve(self) -> Statistics:
        """Joins each tensor's chunks in float64."""
        if self._event is not None:
            self._event.synchronize()
        rows, start, joined = self._rows.numpy(), 0, []
        for parts in self._parts:
            row = _statistics_of(rows[start], counts=self._counts)
            for chunk in rows[start + 1 : start + parts]:
                row = merge(row, _statistics_of(chunk, counts=self._counts))
            joined.append(row)
            start += parts
        statistics = concatenate(joined)
        if self._bins is None:
            return statistics
        bins = self._bins.numpy().astype(np.uint32)
        return replace(statistics, histogram=bins)


def _device_row(part: Tensor, *, counts: bool) -> Tensor:
    """Returns n, l2 / 2^e, e, sum / 2^e, nan, inf, zeros, subnormal of a chunk as float64, shape [8], without branches.

    The elements are scaled by the power of two of their absmax first, so that squares neither overflow nor vanish.
    """
    chunk = wide(part)
    if not chunk.numel():
        return torch.zeros(_COLUMNS, dtype=torch.float64, device=chunk.device)
    nan, inf = torch.isnan(chunk), torch.isinf(chunk)
    finite = torch.where(nan | inf, torch.zeros_like(chunk), chunk)
    absmax = torch.linalg.vector_norm(finite, torch.inf)
    exponent = torch.frexp(absmax).exponent
    half = exponent // 2
    scaled = torch.ldexp(torch.ldexp(finite, -half), half - exponent)
    zeros = (part == 0).sum() if counts else nan.new_zeros((), dtype=torch.long)
    tiny = (part.abs() < smallest_normal(part)).sum() - zeros if counts else zeros
    l2, total = torch.linalg.vector_norm(scaled, dtype=torch.float64), scaled.sum(dtype=torch.float64)
    columns = [l2, exponent, total, absmax, nan.sum(), inf.sum(), zeros, tiny]
    size = torch.full((), chunk.numel(), dtype=torch.float64, device=chunk.device)
    return torch.stack([size, *(column.double() for column in columns)])


def _device_histogram(vector: Tensor) -> Tensor:
    values = wide(sample(vector))
    bins = (torch.frexp(values).exponent - LOWEST_EXPONENT).clamp_(0, BINS - 1).long()
    counted = torch.isfinite(values) & (values != 0)
    counts = torch.zeros(BINS, dtype=torch.float64, device=vector.device)
    return counts.scatter_add_(0, bins, counted.double())


def _statistics_of(row: Float, *, counts: bool) -> Statistics:
    n, l2, exponent, total, absmax, nan, inf, zeros, subnormal = row.tolist()
    scale = 2.0**exponent
    none = n - nan - inf <= 0

    def value(x: float) -> Float:
        return np.array([np.nan if none else x])

    def count(x: float) -> Integer:
        return np.array([x], dtype=np.int64)

    return Statistics(
        count(n),
        value(l2 * scale),
        value(total * scale),
        value(absmax),
        count(nan),
        count(inf),
        count(zeros) if counts else None,
        count(subnormal) if counts else None,
    )


def _to_host(rows: Sequence[Tensor]) -> Tensor:
    if not rows:
        return torch.zeros((0, _COLUMNS), dtype=torch.float64)
    stacked = torch.stack([row.to(rows[0].device, non_blocking=True) for row in rows])
    if stacked.device.type != "cuda":
        return stacked.cpu()
    host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
    return host.copy_(stacked, non_blocking=True)


def _event(vectors: Sequence[Tensor]) -> torch.cuda.Event | None:
    if not any(vector.device.type == "cuda" for vector in vectors):
        return None
    event = torch.cuda.Event()
    event.record()
    return event


class HostCopy:
    """A small tensor on its way to the host."""

    def __init__(self, tensor: Tensor) -> None:
        tensor = tensor.detach()
        self._event = _event([tensor])
        if self._event is None:
            self._copy = tensor.cpu().clone()
        else:
            self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
            self._event.record()

    def ready(self) -> bool:
        """Polls the event."""
        return self._event is None or bool(self._event.query())

    def tensor(self) -> Tensor:
        """Returns the copy; waits for the device if it must, so it is called on the writer thread."""
        if self._event is not None:
            self._event.synchronize()
        return self._copy

    def scalar(self) -> float:
        """Returns the only element."""
        return float(self.tensor())
