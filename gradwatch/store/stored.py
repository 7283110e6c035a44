"""Reading a run's attempts: their manifests, site tables and rows, while they are written and afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from gradwatch.errors import RunError
from gradwatch.record import SiteTable
from gradwatch.statistics import Integer
from gradwatch.store import manifest, process
from gradwatch.store.chunk import Chunk
from gradwatch.store.columns import Column, StepRows
from gradwatch.store.layout import (
    META_FILE,
    PIN,
    SCHEMA_VERSION,
    STEPS,
    attempt_name,
    attempts,
    data_files,
    ranks,
)
from gradwatch.store.read import BucketFile, Part, read_file
from gradwatch.store.sitefile import read_sites

_LISTINGS: Final = 20
_KNOWN_NOTES: Final = ("refused", "refused_steps", "failures")


@dataclass(slots=True)
class StoredAttempt:
    """One attempt as read.

    Attributes:
        rank, number: which attempt.
        meta: its manifest, empty when that is damaged.
        sites: its site table, empty when that is damaged.
        rows, steps: in order of their serials; site ids are those of ``sites``.
        pins: rows of sites out of files that were evicted.
        buckets: its roll-ups, by level and serial.
        until: optimizer to the step from which a later attempt stands, shape [256], once that is known.
        evicted: whether rows of sites of it were evicted.
        notes: what a reader should know of it, a sentence each.
        alive: whether its process still writes it.
        last: the last step it has anything of, also after its rows were handed on.
        stated_first: optimizer to its first step, by the manifest.
    """

    rank: int
    number: int
    meta: Mapping[str, Any]
    sites: SiteTable = field(default_factory=SiteTable)
    rows: list[Chunk] = field(default_factory=list)
    steps: list[StepRows] = field(default_factory=list)
    pins: list[Chunk] = field(default_factory=list)
    buckets: list[BucketFile] = field(default_factory=list)
    until: Integer | None = None
    evicted: bool = False
    notes: list[str] = field(default_factory=list)
    alive: bool = False
    last: int | None = None
    stated_first: dict[int, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Names the attempt in a sentence."""
        return f"rank {self.rank} attempt {self.number}"

    @property
    def launch(self) -> tuple[str, int]:
        """The launch it belongs to: attempts of different ranks with the same launch ran together."""
        launch_id = str(self.meta.get("launch_id", ""))
        restart = self.meta.get("restart", 0)
        return (launch_id, restart if isinstance(restart, int) else 0) if launch_id else ("", self.number)

    def first_steps(self) -> dict[int, int]:
        """Returns the first step of each optimizer, also when its rows were evicted since."""
        found = dict(self.stated_first)
        for step, optimizer in self._steps():
            for key in np.unique(optimizer).tolist():
                first = int(step[optimizer == key].min())
                found[key] = min(first, found.get(key, first))
        return found

    def last_step(self) -> int | None:
        """Returns the last step in its rows, or None."""
        return max((int(step.max()) for step, _ in self._steps() if len(step)), default=None)

    def _steps(self) -> Iterator[tuple[Column, Column]]:
        grids = [grid for chunk in self.rows for grid in chunk.grids]
        yield from ((grid.steps, np.full(len(grid.steps), grid.optimizer)) for grid in grids)
        yield from ((steps["step"], steps["optimizer"]) for steps in self.steps)


def read_attempts(run: Path, rank: int | None = None) -> Iterator[StoredAttempt]:
    """Yields the attempts of a run by rank and number.

    Raises:
        RunError: when one was written by a newer release.
    """
    tables: dict[str, SiteTable] = {}
    for number_of_rank, directory_of_rank in ranks(run):
        if rank is None or rank == number_of_rank:
            found: list[StoredAttempt] = []
            for number, directory in attempts(directory_of_rank):
                found.append(_read_attempt(run, number_of_rank, number, directory, tables))
            yield from _with_evictions(found)


def _with_evictions(found: list[StoredAttempt]) -> list[StoredAttempt]:
    """Marks the attempts of a rank of which rows were evicted, by themselves or by a later one."""
    for attempt in found:
        stem = f"{attempt_name(attempt.number)}/L0"
        stated = [other.meta.get("evicted") for other in found]
        through = [evicted.get("through") for evicted in stated if isinstance(evicted, Mapping)]
        attempt.evicted = any(isinstance(names, Mapping) and stem in names for names in through)
    return found


