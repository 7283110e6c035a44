"""Statistics of many tensors on any device in few launches: copies in rows of one width, reduced together.

``torch._foreach_norm`` alone would read less, but takes NaN and infinities in; leaving them out by a second reading on
demand would have to wait for the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from gradwatch.statistics import BINS, LOWEST_EXPONENT, Integer
from gradwatch_torch.arrival import send
from gradwatch_torch.layout import smallest_normal, wide

WIDTH: Final = 2**10
CHUNK: Final = 2**21
"""Elements reduced at a time, which bounds the memory of intermediate results to 64 MB."""

Piece = tuple[int, Tensor]


class Packed:
    """Enqueued reductions of tensors of one dtype on one device.

    Attributes:
        owner: index of the tensor of each part, shape [r].
        padding: zeros added to each part, which its count of zeros includes, shape [r].
        results: the columns of ``rows.Rows`` in float64, shape [r, 8], and bins, shape [r, 64], if asked for.
    """

    def __init__(self, vectors: Sequence[Tensor], *, counts: bool, histogram: bool) -> None:
        batches = list(_batches(vectors))
        lengths = np.array([len(vector) for batch in batches for _, vector in batch], dtype=np.int64)
        self.owner = np.array([owner for batch in batches for owner, _ in batch], dtype=np.int64)
        self.padding: Integer = -lengths % WIDTH
        limit = smallest_normal(vectors[0])
        reduced = [_reduce([vector for _, vector in batch], limit, counts, histogram) for batch in batches]
        self.results = [torch.cat(columns) for columns in zip(*reduced, strict=True)]


def _batches(vectors: Sequence[Tensor]) -> Iterator[list[Piece]]:
    """Groups pieces of tensors into batches that fill at most ``CHUNK`` elements."""
    batch: list[Piece] = []
    filled = 0
    for owner, vector in enumerate(vectors):
        for piece in vector.split(CHUNK) if len(vector) else ():
            room = _rows(piece) * WIDTH
            if batch and filled + room > CHUNK:
                yield batch
                batch, filled = [], 0
            batch.append((owner, piece))
            filled += room
    if batch:
        yield batch


def _rows(piece: Tensor) -> int:
    return -(-len(piece) // WIDTH)


def _reduce(pieces: Sequence[Tensor], limit: float, counts: bool, histogram: bool) -> list[Tensor]:
    matrix = _pack(pieces)
    owner = send(torch.from_numpy(np.repeat(np.arange(len(pieces)), list(map(_rows, pieces)))), matrix.device)
    columns = _columns(matrix, owner, len(pieces), limit if counts else None)
    return [columns, _histogram(matrix, owner, len(pieces))] if histogram else [columns]


def _pack(pieces: Sequence[Tensor]) -> Tensor:
    """Copies the pieces, each into rows of its own, filled up with zeros; returns shape [rows, WIDTH]."""
    rows = sum(map(_rows, pieces))
    dtype = wide(pieces[0][:0]).dtype
    matrix = torch.zeros(rows * WIDTH, dtype=dtype, device=pieces[0].device)
    sizes = [size for piece in pieces for size in (len(piece), _rows(piece) * WIDTH - len(piece))]
    torch._foreach_copy_(list(matrix.split_with_sizes(sizes)[::2]), list(pieces), non_blocking=True)
    return matrix.view(rows, WIDTH)


def _columns(matrix: Tensor, owner: Tensor, parts: int, limit: float | None) -> Tensor:
    """Returns the columns of ``rows.Rows``, shape [parts, 8].

    Squares of float32 fit float64. Those of float64 do not, so its elements are scaled by the power of two of their
    part's absmax first.
    """
    nan, inf = torch.isnan(matrix), torch.isinf(matrix)
    finite = matrix.masked_fill(nan | inf, 0.0)
    largest = torch.linalg.vector_norm(finite, torch.inf, dim=1)
    absmax = largest.new_zeros(parts).scatter_reduce_(0, owner, largest, "amax")
    exponent = torch.zeros(parts, dtype=torch.float64, device=matrix.device)
    if matrix.dtype == torch.float64:
        exponent = torch.frexp(absmax).exponent.double()
        finite = _scaled(finite, -exponent[owner][:, None])
    squares = torch.linalg.vector_norm(finite, dim=1, dtype=torch.float64).square()
    added = [squares, finite.sum(1, dtype=torch.float64), nan.sum(1), inf.sum(1), *_counts(matrix, limit)]
    sums = torch.zeros(parts, len(added), dtype=torch.float64, device=matrix.device)
    sums.index_add_(0, owner, torch.stack([column.double() for column in added], dim=1))
    squares, total, *counted = sums.unbind(1)
    return torch.stack([squares, exponent, total, absmax.double(), *counted], dim=1)


def _scaled(x: Tensor, exponent: Tensor) -> Tensor:
    """Returns x * 2^exponent in two steps, since 2^1074 is no number."""
    half = torch.floor(exponent / 2)
    return x * torch.exp2(half) * torch.exp2(exponent - half)


def _counts(matrix: Tensor, limit: float | None) -> list[Tensor]:
    """Returns the counts of zeros and of subnormals in each row; zeros that fill a row up count as zeros."""
    if limit is None:
        return [matrix.new_zeros(len(matrix))] * 2
    zeros = (matrix == 0).sum(1)
    return [zeros, (matrix.abs() < limit).sum(1) - zeros]


def _histogram(matrix: Tensor, owner: Tensor, parts: int) -> Tensor:
    """Returns the bins, shape [parts, 64]; counted in each row first, where few elements share an address."""
    bins = torch.frexp(matrix).exponent.sub_(LOWEST_EXPONENT).clamp_(0, BINS - 1).long()
    counted = (torch.isfinite(matrix) & (matrix != 0)).int()
    by_row = torch.zeros(len(matrix), BINS, dtype=torch.int32, device=matrix.device).scatter_add_(1, bins, counted)
    return torch.zeros(parts, BINS, dtype=torch.int32, device=matrix.device).index_add_(0, owner, by_row)
