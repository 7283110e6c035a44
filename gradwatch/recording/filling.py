"""Panels in memory, filled from the rows of chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.recording.panels import Panel
from gradwatch.recording.replay import LateHistograms
from gradwatch.recording.series import NULLS, OTHERS, SCATTERED, SMALL, TYPES, Key, Read, Series, compact
from gradwatch.statistics import NULL, Histogram, Integer
from gradwatch.store.chunk import Chunk
from gradwatch.store.columns import UNITS, Column
from gradwatch.store.grids import Grid


def filled(series: Mapping[Key, Series]) -> dict[Key, Panel]:
    """Reads all columns of several series into memory, each chunk once."""
    known: dict[int, tuple[Integer, Histogram]] = {}

    def read(chunk: Chunk) -> tuple[Integer, Histogram]:
        # Signals share chunks, and rules ask for the histograms of one after another.
        if id(chunk) not in known:
            known.clear()
            known[id(chunk)] = chunk.source.histogram()
        return known[id(chunk)]

    targets = {key: _Target(one, read) for key, one in series.items()}
    grids: dict[int, tuple[Chunk, list[tuple[Key, Grid]]]] = {}
    for key, one in series.items():
        for piece in one.pieces:
            grids.setdefault(id(piece.chunk), (piece.chunk, []))[1].append((key, piece.grid))
    for chunk, parts in grids.values():
        loaded = _Loaded(chunk)
        for key, grid in parts:
            targets[key].take(grid, loaded)
    return {key: target.panel() for key, target in targets.items()}


class _Loaded:
    """The values of a chunk, in the order of its grids."""

    def __init__(self, chunk: Chunk) -> None:
        self.columns = chunk.columns((*SCATTERED, *UNITS))
        held = (self.columns[name] for name in UNITS)
        self.units = any(column is not None and bool((column != NULL).any()) for column in held)


class _Target:
    """A panel being filled."""

    def __init__(self, series: Series, read: Read) -> None:
        self._series = series
        self._read = read
        self._columns: dict[str, Any] = {
            name: np.full(series.shape(), NULLS[name], dtype=TYPES.get(name, np.int64)) for name in SCATTERED
        }
        self._units: npt.NDArray[np.int64] | None = None

    def take(self, grid: Grid, loaded: _Loaded) -> None:
        for name, target in self._columns.items():
            self._spread(grid, loaded, name, target)
        if loaded.units:
            if self._units is None:
                self._units = np.full((len(UNITS), *self._series.shape()), NULL, dtype=np.int64)
            for name, target in zip(UNITS, self._units, strict=True):
                self._spread(grid, loaded, name, target)

    def panel(self) -> Panel:
        units = None if self._units is None or (self._units == NULL).all() else self._units
        series, read = self._series, self._read
        others = {**self._columns, "units": units}
        columns = LateHistograms(others, lambda: series.histograms(read), series.without_histogram)
        return Panel(*series.key, series.steps, series.sites, columns)

    def _spread(self, grid: Grid, loaded: _Loaded, name: str, target: Column) -> None:
        column = loaded.columns[name]
        if column is not None:
            self._series.spread(grid, column, target)


def compact_panel(panel: Panel) -> Panel:
    """Keeps columns that do not change as views, and counts that fit in 32 bits."""
    columns = {name: compact(_narrow(panel.columns[name])) for name in SCATTERED}
    return replace(panel, columns={**columns, **{name: panel.columns[name] for name in OTHERS}})


def _narrow(column: Column) -> Column:
    fits = column.dtype == np.int64 and column.size and column.max() < SMALL
    return column.astype(np.int32) if fits else column
