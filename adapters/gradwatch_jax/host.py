"""From rows that have arrived on the host to the core's statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.statistics import Statistics
from gradwatch_jax.kernel import Rows


def statistics(rows: Rows, sizes: npt.NDArray[np.int64], *, full: bool) -> Statistics:
    """Returns the columns of m sites in float64.

    Args:
        rows: arrays of shape [m, ...], or longer, on the host or on their way there.
        sizes: elements of each array, shape [m].
        full: whether counts and histogram were taken at this step.
    """
    m = len(sizes)
    l2, total, largest = np.asarray(rows.floats)[:m].T.astype(np.float64, order="C")
    exponent, nan, inf = np.asarray(rows.integers)[:m].T.astype(np.int64, order="C")
    scale = np.ldexp(1.0, exponent)
    np.sqrt(l2, out=l2)
    l2 *= scale
    total *= scale
    finite = sizes - nan - inf
    if np.count_nonzero(finite) < m:
        null = np.where(finite > 0, 0.0, np.nan)
        l2, total, largest = l2 + null, total + null, largest + null
    counts = _first(rows.counts, m, np.int64) if full else None
    bins = _first(rows.bins, m, np.uint32) if full else None
    zeros, subnormal = (None, None) if counts is None else (counts[:, 0], counts[:, 1])
    return Statistics(sizes, l2, total, largest, nan, inf, zeros, subnormal, bins)


def total_norm(parts: Iterable[Statistics]) -> float:
    """Returns the norm of all finite elements together."""
    norms = [part.l2 for part in parts]
    squares = sum(float(l2 @ l2) for l2 in norms)
    if not math.isfinite(squares):  # null where no element is finite
        squares = sum(float(np.nansum(np.square(l2))) for l2 in norms)
    return math.sqrt(squares)


def _first(column: Any, m: int, dtype: type[np.integer[Any]]) -> npt.NDArray[Any] | None:
    return None if column is None else np.asarray(column)[:m].astype(dtype)
