"""Reduces tensors to the core's statistics on the device they live on.

On the CPU the numbers are on the host at once. On an accelerator every reduction is only enqueued; the rows arrive in
pinned memory behind an event that the writer thread polls, so the training thread never waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from gradwatch.statistics import (
    BINS,
    LOWEST_EXPONENT,
    Float,
    Histogram,
    Integer,
    Statistics,
    concatenate,
    empty,
    measure,
    merge,
)

CHUNK: Final = 2**18
"""Elements read at a time: what one chunk needs stays in the cache, and nothing of a gradient's size is allocated."""

EXACT: Final = 2**16
SAMPLE: Final = (64, 1024)
"""Histograms of tensors above ``EXACT`` elements count 64 of every 1,024; spread blocks keep row-structured tensors
honest where the first elements would not."""

_PLAIN_RANGE: Final = (2.0**-40, 2.0**40)
"""Largest elements for which a sum of squares in float32 keeps 1e-5; outside, elements are read again in float64."""

_COLUMNS: Final = 8


class Measured(Protocol):
    """Statistics of m tensors that may still be on a device."""

    def ready(self) -> bool:
        """Tells without waiting whether ``resolve`` would not wait."""
        ...

    def resolve(self) -> Statistics:
        """Returns the statistics, shape [m]."""
        ...


def reduce(tensors: Sequence[Tensor], *, counts: bool = False, histogram: bool = False) -> Measured:
    """Reduces real tensors of any strides and dtype, in order.

    Args:
        tensors: dense tensors, all on one device or on several.
        counts: also take zeros and subnormals.
        histogram: also take the histogram.
    """
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return OnHost(_reduce_on_host(tensors, counts=counts, histogram=histogram))
    return OnDevice(tensors, counts=counts, histogram=histogram)


@dataclass(frozen=True, slots=True)
class OnHost:
    """Statistics that are on the host already."""

    statistics: Statistics

    def ready(self) -> bool:
        """Always true."""
        return True

    def resolve(self) -> Statistics:
        """Returns the statistics."""
        return self.statistics


