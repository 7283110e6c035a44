"""From rows, as files and records give them, to dense panels and the table of steps. No loop over rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import SIGNALS, STEP_FACTS, SiteTable
from gradwatch.recording.panels import Panel, Steps, StepTable, empty_panel
from gradwatch.statistics import NULL, Float, Integer
from gradwatch.store.chunk import Chunk
from gradwatch.store.columns import COUNTS, UNITS, VALUES, Rows, StepRows, join_step_rows

Key = tuple[str, int]

MAX_CELLS: Final = 60_000_000
"""Steps times sites of one panel, some 4 GB: above it the oldest steps are left out."""
MAX_LOGGED_NAMES: Final = 1000
_INTEGERS: Final = ("stage", *(name for name in COUNTS if name not in UNITS))
_SCATTERED: Final = ("stage", *VALUES, *(name for name in COUNTS if name not in UNITS))


@dataclass(slots=True)
class Gathered:
    """Panels and step tables, and what was left out or found twice.

    Attributes:
        panels, step_tables: as in a ``Recording``.
        repeated: rows that a later row of the same step and site replaced.
        notes: what was left out, a sentence each.
    """

    panels: dict[Key, Panel] = field(default_factory=dict)
    step_tables: dict[int, StepTable] = field(default_factory=dict)
    repeated: int = 0
    notes: list[str] = field(default_factory=list)


class Index:
    """Positions of values in an ascending array without repeats."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self.values = values
        self._first = int(values[0]) if len(values) else 0
        span = int(values[-1]) - self._first + 1 if len(values) else 0
        # A table of positions is some ten times faster than a search; it is used while it stays small.
        self._table: npt.NDArray[np.int32] | None = None
        if span <= 8 * len(values) + 2**20:
            self._table = np.zeros(span, dtype=np.int32)
            self._table[values.astype(np.int64) - self._first] = np.arange(len(values), dtype=np.int32)

    def __call__(self, wanted: npt.NDArray[Any]) -> Integer:
        """Returns the positions of values that are all in the array."""
        if self._table is None:
            return np.searchsorted(self.values, wanted)
        found: Integer = self._table[wanted.astype(np.int64) - self._first].astype(np.int64)
        return found


def gather(rows: list[Chunk], steps: list[StepRows], sites: SiteTable) -> Gathered:
    """Builds panels and step tables; of a step given twice the last row of each site wins.

    Args:
        rows: in order of arrival; the list is emptied on the way, so that memory is freed as the panels fill.
        steps: in order of arrival.
        sites: the table that the rows' site ids are of.
    """
    gathered = Gathered()
    gathered.step_tables = step_tables(steps, rows)
    signals = np.array([SIGNALS.index(site.signal) for site in sites], dtype=np.uint8)
    extents: dict[Key, _Extent] = {}
    for chunk in rows:
        for key, at in _groups(chunk, signals):
            extents.setdefault(key, _Extent()).add(chunk, at)
    targets = {key: _Target(key, extent, gathered.notes) for key, extent in extents.items()}
    while rows:
        chunk = rows.pop(0)
        loaded = chunk.rows()
        for key, at in _groups(chunk, signals):
            targets[key].scatter(loaded, at)
    gathered.repeated = sum(target.repeated() for target in targets.values())
    while targets:
        key, target = targets.popitem()
        gathered.panels[key] = _compact(target.panel)
    return gathered


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


def _groups(chunk: Chunk, signals: npt.NDArray[np.uint8]) -> Iterator[tuple[Key, Integer | slice]]:
    """Yields each (signal, optimizer) of a chunk and where its rows are."""
    if not len(chunk):
        return
    code = chunk.optimizer.astype(np.int64) * len(SIGNALS) + signals[chunk.site]
    for found in unique(code).tolist():
        key = (SIGNALS[found % len(SIGNALS)], found // len(SIGNALS))
        here = code == found
        yield key, slice(None) if here.all() else np.flatnonzero(here)


class _Extent:
    """The steps and sites that a panel will have."""

    def __init__(self) -> None:
        self.steps: Steps = np.zeros(0, dtype=np.int64)
        self.sites: npt.NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)
        self.histograms: Steps = np.zeros(0, dtype=np.int64)
        self.units = False
        self.small = True

    def add(self, chunk: Chunk, at: Integer | slice) -> None:
        steps = chunk.step[at]
        self.small = self.small and chunk.small
        self.steps = np.union1d(self.steps, unique(steps)).astype(np.int64)
        self.sites = np.union1d(self.sites, unique(chunk.site[at])).astype(np.uint32)
        self.histograms = np.union1d(self.histograms, unique(steps[chunk.histogram[at]])).astype(np.int64)
        self.units = self.units or bool(chunk.units[at].any())


