"""Where the rows of a panel lie in chunks, and the filling of its columns from there. No loop over rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import SIGNALS, SiteTable
from gradwatch.recording.panels import Steps
from gradwatch.statistics import BINS, NULL, Histogram, Integer
from gradwatch.store.chunk import Chunk
from gradwatch.store.columns import COUNTS, UNITS, VALUES, Column
from gradwatch.store.grids import Grid, places

Key = tuple[str, int]
Read = Callable[[Chunk], tuple[Integer, Histogram]]

MAX_CELLS: Final = 60_000_000
"""Steps times sites of one panel, some 500 MB a column: above it the oldest steps are left out."""
SMALL: Final = 2**30
"""Counts below it and sums of two of them fit 32 bits."""
SCATTERED: Final = ("stage", *VALUES, *(name for name in COUNTS if name not in UNITS))
OTHERS: Final = ("histogram_steps", "histogram", "units")
NULLS: Final = {"stage": 0, **dict.fromkeys(VALUES, np.nan), **dict.fromkeys(COUNTS, NULL)}
TYPES: Final[dict[str, type[np.generic]]] = {"stage": np.uint8, **dict.fromkeys(VALUES, np.float64)}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a panel.

    Attributes:
        chunk: which holds it.
        grid: where in that.
    """

    chunk: Chunk
    grid: Grid


@dataclass(slots=True)
class Series:
    """The rows of one signal under one optimizer.

    Attributes:
        key: signal and optimizer.
        pieces: where they are, in order of arrival.
        steps, sites: of the panel, ascending.
    """

    key: Key
    pieces: list[Piece] = field(default_factory=list)
    steps: Steps = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sites: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, dtype=np.uint32))

    def measure(self) -> None:
        """Sets the axes to the steps and sites of the pieces."""
        self.steps = unique(np.concatenate([piece.grid.steps for piece in self.pieces]))
        self.sites = unique(np.concatenate([piece.grid.sites for piece in self.pieces]))

    def shape(self) -> tuple[int, int]:
        """Returns the number of steps and of sites."""
        return len(self.steps), len(self.sites)

    def repeated(self) -> int:
        """Counts the rows that a later one replaces."""
        seen = np.zeros(self.shape(), dtype=np.bool_)
        for piece in self.pieces:
            seen[np.ix_(*self.indices(piece.grid))] = True
        return sum(len(piece.grid) for piece in self.pieces) - int(np.count_nonzero(seen))

    def indices(self, grid: Grid) -> tuple[Integer, Integer]:
        """Returns the rows and columns of a grid's cells."""
        return np.searchsorted(self.steps, grid.steps), np.searchsorted(self.sites, grid.sites)

    def kept(self, mask: Callable[[Grid], npt.NDArray[np.bool_]]) -> Series:
        """Returns the series of the steps of each grid where a mask is True."""
        grids = ((piece.chunk, piece.grid.at_steps(mask(piece.grid))) for piece in self.pieces)
        found = Series(self.key, [Piece(chunk, grid) for chunk, grid in grids if len(grid)])
        if found.pieces:
            found.measure()
        return found

    def spread(self, grid: Grid, column: Column, target: Column) -> None:
        """Puts a column's values of a grid into the panel's; of a step given twice the last stands."""
        grid.spread(column, target, places(self.steps, grid.steps), places(self.sites, grid.sites))

    def column(self, name: str) -> Column:
        """Reads one of ``SCATTERED`` or of the counts per unit, shape [t, m]; counts in 32 bits where they fit."""
        target = np.full(self.shape(), NULLS[name], dtype=TYPES.get(name, np.int32))
        for chunk, grids in self._by_chunk():
            column = chunk.columns([name])[name]
            if column is None:
                continue
            large = target.dtype == np.int32 and bool(len(column)) and column.max() >= SMALL
            for grid in grids:
                if large and grid.cells(column).max() >= SMALL:
                    target, large = target.astype(np.int64), False
                self.spread(grid, column, target)
        return compact(target)

    def units(self) -> npt.NDArray[np.int64] | None:
        """Reads the counts per unit, shape [4, t, m], or returns None when there are none."""
        found = np.stack([self.column(name) for name in UNITS]).astype(np.int64)
        return found if (found != NULL).any() else None

    def histogram_steps(self) -> Steps:
        """Reads which rows have histograms."""
        having = np.zeros(len(self.steps), dtype=np.bool_)
        for chunk, grids in self._by_chunk():
            steps = chunk.all_histograms_at()
            place = None if steps is not None else places_of_histograms(chunk, chunk.source.histogram()[0])
            for grid in grids:
                if steps is not None:
                    having[np.searchsorted(self.steps, np.intersect1d(grid.steps, steps))] = True
                elif place is not None:
                    having[np.searchsorted(self.steps, grid.steps)] |= (grid.cells(place) != NULL).any(axis=0)
        return np.flatnonzero(having)

    def without_histogram(self) -> npt.NDArray[np.bool_]:
        """Tells which steps have none for certain, without reading them, shape [t]."""
        known = np.ones(len(self.steps), dtype=np.bool_)
        for chunk, grids in self._by_chunk():
            steps = chunk.source.histogram_steps()
            for grid in grids:
                mine = grid.steps if steps is None else np.intersect1d(grid.steps, steps)
                known[np.searchsorted(self.steps, mine)] = False
        return known

    def histograms(self, read: Read | None = None) -> tuple[Steps, Histogram]:
        """Reads which rows have histograms, and these, shape [h, m, 64]; ``read`` reads those of a chunk."""
        held = []
        for chunk, grids in self._by_chunk():
            at, counts = chunk.source.histogram() if read is None else read(chunk)
            place = places_of_histograms(chunk, at)
            held += [] if place is None else [(grid, place, counts) for grid in grids]
        return self.join_histograms(held)

    def join_histograms(self, held: Sequence[tuple[Grid, Integer, Histogram]]) -> tuple[Steps, Histogram]:
        """Returns which rows have histograms, and these, shape [h, m, 64].

        Args:
            held: grids; of each row of the chunk the position of its histogram, ``NULL`` where it has none; the
                chunk's histograms.
        """
        having = np.zeros(len(self.steps), dtype=np.bool_)
        for grid, place, _ in held:
            having[np.searchsorted(self.steps, grid.steps)] |= (grid.cells(place) != NULL).any(axis=0)
        rows = np.flatnonzero(having)
        found = np.zeros((len(rows), len(self.sites), BINS), dtype=np.uint32)
        for grid, place, counts in held:
            cells = grid.cells(place).T
            t, s = np.nonzero(cells != NULL)
            at, column = self.indices(grid)
            found[np.searchsorted(rows, at)[t], column[s]] = counts[cells[t, s]]
        return rows, found

    def _by_chunk(self) -> Iterator[tuple[Chunk, list[Grid]]]:
        return by_chunk(self.pieces)


