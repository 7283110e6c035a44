"""The windows of roll-ups that a panel of buckets has, and the filling of its columns from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import ABSENT, STAGES
from gradwatch.recording.buckets import BucketPanel
from gradwatch.recording.series import compact
from gradwatch.recording.span import Span
from gradwatch.recording.stored import Kept
from gradwatch.statistics import BINS, NULL, Float, Integer
from gradwatch.store.buckets import BucketRows
from gradwatch.store.columns import UNITS, Column
from gradwatch.store.grids import Grid, places

Key = tuple[str, int]
Combine = Callable[[Any, Any], Any]

_ABSENT: Final = STAGES.index(ABSENT)


class SpanSource:
    """The rows of a span, column by column."""

    def __init__(self, span: Span, *, plain: bool) -> None:
        """Names the span; ``plain`` tells that its rows are those of the file, in the file's order."""
        self._span = span
        self._plain = plain

    def column(self, name: str) -> Column | None:
        """Returns a column, None when it is null throughout."""
        if not self._plain:
            return self._span.rows([name])[name]
        column = self._span.file.columns([name])[name]
        if column is not None and name == "stage":
            return np.where(column < len(STAGES), column, STAGES.index("unknown")).astype(np.uint8)
        return column

    def codes(self) -> tuple[Integer, npt.NDArray[np.uint8]]:
        """Returns which rows have a histogram, and the logarithms of these, shape [h, 64]."""
        if self._plain:
            return self._span.file.codes()
        rows = self._span.rows()
        mean = rows.histogram / np.maximum(rows["histograms"][rows.histogram_rows], 1)[:, None]
        return rows.histogram_rows, np.minimum(np.rint(8.0 * np.log2(1.0 + mean)), 255).astype(np.uint8)


