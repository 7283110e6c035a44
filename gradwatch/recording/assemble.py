"""From the files of a run to its recording: attempts cut where later ones begin, ranks merged, quality said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gradwatch.errors import RunError
from gradwatch.record import SiteTable
from gradwatch.recording.buckets import BucketPanel
from gradwatch.recording.evicted import stand_ins
from gradwatch.recording.gather import Gathered, gather
from gradwatch.recording.panels import Panel, StepTable
from gradwatch.recording.ranks import merge_ranks
from gradwatch.recording.series import Key
from gradwatch.store import manifest
from gradwatch.store.chunk import Chunk
from gradwatch.store.columns import StepRows
from gradwatch.store.events import read_events
from gradwatch.store.layout import ranks
from gradwatch.store.stored import StoredAttempt, read_attempts

Launch = tuple[str, int]


class Assembled(NamedTuple):
    """What a recording is made of, in the order of its fields."""

    name: str
    sites: SiteTable
    panels: Mapping[Key, Panel]
    step_tables: dict[int, StepTable]
    facts: dict[str, Any]
    quality: tuple[str, ...]
    open: bool
    buckets: dict[Key, BucketPanel]
    whole_from: dict[int, int]
    told: tuple[dict[str, Any], ...]


@dataclass(slots=True)
class _Names:
    """One site table and one list of optimizers over all attempts; ids are mapped by (signal, name)."""

    sites: SiteTable = field(default_factory=lambda: SiteTable(optimizers=()))
    _known: dict[int, npt.NDArray[np.uint32]] = field(default_factory=dict)

    def adopt(self, attempt: StoredAttempt) -> None:
        """Rewrites the ids of an attempt's rows."""
        table = attempt.sites
        if id(table) not in self._known:
            if not len(self.sites):
                self.sites.set_order(table.layers)
            self._known[id(table)] = np.array([self.sites.add(site) for site in table], dtype=np.uint32)
        sites, optimizers = self._known[id(table)], self._optimizers(table)
        for chunk in (*attempt.rows, *attempt.pins):
            chunk.rename(sites, optimizers)
        attempt.steps = [_mapped_steps(steps, optimizers) for steps in attempt.steps]
        attempt.stated_first = {int(optimizers[key]): step for key, step in attempt.stated_first.items()}

    def ids(self, attempt: StoredAttempt) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
        """Returns the ids here of an adopted attempt's sites and optimizers."""
        return self._known[id(attempt.sites)], self._optimizers(attempt.sites)

    def _optimizers(self, table: SiteTable) -> npt.NDArray[np.uint8]:
        for name in table.optimizers:
            if name not in self.sites.optimizers:
                self.sites.optimizers.append(name)
        return np.array([self.sites.optimizers.index(name) for name in table.optimizers], dtype=np.uint8)


def assemble(path: Path, rank: int | None) -> Assembled:
    """Reads a run; see ``recording.load_recording``."""
    content = manifest.read_run(path)
    present = [number for number, _ in ranks(path)]
    if rank is not None and rank not in present:
        raise RunError(f"{path} has no rank {rank}; it has {', '.join(map(str, present)) or 'none'}.")
    attempts = list(read_attempts(path, rank))
    names = _adopted(attempts)
    buckets, whole_from = stand_ins(attempts, names.ids, names.sites)
    by_rank = _gathered(attempts, names.sites)
    panels, disagreement = _merged(by_rank, names.sites)
    first = by_rank[min(by_rank)] if by_rank else Gathered()
    notes = [note for attempt in attempts for note in attempt.notes]
    notes += [note for found in by_rank.values() for note in found.notes]
    if rank is None:
        notes += [*disagreement, *_missing(attempts)]
    return Assembled(
        str(content.get("name") or path.name),
        names.sites,
        panels,
        first.step_tables,
        _facts(content, attempts),
        tuple(dict.fromkeys(notes)),
        any(attempt.alive for attempt in attempts),
        buckets,
        whole_from,
        tuple(_told(path, attempts)) if whole_from else (),
    )


def assemble_ranks(path: Path) -> dict[int, Assembled]:
    """Reads every rank by itself; see ``recording.per_rank``."""
    manifest.read_run(path)
    return {rank: assemble(path, rank) for rank, _ in ranks(path)}


def _told(path: Path, attempts: list[StoredAttempt]) -> Iterator[dict[str, Any]]:
    """Yields what was found while the run was written: the events of each attempt that tell of findings."""
    lowest = min(attempt.rank for attempt in attempts)
    for event in read_events(path, lowest):
        if isinstance(event.get("finding"), dict) or isinstance(event.get("analysis"), dict):
            yield event


def _adopted(attempts: list[StoredAttempt]) -> _Names:
    """Gives the rows of all attempts the ids of one table, and cuts them where a later attempt stands."""
    names = _Names()
    # The lowest rank's latest attempt names the sites first: its order of layers is the run's.
    for attempt in sorted(attempts, key=lambda attempt: (attempt.rank, -attempt.number)):
        names.adopt(attempt)
    _cut(attempts)
    _cut_unequal(attempts)
    return names


def _merged(by_rank: dict[int, Gathered], sites: SiteTable) -> tuple[Mapping[Key, Panel], list[str]]:
    if len(by_rank) == 1:
        return next(iter(by_rank.values())).panels, []
    return merge_ranks({number: found.panels for number, found in by_rank.items()}, sites)


