"""Roll-ups: the rows of many steps merged into one row a site and window of steps.

What each column of a bucket means, over the samples (captured steps with a row of the site) that are in it:

* ``step_lo``, ``step_hi``: first and last sampled step; ``samples``: how many there are.
* ``stage``: of the last sample that is not absent; absent only when every sample is.
* ``n``, ``nan``, ``inf``, ``zeros``, ``subnormal``: sums over the samples that took them; ``counted``: the finite
  elements of those that took ``zeros``, its denominator.
* ``l2``: square root of the sum of squares of all elements of all samples; ``sum``: their sum.
* ``absmax``: the largest; ``rms_min``, ``rms_max``: the smallest and largest rms of one sample, so that no spike and
  no gap is averaged away; ``nonfinite_max``, ``zeros_max``: the largest count of one sample.
* ``units``, ``silent_units``, ``silent_delta_units``, ``saturated``: the largest of one sample.
* ``histogram``: the sum over ``histograms`` samples that have one; files keep the mean of them.

A null means that no sample had the value. Buckets merge: those of any split of the samples merge to the same bucket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import ABSENT, STAGES
from gradwatch.statistics import BINS, NULL, Float, Integer, root_mean_square
from gradwatch.store.columns import KEYS, UNITS, VALUES, Column, Rows

WIDTHS: Final = {"L1": 8, "L2": 64, "L3": 512, "L4": 4096}
"""Level to the steps of its windows; window i holds steps i * width to (i + 1) * width - 1."""

BUCKET_KEYS: Final[dict[str, type[np.generic]]] = {
    "step_lo": np.int64,
    "step_hi": np.int64,
    "samples": np.int64,
    **{name: kind for name, kind in KEYS.items() if name != "step"},
}
BUCKET_VALUES: Final = (*VALUES, "rms_min", "rms_max")
ADDED: Final = ("n", "nan", "inf", "counted", "zeros", "subnormal", "histograms")
LARGEST: Final = ("nonfinite_max", "zeros_max", *UNITS)
BUCKET_COUNTS: Final = (*ADDED, *LARGEST)
BUCKET_COLUMNS: Final = (*BUCKET_KEYS, *BUCKET_VALUES, *BUCKET_COUNTS)

_ABSENT: Final = STAGES.index(ABSENT)


@dataclass(frozen=True, slots=True)
class BucketRows:
    """Roll-up rows.

    Attributes:
        columns: ``BUCKET_COLUMNS`` to columns of shape [r].
        histogram_rows: positions of the rows that have a histogram, ascending, shape [h].
        histogram: sums of their counts, uint32 of single steps and float32 of more, shape [h, 64].
    """

    columns: Mapping[str, Column]
    histogram_rows: Integer
    histogram: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.columns["step_lo"])

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def take(self, index: npt.NDArray[Any]) -> BucketRows:
        """Selects rows by position, each at most once, in the order given."""
        place = np.full(len(self), NULL, dtype=np.int64)
        place[self.histogram_rows] = np.arange(len(self.histogram_rows))
        source = place[index]
        rows = np.flatnonzero(source != NULL)
        columns = {name: column[index] for name, column in self.columns.items()}
        return BucketRows(columns, rows, self.histogram[source[rows]])


def no_buckets() -> BucketRows:
    """Returns no rows."""
    columns = {name: np.zeros(0, dtype=column_type(name)) for name in BUCKET_COLUMNS}
    return BucketRows(columns, np.zeros(0, dtype=np.int64), np.zeros((0, BINS), dtype=np.float32))


def column_type(name: str) -> type[np.generic]:
    """Returns the type of a column in memory."""
    return BUCKET_KEYS.get(name, np.float64 if name in BUCKET_VALUES else np.int64)


def buckets_of(rows: Rows) -> BucketRows:
    """Returns every row as a bucket of its own."""
    finite = rows["n"] - rows["nan"] - rows["inf"]
    taken = rows["zeros"] != NULL
    rms = root_mean_square(rows["l2"], finite)
    histograms = np.zeros(len(rows), dtype=np.int64)
    histograms[rows.histogram_rows] = 1
    columns: dict[str, Column] = {
        "step_lo": rows["step"],
        "step_hi": rows["step"],
        "samples": np.ones(len(rows), dtype=np.int64),
        "rms_min": rms,
        "rms_max": rms,
        "counted": np.where(taken, finite, NULL),
        "histograms": histograms,
        "nonfinite_max": rows["nan"] + rows["inf"],
        "zeros_max": rows["zeros"],
    }
    columns |= {name: rows[name] for name in BUCKET_COLUMNS if name not in columns}
    return BucketRows(columns, rows.histogram_rows, rows.histogram)


def join_buckets(parts: Sequence[BucketRows]) -> BucketRows:
    """Joins rows in order."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(len(part) for part in parts)])
    columns = {
        name: np.concatenate([part[name] for part in parts]).astype(column_type(name), copy=False)
        for name in BUCKET_COLUMNS
    }
    at = [part.histogram_rows + offset for part, offset in zip(parts, offsets, strict=False)]
    histograms = [part.histogram.astype(np.float32, copy=False) for part in parts]
    return BucketRows(columns, np.concatenate(at), np.concatenate(histograms))


