"""Partial results of a device, and how they join to the statistics of whole tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.statistics import BINS, Float, Histogram, Integer, Statistics

COLUMNS: Final = 8
"""sum x^2 / 4^e, the exponent e, sum x / 2^e, absmax, and the counts of NaN, infinities, zeros and subnormals."""

_SQUARES, _EXPONENT, _SUM, _ABSMAX, _NAN, _INF, ZEROS, _SUBNORMAL = range(COLUMNS)


@dataclass(frozen=True, slots=True)
class Rows:
    """Results of r parts of tensors.

    Attributes:
        owner: index of the tensor that a part belongs to, shape [r].
        values: the columns, in float64, shape [r, COLUMNS].
        bins: counts of the histogram, shape [r, 64], or None.
    """

    owner: Integer
    values: Float
    bins: npt.NDArray[np.int32] | None


def join(parts: Sequence[Rows], n: Integer, *, counts: bool, histogram: bool) -> Statistics:
    """Joins the parts of m tensors in float64.

    Args:
        parts: rows in any order; tensors without elements have none.
        n: elements of each tensor, shape [m].
        counts: whether zeros and subnormals were taken.
        histogram: whether bins were counted.
    """
    m = len(n)
    owner = np.concatenate([part.owner for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    values = np.concatenate([part.values for part in parts]) if parts else np.zeros((0, COLUMNS))
    scale, exponent = _common_scale(owner, values, m)
    nan, inf = (_count(owner, values[:, column], m) for column in (_NAN, _INF))
    null = n - nan - inf <= 0
    squares = np.bincount(owner, values[:, _SQUARES] * scale**2, m)
    total = np.bincount(owner, values[:, _SUM] * scale, m)
    absmax = np.zeros(m)
    np.maximum.at(absmax, owner, values[:, _ABSMAX])
    return Statistics(
        n,
        np.where(null, np.nan, np.ldexp(np.sqrt(squares), exponent)),
        np.where(null, np.nan, np.ldexp(total, exponent)),
        np.where(null, np.nan, absmax),
        nan,
        inf,
        _count(owner, values[:, ZEROS], m) if counts else None,
        _count(owner, values[:, _SUBNORMAL], m) if counts else None,
        _join_bins(parts, m) if histogram else None,
    )


def _common_scale(owner: Integer, values: Float, m: int) -> tuple[Float, Integer]:
    """Returns the factor that brings each part to the scale of its tensor, shape [r], and the tensors' exponents, [m].

    Parts that hold only zeros have no say in the exponent.
    """
    exponent = np.where(values[:, _ABSMAX] > 0, values[:, _EXPONENT], -np.inf)
    largest = np.full(m, -np.inf)
    np.maximum.at(largest, owner, exponent)
    largest = np.where(np.isinf(largest), 0.0, largest)
    return np.exp2(exponent - largest[owner]), largest.astype(np.int64)


def _count(owner: Integer, column: Float, m: int) -> Integer:
    return np.bincount(owner, column, m).astype(np.int64)


def _join_bins(parts: Sequence[Rows], m: int) -> Histogram:
    joined = np.zeros((m, BINS), dtype=np.uint32)
    for part in parts:
        assert part.bins is not None
        np.add.at(joined, part.owner, part.bins.astype(np.uint32))
    return joined
