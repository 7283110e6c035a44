"""Every stored statistic: its name, formula, unit, and how it merges. The only definition.

A *column* holds one statistic of m sites. Columns over finite elements (``l2``, ``sum``, ``absmax``) are float64 and
use NaN for null; integer columns use ``NULL`` (-1). Statistics merge by addition or maximum, so shards, ranks,
micro-batches and time all merge the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Integer = npt.NDArray[np.int64]
Histogram = npt.NDArray[np.uint32]

NULL: Final = -1
"""The null of an integer column: the statistic was not taken."""

BINS: Final = 64
LOWEST_EXPONENT: Final = -40
HIGHEST_EXPONENT: Final = 22


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of m sites at one step.

    Attributes:
        n: elements reduced, shape [m]; also the denominator of shares.
        l2: sqrt(sum x^2) over the finite elements, shape [m], right to 1e-5 for elements from 1e-37 to 1e37.
        sum: sum x over the finite elements, shape [m].
        absmax: max |x| over the finite elements, shape [m]; a site is exactly zero when this is 0.
        nan, inf: counts of non-finite elements, shape [m].
        zeros: count of x == 0, shape [m], or None when not taken at this step.
        subnormal: count of 0 < |x| < the smallest normal number of the array's own dtype, or None.
        histogram: counts of |x| in ``BINS`` bins, shape [m, 64], or None. Bin 0 holds 0 < |x| < 2^-40, bin i holds
            2^(i-41) <= |x| < 2^(i-40) for i = 1..62, bin 63 the rest; zeros and non-finite elements are in no bin.
            It may hold fewer than n elements where an adapter sampled.
    """

    n: Integer
    l2: Float
    sum: Float
    absmax: Float
    nan: Integer
    inf: Integer
    zeros: Integer | None = None
    subnormal: Integer | None = None
    histogram: Histogram | None = None

    def __len__(self) -> int:
        return len(self.n)

    def finite(self) -> Integer:
        """Counts the finite elements of each site, shape [m]."""
        return self.n - self.nan - self.inf

    def mean(self) -> Float:
        """Returns sum / finite elements, shape [m]; null over no finite element."""
        return over_elements(self.sum, self.finite())

    def rms(self) -> Float:
        """Returns l2 / sqrt(finite elements), shape [m]; null over no finite element."""
        return root_mean_square(self.l2, self.finite())

    def lean(self) -> Statistics:
        """Drops what is taken only on the schedule's full steps: zeros, subnormals and the histogram."""
        return replace(self, zeros=None, subnormal=None, histogram=None)

    def take(self, index: npt.NDArray[Any]) -> Statistics:
        """Selects sites by index or mask."""
        return Statistics(**{f.name: _take(getattr(self, f.name), index) for f in fields(self)})


@dataclass(frozen=True, slots=True)
class UnitCounts:
    """Counts kept per unit of an activation site, shape [m] each; ``NULL`` where a site has no unit axis.

    Attributes:
        units: units of the layer (last axis of linear layers, channels of convolutions).
        silent_units: units whose output was 0 on every sample of the last 8 sampled batches.
        silent_delta_units: the same of the activation gradient.
        saturated: (unit, sample) pairs within 1 % of the nonlinearity's known bound.
    """

    units: Integer
    silent_units: Integer
    silent_delta_units: Integer
    saturated: Integer


def over_elements(numerator: Float | Integer, elements: Integer) -> Float:
    """Divides by a count of elements, null where that count is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(elements > 0, numerator / np.maximum(elements, 1), np.nan)


def root_mean_square(l2: Float, elements: Integer) -> Float:
    """Divides norms by the root of a count of elements, null where that count is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(elements > 0, l2 / np.sqrt(np.maximum(elements, 1)), np.nan)