def _read_attempt(run: Path, rank: int, number: int, directory: Path, tables: dict[str, SiteTable]) -> StoredAttempt:
    meta, problem = _read_meta(directory)
    attempt = StoredAttempt(rank, number, meta)
    if problem:
        attempt.notes.append(
            f"{META_FILE} of {attempt.label} is damaged ({problem}); its data files are read without it."
        )
    # Asked before the files are read: a process that ends in between leaves nothing unread.
    attempt.alive = process.alive(meta, directory / META_FILE)
    parts = _read_parts(directory, meta)
    # Read again: it may have been closed meanwhile.
    attempt.meta = _read_meta(directory)[0] or meta
    attempt.sites = _site_table(run, attempt, parts, tables)
    for part in parts:
        attempt.notes.extend(f"{attempt.label}: {problem}." for problem in part.problems)
        (attempt.pins if part.file.kind == PIN else attempt.rows).extend(part.chunks)
        attempt.steps.extend(part.steps)
    attempt.buckets = _buckets(parts)
    _check_rows(attempt)
    attempt.stated_first = _stated_first(attempt)
    if attempt.alive:
        _cut_unfinished(attempt)
    attempt.last = attempt.last_step()
    attempt.notes.extend(_notes(attempt, torn=sum(part.torn for part in parts)))
    return attempt


def _read_meta(directory: Path) -> tuple[dict[str, Any], str]:
    try:
        meta = manifest.read(directory / META_FILE)
    except (OSError, ValueError) as error:
        return {}, str(error)
    version = meta.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RunError(
            f"{directory} was written by gradwatch schema {version}; this release reads {SCHEMA_VERSION}; "
            "install a newer gradwatch."
        )
    return meta, ""


def _read_parts(directory: Path, meta: Mapping[str, Any]) -> list[Part]:
    """Reads the data files by serial; lists them again when one was sealed or evicted meanwhile.

    Rows of steps are read first: they are written last, so that a step found there has all its rows.
    """
    checksums = meta.get("sealed", {})
    parts: dict[tuple[int, str], Part] = {}
    for _ in range(_LISTINGS):
        missed = False
        for file in sorted(data_files(directory), key=lambda file: (file.kind != STEPS, file.serial)):
            if (file.serial, file.kind) not in parts:
                try:
                    checksum = checksums.get(file.name) if isinstance(checksums, Mapping) else None
                    parts[file.serial, file.kind] = read_file(directory, file, checksum, trust=True)
                except FileNotFoundError:
                    missed = True
        if not missed:
            break
    return [parts[key] for key in sorted(parts)]


def _buckets(parts: list[Part]) -> list[BucketFile]:
    """Returns the roll-ups by level and serial, less the files that a later one of their level replaces."""
    gone = {
        (part.file.kind, serial)
        for part in parts
        if part.buckets
        for serial in range(max(1, part.replaces), part.file.serial)
    }
    whole = [part for part in parts if part.buckets and (part.file.kind, part.file.serial) not in gone]
    return [part.buckets[0] for part in sorted(whole, key=lambda part: (part.file.kind, part.file.serial))]


def _site_table(run: Path, attempt: StoredAttempt, parts: list[Part], tables: dict[str, SiteTable]) -> SiteTable:
    """Returns the site table in force; when that is damaged, the largest that a data file names."""
    stated = str(attempt.meta.get("sites", ""))
    names = dict.fromkeys(part.sites for part in parts)
    found = _readable(run, attempt, [stated], tables) or _readable(run, attempt, [*names], tables)
    return max(found, key=len, default=SiteTable())


def _readable(run: Path, attempt: StoredAttempt, names: list[str], tables: dict[str, SiteTable]) -> list[SiteTable]:
    for name in filter(None, names):
        try:
            if name not in tables:
                tables[name] = read_sites(run, name)
        except (OSError, ValueError) as error:
            attempt.notes.append(f"{attempt.label}: the site table {name[:64]} is missing or damaged ({error}).")
    return [tables[name] for name in names if name in tables]