def by_chunk(pieces: Iterable[Piece]) -> Iterator[tuple[Chunk, list[Grid]]]:
    """Yields chunks with their grids; pieces of one chunk stand together."""
    chunk, grids = None, list[Grid]()
    for piece in pieces:
        if piece.chunk is not chunk and chunk is not None:
            yield chunk, grids
            grids = []
        chunk = piece.chunk
        grids.append(piece.grid)
    if chunk is not None:
        yield chunk, grids


def series_of(rows: Iterable[Chunk], sites: SiteTable, notes: list[str]) -> dict[Key, Series]:
    """Returns the series of all rows; of one with more than ``MAX_CELLS`` the latest steps, with a note."""
    signals = np.array([SIGNALS.index(site.signal) for site in sites], dtype=np.uint8)
    found: dict[Key, Series] = {}
    for chunk in rows:
        for key, grid in _by_signal(chunk, signals):
            found.setdefault(key, Series(key)).pieces.append(Piece(chunk, grid))
    for key, series in found.items():
        series.measure()
        kept = max(1, MAX_CELLS // len(series.sites))
        if len(series.steps) > kept:
            first = int(series.steps[-kept])
            found[key] = series.kept(lambda grid, first=first: grid.steps >= first)  # type: ignore[misc]
            notes.append(f"{key[0]} has too many steps and sites to hold: steps before {first} are left out.")
    return found


def places_of_histograms(chunk: Chunk, rows: Integer) -> Integer | None:
    """Returns the position of each row's histogram among those of a chunk, ``NULL`` where there is none.

    None when no row has one.
    """
    if not len(rows):
        return None
    place = np.full(chunk.size(), NULL, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    return chunk.in_order(place)


def compact(column: Column) -> Column:
    """Keeps a column of one value, or of rows that are all alike, as a view of it that costs no memory."""
    if column.size:
        for few in (column[:1, :1], column[:1]):
            if np.array_equal(column[-1:, -few.shape[1] :], few, equal_nan=column.dtype.kind == "f") and _all_as(
                column, few
            ):
                return np.broadcast_to(few.copy(), column.shape)
    return column


def _all_as(column: Column, few: Column) -> bool:
    if column.dtype.kind == "f":
        return bool(((column == few) | (np.isnan(column) & np.isnan(few))).all())
    return bool((column == few).all())


def _by_signal(chunk: Chunk, signals: npt.NDArray[np.uint8]) -> Iterator[tuple[Key, Grid]]:
    """Yields each grid of a chunk with its key, cut where sites of several signals are in it."""
    for grid in chunk.grids:
        code = signals[grid.sites]
        for found in unique(code).tolist():
            yield (SIGNALS[found], grid.optimizer), grid.of_sites(code == found)


def unique(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the distinct values, ascending; fast where they lie close together."""
    if not len(values):
        return values
    first, last = int(values.min()), int(values.max())
    if last - first > 4 * len(values) + 2**20:
        return np.unique(values)
    seen = np.zeros(last - first + 1, dtype=np.bool_)
    seen[values.astype(np.int64) - first] = True
    return (np.flatnonzero(seen) + first).astype(values.dtype)
