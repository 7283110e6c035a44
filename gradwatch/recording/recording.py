"""The read side that rules and reporters receive: the sites of a run and their series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gradwatch.record import Block, SiteTable, StepRecord
from gradwatch.recording.buckets import BucketPanel
from gradwatch.recording.panels import InParts, Panel, Steps, StepTable
from gradwatch.recording.replay import Replay
from gradwatch.statistics import Float

Key = tuple[str, int]


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
        buckets: (signal, optimizer index) to what stands in for steps whose rows were evicted.
        whole_from: optimizer index to the first step from which every captured step is there; empty when all are.
            Before it the panels hold only what was kept around the onsets of findings.
        told: events of what was found while the run was written, when rows were evicted since.
    """

    name: str
    sites: SiteTable
    panels: Mapping[tuple[str, int], Panel]
    step_tables: Mapping[int, StepTable]
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    quality: tuple[str, ...] = ()
    open: bool = False
    buckets: Mapping[tuple[str, int], BucketPanel] = field(default_factory=lambda: MappingProxyType({}))
    whole_from: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    told: tuple[Mapping[str, Any], ...] = ()

    def panel(self, signal: str, optimizer: int = 0) -> Panel | None:
        """Returns the panel of a signal, or None when none was captured."""
        return self.panels.get((signal, optimizer))

    def steps(self, optimizer: int = 0) -> Steps:
        """Returns the steps of an optimizer, ascending, shape [t]."""
        table = self.step_tables.get(optimizer)
        return np.zeros(0, dtype=np.int64) if table is None else table.steps

    def records(self, optimizer: int) -> Iterator[StepRecord]:
        """Replays the steps of one optimizer in order, as they were handed to the recorder.

        Begins where every captured step is there: no bucket and no lone pinned step is taken for a step of a series.
        """
        table = self.step_tables.get(optimizer)
        if table is None:
            return
        begin = self.whole_from.get(optimizer, 0)
        replay = _Replay(self._parts(optimizer, begin))
        bad: dict[int, dict[str, float]] = {}
        for step, name, value in table.nonfinite_logged:
            bad.setdefault(step, {})[name] = value
        for t in range(int(np.searchsorted(table.steps, begin)), len(table.steps)):
            step = int(table.steps[t])
            yield StepRecord(
                step,
                optimizer,
                float(table.time[t]),
                bool(table.skipped[t]),
                replay.blocks(step),
                _at(table.facts, t),
                {**_at(table.logged, t), **bad.get(step, {})},
            )

    def _parts(self, optimizer: int, begin: int) -> Iterator[Mapping[Key, Panel]]:
        """Yields the panels of an optimizer in memory, some steps at a time, in order."""
        if isinstance(self.panels, InParts):
            return self.panels.parts(optimizer, begin)
        return iter([{key: panel for key, panel in self.panels.items() if key[1] == optimizer}])


class _Replay:
    """The blocks of all signals at ascending steps."""

    def __init__(self, parts: Iterator[Mapping[Key, Panel]]) -> None:
        self._parts = parts
        self._panels: list[tuple[dict[int, int], Replay]] = []
        self._last = -1

    def blocks(self, step: int) -> tuple[Block, ...]:
        """Returns what was captured at a step."""
        while step > self._last and (part := next(self._parts, None)) is not None:
            panels = [panel for panel in part.values() if len(panel.steps)]
            self._panels = [({s: row for row, s in enumerate(p.steps.tolist())}, Replay(p)) for p in panels]
            self._last = max((int(panel.steps[-1]) for panel in panels), default=-1)
        found: list[Block] = []
        for rows, replay in self._panels:
            row = rows.get(step)
            if row is not None:
                found.extend(replay.blocks(row))
        return tuple(found)


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
    from gradwatch.recording.gather import gather  # noqa: PLC0415  only who reads or builds runs pays for it
    from gradwatch.store.chunk import chunk_of  # noqa: PLC0415
    from gradwatch.store.columns import rows_of, step_rows_of  # noqa: PLC0415

    every = list(records)
    gathered = gather([chunk_of(rows_of(every))], [step_rows_of(every)], sites)
    return Recording(name, sites, gathered.panels, gathered.step_tables, facts, quality)


def load_recording(path: Path, rank: int | None = None) -> Recording:
    """Reads a run from its directory, also while it is written.

    Args:
        path: the run's directory.
        rank: read this rank alone; by default the ranks are merged by the stage of their rows.

    Raises:
        RunError: when the path is missing, not a run, damaged in its manifest, or of a newer release.
    """
    # Arrow takes a quarter of a second to import: only who reads files pays for it.
    from gradwatch.recording.assemble import assemble  # noqa: PLC0415

    return Recording(*assemble(Path(path), rank))


def per_rank(path: Path) -> dict[int, Recording]:
    """Reads every rank of a run by itself: the rank's number to its recording.

    Raises:
        RunError: as ``load_recording``.
    """
    from gradwatch.recording.assemble import assemble_ranks  # noqa: PLC0415

    return {rank: Recording(*assembled) for rank, assembled in assemble_ranks(Path(path)).items()}