def _stated_first(attempt: StoredAttempt) -> dict[int, int]:
    stated = attempt.meta.get("first_steps")
    if not isinstance(stated, Mapping):
        return {}
    known = {str(i): i for i in range(len(attempt.sites.optimizers))}
    return {known[key]: step for key, step in stated.items() if key in known and isinstance(step, int) and step >= 0}


def _check_rows(attempt: StoredAttempt) -> None:
    """Leaves out rows that name no site, optimizer or step, and counts them."""
    refused = 0
    optimizers = len(attempt.sites.optimizers)
    for chunk in (*attempt.rows, *attempt.pins):
        refused += chunk.keep_known(len(attempt.sites), optimizers)
    for i, steps in enumerate(attempt.steps):
        known = (steps["optimizer"] < optimizers) & (steps["step"] >= 0)
        if not known.all():
            refused += int(np.count_nonzero(~known))
            attempt.steps[i] = steps.take(np.flatnonzero(known))
    if refused:
        attempt.notes.append(f"{attempt.label}: {refused} rows name no known site or step and are left out.")


def _cut_unfinished(attempt: StoredAttempt) -> None:
    """Leaves out rows of steps that are still being written."""
    last: dict[int, int] = {}
    for steps in attempt.steps:
        for optimizer in np.unique(steps["optimizer"]).tolist():
            step = int(steps["step"][steps["optimizer"] == optimizer].max())
            last[optimizer] = max(step, last.get(optimizer, step))
    limit = np.full(256, 0, dtype=np.int64)
    limit[list(last)] = [step + 1 for step in last.values()]
    for chunk in attempt.rows:
        chunk.keep_before(limit)


def _notes(attempt: StoredAttempt, torn: int) -> Iterator[str]:
    meta, label = attempt.meta, attempt.label
    if torn and not attempt.alive:
        yield f"{label}: the last {torn} bytes are of a batch that was cut off; its steps are lost."
    if meta and not meta.get("closed") and not attempt.alive:
        yield f"{label} was not closed: its process was killed or lost; what it flushed is here."
    for sentence in _texts(meta.get("degraded")):
        yield f"{label} was {sentence}."
    if meta.get("lost_steps"):
        yield f"{label}: {meta['lost_steps']} steps could not be written and are lost."
    for sentence in _texts(meta.get("damaged")):
        yield f"{label}: {sentence}."
    if meta.get("events_refused"):
        yield f"{label}: {meta['events_refused']} events beyond the share of max_bytes for events were not written."
    if meta.get("pins_refused"):
        yield f"{label}: the rows around some findings were evicted, too: their share of max_bytes is full."
    evicted = meta.get("evicted")
    if isinstance(evicted, Mapping):
        yield from _evictions(evicted, label)
    yield from _recorder_notes(meta.get("notes"), label)


def _evictions(evicted: Mapping[str, Any], label: str) -> Iterator[str]:
    advice = "to keep within max_bytes; raise max_bytes or choose fewer signals to keep more."
    if evicted.get("rows"):
        yield (
            f"{label}: {evicted['rows']} rows up to step {evicted.get('last_step')} were evicted {advice} "
            "Roll-ups over windows of steps stand in for them."
        )
    last = evicted.get("last_step_row")
    if isinstance(last, int) and last >= 0:
        yield f"{label}: what was logged up to step {last} was evicted {advice}"


def _recorder_notes(notes: object, label: str) -> Iterator[str]:
    if not isinstance(notes, Mapping):
        return
    refused = notes.get("refused")
    if isinstance(refused, Mapping) and refused:
        what = ", ".join(f"{count} of {signal}" for signal, count in refused.items())
        between = notes.get("refused_steps")
        span = f" between steps {between[0]} and {between[-1]}" if isinstance(between, list) and between else ""
        yield f"{label}: the writer could not keep up and refused {what}{span}."
    for sentence in _texts(notes.get("failures")):
        yield f"{label}: {sentence}."
    for key, value in notes.items():
        if key not in _KNOWN_NOTES and value:
            for sentence in _texts(value):
                yield f"{label}: {sentence}" if " " in sentence else f"{label}: {key}: {sentence}"


def _texts(value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    return [] if value is None else [str(value)]
