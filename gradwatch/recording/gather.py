"""From rows, as files and records give them, to panels and the table of steps. No loop over rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gradwatch.record import STEP_FACTS, SiteTable
from gradwatch.recording.filling import compact_panel, filled
from gradwatch.recording.panels import Panel, Steps, StepTable
from gradwatch.recording.series import Key, series_of, unique
from gradwatch.recording.stored import StoredPanels
from gradwatch.statistics import Float, Integer
from gradwatch.store.chunk import Chunk
from gradwatch.store.columns import StepRows, join_step_rows

MAX_LOGGED_NAMES: Final = 1000


@dataclass(slots=True)
class Gathered:
    """Panels and step tables, and what was left out or found twice.

    Attributes:
        panels, step_tables: as in a ``Recording``.
        repeated: rows that a later row of the same step and site replaced.
        notes: what was left out, a sentence each.
    """

    panels: Mapping[Key, Panel] = field(default_factory=dict)
    step_tables: dict[int, StepTable] = field(default_factory=dict)
    repeated: int = 0
    notes: list[str] = field(default_factory=list)


def gather(rows: list[Chunk], steps: list[StepRows], sites: SiteTable, *, stored: bool = False) -> Gathered:
    """Builds panels and step tables; of a step given twice the last row of each site wins.

    Args:
        rows: in order of arrival.
        steps: in order of arrival.
        sites: the table that the rows' site ids are of.
        stored: whether columns are to be read when they are asked for; else they are read now.
    """
    gathered = Gathered(step_tables=step_tables(steps, rows))
    series = series_of(rows, sites, gathered.notes)
    gathered.repeated = sum(one.repeated() for one in series.values())
    if stored:
        gathered.panels = StoredPanels(series)
    else:
        gathered.panels = {key: compact_panel(panel) for key, panel in filled(series).items()}
    return gathered


def step_tables(parts: list[StepRows], rows: list[Chunk]) -> dict[int, StepTable]:
    """Builds the table of steps of each optimizer; steps that only have rows of sites are in it, too."""
    joined = join_step_rows(parts)
    captured: dict[int, list[Steps]] = {}
    for grid in (grid for chunk in rows for grid in chunk.grids):
        captured.setdefault(grid.optimizer, []).append(grid.steps)
    more = {optimizer: unique(np.concatenate(parts)) for optimizer, parts in captured.items()}
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