class _Target:
    """A panel being filled."""

    def __init__(self, key: Key, extent: _Extent, notes: list[str]) -> None:
        self._first = -1
        steps = extent.steps
        if len(steps) * len(extent.sites) > MAX_CELLS:
            kept = max(1, MAX_CELLS // len(extent.sites))
            self._first = int(steps[-kept])
            steps = steps[-kept:]
            notes.append(f"{key[0]} has too many steps and sites to hold: steps before {self._first} are left out.")
        histograms = extent.histograms[extent.histograms >= steps[0]]
        integer = np.int32 if extent.small else np.int64
        self.panel = empty_panel(*key, steps, extent.sites, histograms=histograms, integer=integer)
        if extent.units:
            self.panel = replace(self.panel, units=np.full((4, *self.panel.n.shape), NULL, dtype=np.int64))
        self._step, self._site = Index(steps), Index(extent.sites)
        self._histogram = Index(histograms)
        self._rows = 0

    def scatter(self, rows: Rows, at: Integer | slice) -> None:
        """Puts the rows of a chunk in their cells; numpy keeps the last of a repeated index."""
        if self._first >= 0:
            every = np.arange(len(rows))[at]
            at = every[rows["step"][every] >= self._first]
        cell = self._step(rows["step"][at]) * len(self.panel.sites) + self._site(rows["site"][at])
        self._rows += len(cell)
        for name in _SCATTERED:
            getattr(self.panel, name).reshape(-1)[cell] = rows[name][at]
        if self.panel.units is not None:
            for column, name in zip(self.panel.units, UNITS, strict=True):
                column.reshape(-1)[cell] = rows[name][at]
        taken, having = _histograms_at(rows, at)
        if len(having):
            where = self._histogram(rows["step"][having]), self._site(rows["site"][having])
            self.panel.histogram[where] = rows.histogram[taken]

    def repeated(self) -> int:
        """Counts the rows that a later one replaced."""
        return self._rows - int(np.count_nonzero(self.panel.n != NULL))


def _compact(panel: Panel) -> Panel:
    """Keeps integer columns of one value as a view of it."""
    columns: dict[str, Any] = {}
    for name in _INTEGERS:
        column = getattr(panel, name)
        if column.size and column.min() == column.max():
            columns[name] = np.broadcast_to(column.ravel()[:1].copy(), column.shape)
    return replace(panel, **columns)


def _histograms_at(rows: Rows, at: Integer | slice) -> tuple[Integer | slice, Integer]:
    """Returns which histograms of a chunk belong to the chosen rows, and those rows."""
    if isinstance(at, slice):
        return slice(None), rows.histogram_rows
    chosen = np.zeros(len(rows), dtype=np.bool_)
    chosen[at] = True
    taken = np.flatnonzero(chosen[rows.histogram_rows])
    return taken, rows.histogram_rows[taken]


def step_tables(parts: list[StepRows], rows: list[Chunk]) -> dict[int, StepTable]:
    """Builds the table of steps of each optimizer; steps that only have rows of sites are in it, too."""
    joined = join_step_rows(parts)
    more: dict[int, Steps] = {}
    for chunk in rows:
        for optimizer in unique(chunk.optimizer).tolist():
            steps = unique(chunk.step[chunk.optimizer == optimizer])
            more[optimizer] = np.union1d(more.get(optimizer, steps), steps)
    optimizers = sorted({*unique(joined["optimizer"]).tolist(), *more})
    nothing = np.zeros(0, dtype=np.int64)
    return {
        optimizer: _step_table(
            joined.take(np.flatnonzero(joined["optimizer"] == optimizer)), more.get(optimizer, nothing)
        )
        for optimizer in optimizers
    }


def _step_table(rows: StepRows, more: Steps) -> StepTable:
    """Joins the rows of steps; of a scalar given twice for a step the last value wins."""
    steps = np.union1d(rows["step"], more).astype(np.int64)
    cell = np.searchsorted(steps, rows["step"])
    late = rows["late"]
    first_late = np.flatnonzero(late)[::-1]
    main = np.concatenate([first_late, np.flatnonzero(~late)])
    time = np.full(len(steps), np.nan)
    skipped = np.zeros(len(steps), dtype=np.bool_)
    time[cell[main]] = rows["time"][main]
    skipped[cell[main]] = rows["skipped"][main]
    facts = {name: _fact(len(steps), cell, rows[name]) for name in STEP_FACTS}
    logged, nonfinite = _logged(steps, cell, rows)
    kept = {name: column for name, column in facts.items() if column is not None}
    return StepTable(steps, time, skipped, kept, logged, nonfinite)


def _fact(length: int, cell: Integer, values: Float) -> Float | None:
    given = np.flatnonzero(~np.isnan(values))
    if not len(given):
        return None
    column = np.full(length, np.nan)
    column[cell[given]] = values[given]
    column[~np.isfinite(column)] = np.nan
    return column


def _logged(steps: Steps, cell: Integer, rows: StepRows) -> tuple[dict[str, Float], tuple[tuple[int, str, float], ...]]:
    columns: dict[str, Float] = {}
    bad: list[tuple[int, str, float]] = []
    used = unique(rows.logged_name)[:MAX_LOGGED_NAMES].tolist()
    for code in sorted(used, key=lambda code: rows.names[code]):
        chosen = np.flatnonzero(rows.logged_name == code)
        column = np.full(len(steps), np.nan)
        given = np.zeros(len(steps), dtype=np.bool_)
        at = cell[rows.logged_row[chosen]]
        column[at], given[at] = rows.logged_value[chosen], True
        wrong = np.flatnonzero(given & ~np.isfinite(column))
        bad.extend((int(steps[t]), rows.names[code], float(column[t])) for t in wrong)
        column[wrong] = np.nan
        columns[rows.names[code]] = column
    return columns, tuple(sorted(bad, key=lambda entry: entry[:2]))