def _gathered(attempts: list[StoredAttempt], sites: SiteTable) -> dict[int, Gathered]:
    by_rank: dict[int, Gathered] = {}
    numbers = sorted({attempt.rank for attempt in attempts})
    for rank in numbers:
        rows: list[Chunk] = []
        steps: list[StepRows] = []
        for attempt in attempts:
            if attempt.rank == rank:
                rows, steps = [*rows, *attempt.pins, *attempt.rows], steps + attempt.steps
                attempt.rows, attempt.steps, attempt.pins = [], [], []
        by_rank[rank] = gather(rows, steps, sites, stored=len(numbers) == 1)
        repeated = by_rank[rank].repeated
        if repeated:
            by_rank[rank].notes.append(
                f"rank {rank}: {repeated} rows were given again for the same step; the last stands."
            )
    return by_rank


def _cut(attempts: list[StoredAttempt]) -> None:
    """Cuts every attempt where a later launch begins: the later attempt wins from its first step on."""
    order: dict[Launch, tuple[int, int]] = {}
    firsts: dict[Launch, dict[int, int]] = {}
    for attempt in attempts:
        place = (attempt.number, attempt.launch[1])
        order[attempt.launch] = max(place, order.get(attempt.launch, place))
        known = firsts.setdefault(attempt.launch, {})
        for optimizer, first in attempt.first_steps().items():
            known[optimizer] = min(first, known.get(optimizer, first))
    for attempt in attempts:
        limit = np.full(256, np.iinfo(np.int64).max)
        for launch, first_steps in firsts.items():
            if (order[launch], launch) > (order[attempt.launch], attempt.launch):
                for optimizer, first in first_steps.items():
                    limit[optimizer] = min(limit[optimizer], first)
        attempt.until = limit
        _cut_attempt(attempt, limit)


def _cut_unequal(attempts: list[StoredAttempt]) -> None:
    """Leaves out steps that not all living ranks have flushed yet: their shards would not add up to the whole."""
    living = [attempt for attempt in attempts if attempt.alive and attempt.last is not None]
    if len({attempt.rank for attempt in living}) < 2:
        return
    limit = np.full(256, min(attempt.last for attempt in living if attempt.last is not None) + 1)
    for attempt in living:
        _keep_before(attempt, limit)


def _keep_before(attempt: StoredAttempt, limit: npt.NDArray[np.int64]) -> tuple[int, int | None]:
    """Cuts an attempt at a step of each optimizer; returns the number of rows cut and the first step of them."""
    cut, first = 0, None
    for chunk in (*attempt.rows, *attempt.pins):
        gone, begin = chunk.keep_before(limit)
        if begin is not None:
            first = begin if first is None else min(first, begin)
            cut += gone
    for i, steps in enumerate(attempt.steps):
        kept = steps["step"] < limit[steps["optimizer"]]
        if not kept.all():
            attempt.steps[i] = steps.take(np.flatnonzero(kept))
    return cut, first


def _cut_attempt(attempt: StoredAttempt, limit: npt.NDArray[np.int64]) -> None:
    cut, first = _keep_before(attempt, limit)
    if cut:
        attempt.notes.append(f"{attempt.label}: {cut} rows from step {first} on were replaced by a later attempt.")


def _mapped_steps(steps: StepRows, optimizers: npt.NDArray[np.uint8]) -> StepRows:
    return replace(steps, columns={**steps.columns, "optimizer": optimizers[steps["optimizer"]]})


def _facts(content: dict[str, Any], attempts: list[StoredAttempt]) -> dict[str, Any]:
    """Returns the manifest of the lowest rank's latest attempt, with what the run says of itself."""
    latest = min(attempts, key=lambda attempt: (attempt.rank, -attempt.number), default=None)
    stated = latest.meta.get("manifest") if latest is not None else None
    stated = stated if isinstance(stated, dict) else content.get("manifest")
    return {
        **(stated if isinstance(stated, dict) else {}),
        "created": content.get("created"),
        "world_size": _world_size(attempts),
        "attempts": len({attempt.number for attempt in attempts}),
        "status": "open" if latest and latest.alive else latest.meta.get("status") if latest else None,
    }


def _world_size(attempts: Iterable[StoredAttempt]) -> int:
    sizes = [attempt.meta.get("world_size") for attempt in attempts]
    return max((size for size in sizes if isinstance(size, int)), default=1)


def _missing(attempts: list[StoredAttempt]) -> Iterator[str]:
    """Yields a note on ranks that left nothing, and on those that ended before the others."""
    present = sorted({attempt.rank for attempt in attempts})
    size = min(_world_size(attempts), 1_000_000)
    lacking = sorted(set(range(size)) - set(present))
    if lacking and present:
        named = ", ".join(str(rank) for rank in lacking[:8]) + (", ..." if len(lacking) > 8 else "")
        yield f"rank {named} of {size} left no files; the others are analysed."
    last = {rank: _last(attempts, rank) for rank in present}
    furthest = max((step for step in last.values() if step is not None), default=None)
    for rank, step in last.items():
        alive = any(attempt.alive for attempt in attempts if attempt.rank == rank)
        if furthest is not None and not alive and step != furthest:
            where = "before its first step" if step is None else f"at step {step}"
            yield f"rank {rank} ended {where}; the run at {furthest}."


def _last(attempts: list[StoredAttempt], rank: int) -> int | None:
    return max((step for a in attempts if a.rank == rank and (step := a.last) is not None), default=None)
