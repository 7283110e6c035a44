"""Trends along depth that a few odd layers cannot move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradwatch.statistics import Float, median


@dataclass(frozen=True, slots=True)
class Trend:
    """A robust straight line: the Theil-Sen slope per position, and Kendall's tau of value against position."""

    slope: float
    tau: float


def trend(values: Float) -> Trend:
    """Fits values at positions 0, 1, ..., nulls left out; shape [c].

    The slope is the median of all pairwise slopes (Theil 1950, Sen 1968), tau the mean sign of the pairwise
    differences (Kendall 1938, tau-a). Both are 0 with fewer than two values.
    """
    at = np.flatnonzero(np.isfinite(values))
    if len(at) < 2:
        return Trend(0.0, 0.0)
    first, second = np.triu_indices(len(at), k=1)
    rise = values[at[second]] - values[at[first]]
    slopes = rise / (at[second] - at[first])
    return Trend(median(slopes), float(np.mean(np.sign(rise))))


@dataclass(frozen=True, slots=True)
class Jump:
    """The largest of several steps: its index, its size, and the size of the next largest."""

    index: int
    size: float
    next: float


def largest_jump(steps: Float) -> Jump | None:
    """Finds the largest step, nulls left out, or None when there is none; shape [c]."""
    at = np.flatnonzero(np.isfinite(steps))
    if len(at) == 0:
        return None
    order = at[np.argsort(steps[at])]
    runner_up = float(steps[order[-2]]) if len(order) > 1 else 0.0
    return Jump(int(order[-1]), float(steps[order[-1]]), runner_up)