def merged(rows: BucketRows, width: int) -> BucketRows:
    """Merges the buckets of each optimizer, site and window of ``width`` steps; sorted by these."""
    if not len(rows):
        return rows
    order = np.lexsort((rows["step_lo"], rows["site"], rows["optimizer"]))
    if not np.array_equal(order, np.arange(len(rows))):
        rows = rows.take(order)
    starts = _starts(rows, width)
    if len(starts) == len(rows):
        return rows
    columns: dict[str, Column] = {name: rows[name][starts] for name in ("optimizer", "site")}
    columns |= {
        "step_lo": rows["step_lo"][starts],
        "step_hi": np.maximum.reduceat(rows["step_hi"], starts),
        "samples": np.add.reduceat(rows["samples"], starts),
        "stage": _stage(rows["stage"], starts),
        "l2": _reduced(np.hypot, rows["l2"], starts),
        "sum": _reduced(np.add, rows["sum"], starts),
        "rms_min": np.fmin.reduceat(rows["rms_min"], starts),
    }
    columns |= {name: np.fmax.reduceat(rows[name], starts) for name in ("absmax", "rms_max")}
    columns |= {name: _added(rows[name], starts) for name in ADDED}
    # NULL is below every count, so that it stands only where all are null.
    columns |= {name: np.maximum.reduceat(rows[name], starts) for name in LARGEST}
    return BucketRows(columns, *_histograms(rows, starts))


def _starts(rows: BucketRows, width: int) -> Integer:
    window = rows["step_lo"] // width
    new = np.ones(len(rows), dtype=np.bool_)
    new[1:] = window[1:] != window[:-1]
    for name in ("optimizer", "site"):
        new[1:] |= rows[name][1:] != rows[name][:-1]
    return np.flatnonzero(new)


def _stage(stage: Column, starts: Integer) -> Column:
    """Returns the last stage of each group that is not absent."""
    place = np.where(stage == _ABSENT, NULL, np.arange(len(stage)))
    last = np.maximum.reduceat(place, starts)
    return np.where(last == NULL, _ABSENT, stage[np.maximum(last, 0)]).astype(np.uint8)


def _reduced(operation: np.ufunc, column: Float, starts: Integer) -> Float:
    known = ~np.isnan(column)
    if known.all():
        total: Float = operation.reduceat(column, starts)
        return total
    total = operation.reduceat(np.where(known, column, 0.0), starts)
    return np.where(np.logical_or.reduceat(known, starts), total, np.nan)


def _added(column: Integer, starts: Integer) -> Integer:
    known = column != NULL
    total: Integer = np.add.reduceat(np.where(known, column, 0), starts)
    return total if known.all() else np.where(np.logical_or.reduceat(known, starts), total, NULL)


def _histograms(rows: BucketRows, starts: Integer) -> tuple[Integer, npt.NDArray[Any]]:
    if not len(rows.histogram_rows):
        return rows.histogram_rows, rows.histogram
    group = np.searchsorted(starts, rows.histogram_rows, side="right") - 1
    first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    return group[first], np.add.reduceat(rows.histogram, first, axis=0, dtype=np.float32)