def measure(array: npt.NDArray[Any], *, full: bool = True, smallest_normal: float | None = None) -> Statistics:
    """Reduces one array to the statistics of one site (m = 1), in float64.

    Args:
        array: any shape and real dtype; empty arrays give null ``l2``, ``sum`` and ``absmax``.
        full: also take zeros, subnormals and the histogram.
        smallest_normal: limit below which a non-zero element is subnormal; by default that of the array's dtype.
    """
    if smallest_normal is None:
        smallest_normal = float(np.finfo(array.dtype).smallest_normal) if array.dtype.kind == "f" else 0.0
    values = np.asarray(array, dtype=np.float64).ravel()
    nan, inf = np.isnan(values), np.isinf(values)
    finite = values[~(nan | inf)]
    size = np.abs(finite)
    absmax = float(size.max()) if size.size else np.nan
    scale = absmax if size.size and absmax > 0 else 1.0
    l2 = scale * float(np.sqrt(np.sum(np.square(finite / scale)))) if size.size else np.nan
    return Statistics(
        n=_one(values.size),
        l2=np.array([l2]),
        sum=np.array([float(finite.sum()) if finite.size else np.nan]),
        absmax=np.array([absmax]),
        nan=_one(np.count_nonzero(nan)),
        inf=_one(np.count_nonzero(inf)),
        zeros=_one(np.count_nonzero(size == 0)) if full else None,
        subnormal=_one(np.count_nonzero((size > 0) & (size < smallest_normal))) if full else None,
        histogram=histogram(size)[None] if full else None,
    )


def median(values: Sequence[float] | Float) -> float:
    """Returns the median, null of none or where one is null: numpy's own takes ten times as long for a few values."""
    ordered = np.sort(values).tolist()
    if not ordered or math.isnan(ordered[-1]):
        return math.nan
    half = len(ordered) // 2
    return float(ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def medians(rows: Float) -> Float:
    """Returns the medians along the first axis, null where one is null; shape [r, ...] with r >= 1."""
    ordered = np.sort(rows, axis=0)
    half = len(ordered) // 2
    middle = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    return np.where(np.isnan(ordered[-1]), np.nan, middle)


def histogram(values: npt.NDArray[Any]) -> Histogram:
    """Counts |x| by octave into 64 bins, shape [64]; zeros and non-finite elements are left out."""
    size = np.abs(np.asarray(values, dtype=np.float64)).ravel()
    size = size[np.isfinite(size) & (size > 0)]
    bins = np.clip(np.frexp(size)[1] - LOWEST_EXPONENT, 0, BINS - 1)
    return np.bincount(bins, minlength=BINS).astype(np.uint32)


def bin_edges() -> Float:
    """Returns the lower edges of the bins, shape [64]: 0, 2^-40, 2^-39, ..., 2^22."""
    octaves = np.exp2(np.arange(LOWEST_EXPONENT, HIGHEST_EXPONENT + 1, dtype=np.float64))
    return np.concatenate([np.zeros(1), octaves])


def merge(first: Statistics, second: Statistics) -> Statistics:
    """Merges two disjoint parts of the same m sites: counts and sums add, maxima max, l2 through its square.

    A part without finite elements leaves the other's value; any other null makes the result null, because a statistic
    over unknown elements is unknown. Associative and commutative, with ``empty(m)`` as identity.
    """
    return Statistics(
        n=first.n + second.n,
        l2=_merge_float(first, second, first.l2, second.l2, np.hypot),
        sum=_merge_float(first, second, first.sum, second.sum, np.add),
        absmax=_merge_float(first, second, first.absmax, second.absmax, np.maximum),
        nan=first.nan + second.nan,
        inf=first.inf + second.inf,
        zeros=_merge_counts(first.zeros, second.zeros),
        subnormal=_merge_counts(first.subnormal, second.subnormal),
        histogram=None
        if first.histogram is None or second.histogram is None
        else (first.histogram + second.histogram).astype(np.uint32),
    )


def empty(m: int) -> Statistics:
    """Returns the statistics of m sites over no elements: the identity of ``merge``."""
    zero = np.zeros(m, dtype=np.int64)
    null = np.full(m, np.nan)
    return Statistics(zero, null, null, null, zero, zero, zero, zero, np.zeros((m, BINS), dtype=np.uint32))


def concatenate(parts: Sequence[Statistics]) -> Statistics:
    """Joins the statistics of different sites; a column is kept only if every part has it."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {}
    for field in fields(Statistics):
        values = [getattr(part, field.name) for part in parts]
        columns[field.name] = None if any(v is None for v in values) else np.concatenate(values)
    return Statistics(**columns)


def _one(count: int | np.intp) -> Integer:
    return np.array([count], dtype=np.int64)


def _take(column: Any, index: npt.NDArray[Any]) -> Any:
    return None if column is None else column[index]


def _merge_counts(first: Integer | None, second: Integer | None) -> Integer | None:
    if first is None or second is None:
        return None
    return np.where((first == NULL) | (second == NULL), NULL, first + second)


def _merge_float(first: Statistics, second: Statistics, a: Float, b: Float, operation: np.ufunc) -> Float:
    merged = operation(a, b)
    merged = np.where(first.finite() == 0, b, merged)
    return np.where(second.finite() == 0, a, merged)
