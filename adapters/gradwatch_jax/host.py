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
    floats, integers = np.asarray(rows.floats)[:m].astype(np.float64), np.asarray(rows.integers)[:m]
    exponent, nan, inf = integers.T.astype(np.int64)
    scale = np.ldexp(1.0, exponent)
    finite = sizes - nan - inf
    null = 0.0 if finite.all() else np.where(finite > 0, 0.0, np.nan)
    counts = _integers(rows.counts, m) if full else None
    bins = _integers(rows.bins, m) if full else None
    return Statistics(
        sizes,
        np.sqrt(floats[:, 0]) * scale + null,
        floats[:, 1] * scale + null,
        floats[:, 2] + null,
        nan,
        inf,
        None if counts is None else counts[:, 0],
        None if counts is None else counts[:, 1],
        None if bins is None else bins.astype(np.uint32),
    )


def total_norm(parts: Iterable[Statistics]) -> float:
    """Returns the norm of all finite elements together."""
    norms = [part.l2 for part in parts]
    squares = sum(float(l2 @ l2) for l2 in norms)
    if not math.isfinite(squares):  # null where no element is finite
        squares = sum(float(np.nansum(np.square(l2))) for l2 in norms)
    return math.sqrt(squares)


def _integers(column: Any, m: int) -> npt.NDArray[np.int64] | None:
    return None if column is None else np.asarray(column)[:m].astype(np.int64)