def flat(tensor: Tensor) -> Tensor:
    """Returns the elements as one dimension in storage order, copying only where the strides leave gaps."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_contiguous():
        tensor = tensor.permute(_by_stride(tensor))
    return tensor.reshape(-1)


def _by_stride(tensor: Tensor) -> list[int]:
    strides = tensor.stride()
    return sorted(range(tensor.ndim), key=lambda d: -strides[d])


def _reduce_on_host(tensors: Sequence[Tensor], *, counts: bool, histogram: bool) -> Statistics:
    vectors = [flat(tensor) for tensor in tensors]
    m = len(vectors)
    n = np.array([vector.numel() for vector in vectors], dtype=np.int64)
    l2, total, absmax = (np.full(m, np.nan) for _ in range(3))
    nan, inf = np.zeros(m, dtype=np.int64), np.zeros(m, dtype=np.int64)
    l2[:], total[:], absmax[:] = _plain(vectors)
    with np.errstate(invalid="ignore"):
        plain = np.isfinite(l2) & ((absmax == 0) | ((absmax >= _PLAIN_RANGE[0]) & (absmax <= _PLAIN_RANGE[1])))
    for i in np.flatnonzero(~plain | (n == 0)):
        row = _careful(vectors[i])
        l2[i], total[i], absmax[i] = row.l2[0], row.sum[0], row.absmax[0]
        nan[i], inf[i] = row.nan[0], row.inf[0]
    zeros, subnormal = _counts(vectors, n) if counts else (None, None)
    bins = np.stack([_histogram(vector) for vector in vectors]) if histogram and m else None
    return Statistics(n, l2, total, absmax, nan, inf, zeros, subnormal, bins)


def _plain(vectors: Sequence[Tensor]) -> tuple[Float, Float, Float]:
    """Returns l2, sum and absmax of each vector as plain arithmetic gives them."""
    out = np.zeros((3, len(vectors)))
    small = [i for i, v in enumerate(vectors) if 0 < v.numel() <= CHUNK and v.dtype in (torch.float32, torch.float64)]
    if small:
        chosen = [vectors[i] for i in small]
        out[0, small] = torch.stack(torch._foreach_norm(chosen, 2)).tolist()
        out[1, small] = torch.stack([vector.sum() for vector in chosen]).tolist()
        out[2, small] = torch.stack(torch._foreach_norm(chosen, torch.inf)).tolist()
    for i in set(range(len(vectors))).difference(small):
        out[:, i] = _plain_by_chunk(vectors[i])
    return out[0], out[1], out[2]


def _plain_by_chunk(vector: Tensor) -> tuple[float, float, float]:
    squares, total, absmax = 0.0, 0.0, 0.0
    for chunk in vector.split(CHUNK):
        wide = _wide(chunk)
        squares += float(torch.linalg.vector_norm(wide)) ** 2
        total += float(wide.sum())
        largest = float(torch.linalg.vector_norm(wide, torch.inf)) if wide.numel() else 0.0
        absmax = largest if largest > absmax or largest != largest else absmax  # noqa: PLR0124  NaN stays
    return squares**0.5, total, absmax


def _careful(vector: Tensor) -> Statistics:
    """Reads in float64 and tells finite elements from the rest."""
    row = empty(1).lean()
    for chunk in vector.split(CHUNK):
        row = merge(row, measure(chunk.double().numpy(), full=False))
    return row


def _counts(vectors: Sequence[Tensor], n: Integer) -> tuple[Integer, Integer]:
    zeros = n - np.array([int(torch.count_nonzero(vector)) for vector in vectors], dtype=np.int64)
    small = [_count_below_normal(vector) for vector in vectors]
    return zeros, np.array(small, dtype=np.int64) - zeros


def _count_below_normal(vector: Tensor) -> int:
    return sum(int((chunk.abs() < _smallest(chunk)).sum()) for chunk in vector.split(CHUNK))


def _smallest(tensor: Tensor) -> float:
    """Returns the smallest normal number of the tensor's dtype; 0 for dtypes without subnormals."""
    return float(torch.finfo(tensor.dtype).smallest_normal) if tensor.dtype.is_floating_point else 0.0


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _sample(vector: Tensor) -> Tensor:
    if vector.numel() <= EXACT:
        return vector
    taken, of = SAMPLE
    return vector[: vector.numel() // of * of].view(-1, of)[:, :taken].reshape(-1)


def _bins(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each element's bin, and whether it is in any."""
    wide = _wide(values)
    exponent = torch.frexp(wide).exponent
    return (exponent - LOWEST_EXPONENT).clamp_(0, BINS - 1).long(), torch.isfinite(wide) & (wide != 0)


def _histogram(vector: Tensor) -> Histogram:
    bins, counted = _bins(_sample(vector))
    return torch.bincount(bins[counted], minlength=BINS).numpy().astype(np.uint32)


class OnDevice:
    """Statistics that are still being computed on a device."""

    def __init__(self, tensors: Sequence[Tensor], *, counts: bool, histogram: bool) -> None:
        self._counts, self._histogram = counts, histogram
        vectors = [flat(tensor) for tensor in tensors]
        self._parts = [max(1, len(vector.split(CHUNK * 16))) for vector in vectors]
        rows = [_device_row(chunk, counts=counts) for vector in vectors for chunk in vector.split(CHUNK * 16)]
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


def _device_row(chunk: Tensor, *, counts: bool) -> Tensor:
    """Returns n, l2 / 2^e, e, sum / 2^e, nan, inf, zeros, subnormal of a chunk as float64, shape [8], without branches.

    The elements are scaled by the power of two of their absmax first, so that squares neither overflow nor vanish.
    """
    wide = _wide(chunk)
    if not wide.numel():
        return torch.zeros(_COLUMNS + 1, dtype=torch.float64, device=chunk.device)
    nan, inf = torch.isnan(wide), torch.isinf(wide)
    finite = torch.where(nan | inf, torch.zeros_like(wide), wide)
    absmax = torch.linalg.vector_norm(finite, torch.inf)
    exponent = torch.frexp(absmax).exponent
    half = exponent // 2
    scaled = torch.ldexp(torch.ldexp(finite, -half), half - exponent)
    zeros = (wide == 0).sum() if counts else nan.new_zeros((), dtype=torch.long)
    tiny = (chunk.abs() < _smallest(chunk)).sum() - zeros if counts else zeros
    columns = [torch.linalg.vector_norm(scaled), exponent, scaled.sum(), absmax, nan.sum(), inf.sum(), zeros, tiny]
    size = torch.full((), chunk.numel(), dtype=torch.float64, device=chunk.device)
    return torch.stack([size, *(column.double() for column in columns)])


def _device_histogram(vector: Tensor) -> Tensor:
    bins, counted = _bins(_sample(vector))
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
        return torch.zeros((0, _COLUMNS + 1), dtype=torch.float64)
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
