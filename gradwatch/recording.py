"""The read side that rules and reporters receive: the sites of a run and their series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.record import ABSENT, STAGES, Block, SiteTable, StepRecord
from gradwatch.statistics import BINS, NULL, Float, Histogram, Integer, Statistics, UnitCounts

Steps = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Panel:
    """The series of one signal under one optimizer, dense: t captured steps by m sites.

    A site without a row at a step has ``n`` = ``NULL`` there and null in every other column; a gradient that was None
    has the stage ``absent`` and n = 0.

    Attributes:
        signal: one of ``record.SIGNALS``.
        optimizer: index into ``SiteTable.optimizers``.
        steps: captured steps, ascending, shape [t].
        sites: site ids, ascending, shape [m].
        stage: positions in ``record.STAGES``, uint8, shape [t, m].
        n, nan, inf, zeros, subnormal: int64, shape [t, m]; ``NULL`` where not taken.
        l2, sum, absmax: float64, shape [t, m]; NaN is null.
        histogram_steps: rows of ``steps`` that have histograms, as indices, shape [h].
        histogram: uint32, shape [h, m, 64].
        units: shape [4, t, m] in the order of ``UnitCounts``, or None.
    """

    signal: str
    optimizer: int
    steps: Steps
    sites: npt.NDArray[np.uint32]
    stage: npt.NDArray[np.uint8]
    n: Integer
    l2: Float
    sum: Float
    absmax: Float
    nan: Integer
    inf: Integer
    zeros: Integer
    subnormal: Integer
    histogram_steps: Steps
    histogram: Histogram
    units: npt.NDArray[np.int64] | None = None

    def statistics(self) -> Statistics:
        """Returns the columns as statistics of t * m flattened sites, without histogram; ``n`` is 0 where unknown."""
        known = np.maximum(self.n, 0).ravel()
        nan, inf = np.maximum(self.nan, 0).ravel(), np.maximum(self.inf, 0).ravel()
        columns = (self.l2.ravel(), self.sum.ravel(), self.absmax.ravel())
        return Statistics(known, *columns, nan, inf, self.zeros.ravel(), self.subnormal.ravel())

    def rms(self) -> Float:
        """Returns l2 / sqrt(finite elements), shape [t, m]."""
        return self.statistics().rms().reshape(self.n.shape)

    def mean(self) -> Float:
        """Returns sum / finite elements, shape [t, m]."""
        return self.statistics().mean().reshape(self.n.shape)

    def blocks(self, row: int) -> Iterator[Block]:
        """Rebuilds the blocks of one captured step, one per stage."""
        present = self.n[row] != NULL
        slot = np.searchsorted(self.histogram_steps, row)
        has_histogram = slot < len(self.histogram_steps) and self.histogram_steps[slot] == row
        for stage in np.unique(self.stage[row][present]):
            at = np.flatnonzero(present & (self.stage[row] == stage))
            full = bool((self.zeros[row, at] != NULL).any())
            yield Block(
                self.signal,
                self.sites[at],
                Statistics(
                    self.n[row, at],
                    self.l2[row, at],
                    self.sum[row, at],
                    self.absmax[row, at],
                    self.nan[row, at],
                    self.inf[row, at],
                    self.zeros[row, at] if full else None,
                    self.subnormal[row, at] if full else None,
                    self.histogram[slot, at] if has_histogram and STAGES[stage] != ABSENT else None,
                ),
                STAGES[stage],
                None if self.units is None else UnitCounts(*self.units[:, row, at]),
            )


@dataclass(frozen=True, slots=True)
class StepTable:
    """One row a captured step of one optimizer, ascending.

    Attributes:
        steps: shape [t].
        time: seconds since the attempt began, shape [t].
        skipped: bool, shape [t].
        facts: name of ``record.STEP_FACTS`` to float64 column, NaN where not given, shape [t] each.
        logged: name the user logged to float64 column, shape [t] each. What the user logged as NaN or infinity is in
            ``nonfinite_logged``.
        nonfinite_logged: (step, name, value) of logged scalars that were not finite.
    """

    steps: Steps
    time: Float
    skipped: npt.NDArray[np.bool_]
    facts: Mapping[str, Float]
    logged: Mapping[str, Float]
    nonfinite_logged: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """A run as plain arrays: all that rules and reporters receive.

    Attributes:
        name: the run's name.
        sites: the site table.
        panels: (signal, optimizer index) to its panel.
        step_tables: optimizer index to its rows of steps.
        facts: plain data from the manifest: framework and version, world size, schedule, ...
        quality: data-quality notes, one sentence each (refused, torn, missing ranks, degraded, ...).
        open: True while the run is being written.
    """

    name: str
    sites: SiteTable
    panels: Mapping[tuple[str, int], Panel]
    step_tables: Mapping[int, StepTable]
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    quality: tuple[str, ...] = ()
    open: bool = False

    def panel(self, signal: str, optimizer: int = 0) -> Panel | None:
        """Returns the panel of a signal, or None when none was captured."""
        return self.panels.get((signal, optimizer))

    def steps(self, optimizer: int = 0) -> Steps:
        """Returns the steps of an optimizer, ascending, shape [t]."""
        table = self.step_tables.get(optimizer)
        return np.zeros(0, dtype=np.int64) if table is None else table.steps

    def records(self, optimizer: int) -> Iterator[StepRecord]:
        """Replays the steps of one optimizer in order, as they were handed to the recorder."""
        table = self.step_tables.get(optimizer)
        if table is None:
            return
        panels = [panel for (_, key), panel in self.panels.items() if key == optimizer]
        rows = [0] * len(panels)
        bad: dict[int, dict[str, float]] = {}
        for step, name, value in table.nonfinite_logged:
            bad.setdefault(step, {})[name] = value
        for t, step in enumerate(table.steps.tolist()):
            blocks: list[Block] = []
            for i, panel in enumerate(panels):
                if rows[i] < len(panel.steps) and panel.steps[rows[i]] == step:
                    blocks.extend(panel.blocks(rows[i]))
                    rows[i] += 1
            yield StepRecord(
                step,
                optimizer,
                float(table.time[t]),
                bool(table.skipped[t]),
                tuple(blocks),
                _at(table.facts, t),
                {**_at(table.logged, t), **bad.get(step, {})},
            )


def _at(columns: Mapping[str, Float], row: int) -> dict[str, float]:
    values = {name: float(column[row]) for name, column in columns.items()}
    return {name: value for name, value in values.items() if not np.isnan(value)}


def from_records(
    records: Iterable[StepRecord],
    sites: SiteTable,
    *,
    name: str = "run",
    facts: Mapping[str, Any] = MappingProxyType({}),
    quality: tuple[str, ...] = (),
) -> Recording:
    """Builds a recording from step records in memory; of a step given twice the last row of each site wins."""
    by_optimizer: dict[int, dict[int, list[StepRecord]]] = {}
    for record in records:
        by_optimizer.setdefault(record.optimizer, {}).setdefault(record.step, []).append(record)
    panels: dict[tuple[str, int], Panel] = {}
    tables: dict[int, StepTable] = {}
    for optimizer, steps in by_optimizer.items():
        ordered = [record for step in sorted(steps) for record in steps[step]]
        tables[optimizer] = _step_table(ordered)
        signals = dict.fromkeys(block.signal for record in ordered for block in record.blocks)
        for signal in signals:
            rows = [(record.step, block) for record in ordered for block in record.blocks if block.signal == signal]
            panels[signal, optimizer] = panel_from_blocks(signal, optimizer, rows)
    return Recording(name, sites, panels, tables, facts, quality)


def panel_from_blocks(signal: str, optimizer: int, rows: list[tuple[int, Block]]) -> Panel:
    """Scatters blocks into one dense panel."""
    steps = np.unique(np.array([step for step, _ in rows], dtype=np.int64))
    sites = np.unique(np.concatenate([block.sites for _, block in rows])).astype(np.uint32)
    panel = empty_panel(signal, optimizer, steps, sites, histograms=_histogram_steps(rows))
    units = np.full((4, len(steps), len(sites)), NULL, dtype=np.int64)
    for step, block in rows:
        t, at = int(np.searchsorted(steps, step)), np.searchsorted(sites, block.sites)
        _scatter(panel, t, at, block)
        if block.units is not None:
            counts = block.units
            units[:, t, at] = [counts.units, counts.silent_units, counts.silent_delta_units, counts.saturated]
    if (units == NULL).all():
        return panel
    return replace(panel, units=units)


def empty_panel(
    signal: str, optimizer: int, steps: Steps, sites: npt.NDArray[np.uint32], *, histograms: Steps
) -> Panel:
    """Returns a panel of nulls; ``histograms`` names the steps that will have histograms."""
    shape = (len(steps), len(sites))
    at = np.searchsorted(steps, histograms).astype(np.int64)

    def counts() -> Integer:
        return np.full(shape, NULL, dtype=np.int64)

    def values() -> Float:
        return np.full(shape, np.nan)

    return Panel(
        signal,
        optimizer,
        steps,
        sites,
        stage=np.zeros(shape, dtype=np.uint8),
        n=counts(),
        l2=values(),
        sum=values(),
        absmax=values(),
        nan=counts(),
        inf=counts(),
        zeros=counts(),
        subnormal=counts(),
        histogram_steps=at,
        histogram=np.zeros((len(at), len(sites), BINS), dtype=np.uint32),
    )


def _histogram_steps(rows: list[tuple[int, Block]]) -> Steps:
    return np.unique(np.array([step for step, block in rows if block.statistics.histogram is not None], dtype=np.int64))


def _scatter(panel: Panel, t: int, at: npt.NDArray[np.intp], block: Block) -> None:
    values = block.statistics
    panel.stage[t, at] = STAGES.index(block.stage)
    for name in ("n", "l2", "sum", "absmax", "nan", "inf", "zeros", "subnormal"):
        column = getattr(values, name)
        if column is not None:
            getattr(panel, name)[t, at] = column
    if values.histogram is not None:
        panel.histogram[np.searchsorted(panel.histogram_steps, t), at] = values.histogram


def _step_table(records: list[StepRecord]) -> StepTable:
    """Joins the rows of steps; of a scalar given twice for a step the last value wins."""
    rows: dict[int, StepRecord] = {}
    facts: dict[int, dict[str, float]] = {}
    logged: dict[int, dict[str, float]] = {}
    for record in records:
        if not record.late or record.step not in rows:
            rows[record.step] = record
        facts.setdefault(record.step, {}).update(record.facts)
        logged.setdefault(record.step, {}).update(record.logged)
    steps = np.array(sorted(rows), dtype=np.int64)
    return StepTable(
        steps,
        np.array([rows[step].time for step in steps.tolist()]),
        np.array([rows[step].skipped for step in steps.tolist()], dtype=np.bool_),
        _columns(steps, facts),
        _columns(steps, logged),
        tuple(
            (step, name, value)
            for step in steps.tolist()
            for name, value in logged[step].items()
            if not np.isfinite(value)
        ),
    )


def _columns(steps: Steps, values: Mapping[int, Mapping[str, float]]) -> dict[str, Float]:
    names = sorted({name for row in values.values() for name in row})
    return {
        name: np.array([_finite_or_nan(values[step].get(name)) for step in steps.tolist()], dtype=np.float64)
        for name in names
    }


def _finite_or_nan(value: float | None) -> float:
    return float(value) if value is not None and np.isfinite(value) else float("nan")