class Windows:
    """Where the buckets of one signal under one optimizer are."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._pieces: list[tuple[SpanSource, Grid]] = []
        self._ends: list[tuple[Integer, Integer, Integer]] = []
        self._histograms: list[Integer] = []
        self._units = False
        self.windows: Integer = np.zeros(0, dtype=np.int64)
        self.sites: npt.NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)

    def add(self, source: SpanSource, grid: Grid, rows: BucketRows) -> None:
        """Adds a part of a span, whose keys are in ``rows``."""
        self._pieces.append((source, grid))
        first, last = grid.cells(rows["step_lo"]).min(axis=0), grid.cells(rows["step_hi"]).max(axis=0)
        self._ends.append((grid.steps, first, last))
        self._histograms.append(grid.steps[(grid.cells(rows["histograms"]) > 0).any(axis=0)])
        self._units = self._units or bool((grid.cells(rows["units"]) != NULL).any())

    def panel(self, kept: Kept) -> BucketPanel:
        """Returns the panel, whose windows do not overlap."""
        self.windows = np.unique(np.concatenate([windows for windows, _, _ in self._ends]))
        self.sites = np.unique(np.concatenate([grid.sites for _, grid in self._pieces]))
        first = np.full(len(self.windows), np.iinfo(np.int64).max)
        last = np.full(len(self.windows), -1, dtype=np.int64)
        for windows, low, high in self._ends:
            at = np.searchsorted(self.windows, windows)
            first[at], last[at] = np.minimum(first[at], low), np.maximum(last[at], high)
        last[:-1] = np.minimum(last[:-1], first[1:] - 1)
        columns = BucketColumns(self, self._key, kept)
        return BucketPanel(*self._key, first, last, self.sites, columns)

    def read(self, name: str) -> Any:
        """Reads a column of ``BucketPanel``; the parts of a window that two files share are merged."""
        if name == "histogram_rows":
            return np.searchsorted(self.windows, np.unique(np.concatenate(self._histograms)))
        if name == "histogram":
            return self._codes()
        if name == "units":
            return np.stack([self._filled(unit, np.maximum) for unit in UNITS]) if self._units else None
        return compact(self._stage() if name == "stage" else self._filled(name, _COMBINED[name]))

    def _filled(self, name: str, combine: Combine) -> Column:
        target: Column = np.full(self._shape(), *_EMPTY.get(name, (NULL, np.int64)))
        for rows, columns, values in self._cells(name):
            target[rows, columns] = combine(target[rows, columns], values)
        return target

    def _stage(self) -> Column:
        target = np.zeros(self._shape(), dtype=np.uint8)
        seen = np.zeros(self._shape(), dtype=np.bool_)
        for rows, columns, values in self._cells("stage"):
            held = target[rows, columns]
            # Of two parts of a window the later one stands, if it is not absent.
            target[rows, columns] = np.where((values != _ABSENT) | ~seen[rows, columns], values, held)
            seen[rows, columns] = True
        return target

    def _codes(self) -> npt.NDArray[np.uint8]:
        having = np.unique(np.concatenate(self._histograms))
        target = np.zeros((len(having), len(self.sites), BINS), dtype=np.uint8)
        read: tuple[SpanSource | None, Any] = (None, None)
        for source, grid in self._pieces:
            if read[0] is not source:
                read = (source, source.codes())
            rows, codes = read[1]
            if len(rows):
                place = np.full(max(int(rows[-1]), int(grid.rows().max())) + 1, NULL, dtype=np.int64)
                place[rows] = np.arange(len(rows))
                cells = place[grid.rows()].T
                t, s = np.nonzero(cells != NULL)
                at = np.searchsorted(having, grid.steps)[t], np.searchsorted(self.sites, grid.sites)[s]
                # Of a window that two files share, the fuller bin stands: both are means over parts of it.
                target[at] = np.maximum(target[at], codes[cells[t, s]])
        return target

    def _cells(self, name: str) -> Iterator[tuple[Any, Any, Column]]:
        """Yields rows, columns and values of each part, of one that is not null throughout."""
        read: tuple[SpanSource | None, Column | None] = (None, None)
        for source, grid in self._pieces:
            if read[0] is not source:
                read = (source, source.column(name))
            if read[1] is not None:
                rows, columns = places(self.windows, grid.steps), places(self.sites, grid.sites)
                if not isinstance(rows, slice) and not isinstance(columns, slice):
                    rows = rows[:, None]
                yield rows, columns, grid.cells(read[1]).T

    def _shape(self) -> tuple[int, int]:
        return len(self.windows), len(self.sites)


class BucketColumns(Mapping[str, Any]):
    """The columns of a panel of buckets, read when they are asked for."""

    def __init__(self, windows: Windows, key: Key, kept: Kept) -> None:
        self._windows = windows
        self._key = key
        self._kept = kept

    def __getitem__(self, name: str) -> Any:
        if name not in _NAMES:
            raise KeyError(name)
        return self._kept.get(self._key, name, lambda: self._windows.read(name))

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


def _sum(held: Integer, more: Integer) -> Integer:
    return np.where(more == NULL, held, np.maximum(held, 0) + more)


def _hypot(held: Float, more: Float) -> Float:
    both = np.hypot(held, more)
    return np.where(np.isnan(held), more, np.where(np.isnan(more), held, both))


_COMBINED: Final[dict[str, Combine]] = {
    "samples": np.add,
    **dict.fromkeys(("n", "nan", "inf"), _sum),
    "l2": _hypot,
    "rms_min": np.fmin,
    **dict.fromkeys(("absmax", "rms_max", "nonfinite_max", "zeros_max"), np.fmax),
}
_EMPTY: Final[dict[str, tuple[Any, Any]]] = {
    "samples": (0, np.int32),
    **dict.fromkeys(("l2", "absmax", "rms_min", "rms_max"), (np.nan, np.float64)),
}
_NAMES: Final[Sequence[str]] = (*_COMBINED, "stage", "histogram_rows", "histogram", "units")
