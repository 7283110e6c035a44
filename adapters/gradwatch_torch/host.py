"""Statistics of tensors in the host's memory.

Small tensors are read in batches with numpy, because a call of torch for each costs more than the reading. Large ones
are read a chunk at a time, so that what one chunk needs stays in the cache and nothing of a gradient's size is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from gradwatch.statistics import BINS, LOWEST_EXPONENT, Float, Histogram, Integer, Statistics, empty, measure, merge
from gradwatch_torch.layout import flat, sample, smallest_normal, wide

CHUNK: Final = 2**18
SMALL: Final = 2**12
BATCH: Final = 2**14

_ROW: Final = 2**11
"""Elements that torch's CPU norm adds up in one float32 accumulator: 5e-7 of error; 2^20 in one give 4e-4."""

_PLAIN_RANGE: Final = (2.0**-40, 2.0**40)
"""Largest elements for which a sum of squares in float32 keeps 1e-5; outside, elements are read again in float64."""


_BITS: Final = {torch.float32: (torch.int32, 23, 2**8), torch.float64: (torch.int64, 52, 2**11)}
"""An integer type of the same width, the bits of the fraction, and the number of exponents."""


@dataclass(slots=True)
class _Columns:
    """Columns of m tensors while they are filled."""

    n: Integer
    l2: Float
    sum: Float
    absmax: Float
    zeros: Integer
    subnormal: Integer
    histogram: Histogram


def reduce_on_host(tensors: Sequence[Tensor], *, counts: bool, histogram: bool) -> Statistics:
    """Reduces tensors in order; see ``measure.reduce``."""
    vectors = [flat(tensor) for tensor in tensors]
    columns = _empty_columns(np.array([vector.numel() for vector in vectors], dtype=np.int64))
    for batch in _batches(columns.n):
        if len(batch) == 1 and columns.n[batch[0]] > SMALL:
            _fill_large(columns, batch[0], vectors[batch[0]], counts=counts, histogram=histogram)
        else:
            _fill_small(columns, batch, [vectors[i] for i in batch], counts=counts, histogram=histogram)
    nan, inf = _repair(columns, vectors)
    return Statistics(
        columns.n,
        columns.l2,
        columns.sum,
        columns.absmax,
        nan,
        inf,
        columns.zeros if counts else None,
        columns.subnormal if counts else None,
        columns.histogram if histogram else None,
    )


def _empty_columns(n: Integer) -> _Columns:
    def values() -> Float:
        return np.zeros(len(n))

    return _Columns(
        n, values(), values(), values(), np.zeros_like(n), np.zeros_like(n), np.zeros((len(n), BINS), dtype=np.uint32)
    )


def _batches(n: Integer) -> Iterator[list[int]]:
    """Groups small tensors into batches of at most ``BATCH`` elements; large ones stand alone, empty ones nowhere."""
    batch: list[int] = []
    filled = 0
    for i, size in enumerate(n.tolist()):
        if size > SMALL:
            yield [i]
        elif size:
            if filled + size > BATCH:
                yield batch
                batch, filled = [], 0
            batch.append(i)
            filled += size
    if batch:
        yield batch


def _fill_small(columns: _Columns, at: list[int], vectors: list[Tensor], *, counts: bool, histogram: bool) -> None:
    joined = torch.cat([wide(vector) for vector in vectors]).numpy()
    values = joined.astype(np.float64)
    sizes = columns.n[at]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    size = np.abs(values)
    with np.errstate(invalid="ignore", over="ignore"):
        columns.sum[at] = np.add.reduceat(values, starts)
        columns.l2[at] = np.sqrt(np.add.reduceat(values * values, starts))
        columns.absmax[at] = np.maximum.reduceat(size, starts)
    if counts:
        limits = np.repeat([smallest_normal(vector) for vector in vectors], sizes)
        columns.zeros[at] = np.add.reduceat((size == 0).astype(np.int64), starts)
        columns.subnormal[at] = np.add.reduceat(((size > 0) & (size < limits)).astype(np.int64), starts)
    if histogram:
        counted = np.isfinite(size) & (size > 0)
        bins = np.clip(np.frexp(size[counted])[1] - LOWEST_EXPONENT, 0, BINS - 1)
        row = np.repeat(np.arange(len(at)), sizes)[counted]
        columns.histogram[at] = np.bincount(row * BINS + bins, minlength=len(at) * BINS).reshape(-1, BINS)


def _fill_large(columns: _Columns, at: int, vector: Tensor, *, counts: bool, histogram: bool) -> None:
    squares = total = absmax = 0.0
    nonzero = below = 0
    for part in vector.split(CHUNK):
        chunk = wide(part)
        squares += _sum_of_squares(chunk)
        total += float(chunk.sum())
        low, high = torch.aminmax(chunk)
        absmax = max(absmax, -float(low), float(high))
        if counts:
            nonzero += int(torch.count_nonzero(part))
            below += int((part.abs() < smallest_normal(part)).sum())
    columns.l2[at], columns.sum[at], columns.absmax[at] = squares**0.5, total, absmax
    if not _PLAIN_RANGE[0] <= absmax <= _PLAIN_RANGE[1] and (absmax or squares):
        columns.l2[at] = np.nan  # _repair reads it again
    if counts:
        columns.zeros[at] = vector.numel() - nonzero
        columns.subnormal[at] = below - columns.zeros[at]
    if histogram:
        columns.histogram[at] = _histogram(sample(vector))


def _sum_of_squares(chunk: Tensor) -> float:
    if chunk.dtype == torch.float64:
        return float(torch.linalg.vector_norm(chunk)) ** 2
    rows = chunk.numel() // _ROW
    norms = torch.linalg.vector_norm(chunk[: rows * _ROW].view(rows, _ROW), dim=1).double()
    tail = float(torch.linalg.vector_norm(chunk[rows * _ROW :])) ** 2 if chunk.numel() % _ROW else 0.0
    return float(torch.dot(norms, norms)) + tail


def _histogram(values: Tensor) -> Histogram:
    """Counts octaves by the exponent bits, a fifth of what frexp costs."""
    chunk = wide(values)
    integer, fraction_bits, exponents = _BITS[chunk.dtype]
    exponent = chunk.view(integer).bitwise_right_shift(fraction_bits).bitwise_and_(exponents - 1)
    counts = torch.bincount(exponent, minlength=exponents).numpy()
    counts[0] -= chunk.numel() - int(torch.count_nonzero(chunk))
    # A biased exponent e holds 2^(e - bias) <= |x| < 2^(e - bias + 1); the last one is NaN and infinity.
    octave = np.arange(exponents - 1) - (exponents // 2 - 1) + 1 - LOWEST_EXPONENT
    bins = np.bincount(np.clip(octave, 0, BINS - 1), weights=counts[:-1], minlength=BINS)
    return bins.astype(np.uint32)


def _repair(columns: _Columns, vectors: Sequence[Tensor]) -> tuple[Integer, Integer]:
    """Reads again in float64 where plain arithmetic was spoiled, telling finite elements from the rest."""
    nan, inf = np.zeros_like(columns.n), np.zeros_like(columns.n)
    for i in np.flatnonzero(~np.isfinite(columns.l2) | ~np.isfinite(columns.sum) | (columns.n == 0)).tolist():
        row = empty(1).lean()
        for chunk in vectors[i].split(CHUNK):
            row = merge(row, measure(chunk.double().numpy(), full=False))
        columns.l2[i], columns.sum[i], columns.absmax[i] = row.l2[0], row.sum[0], row.absmax[0]
        nan[i], inf[i] = row.nan[0], row.inf[0]
    return nan, inf
