"""An attempt that this process writes: its hot files, sealing, eviction and manifest. Raises OSError on faults."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gradwatch.record import SiteTable
from gradwatch.store import append, files, manifest, seal
from gradwatch.store.attempt import Claim
from gradwatch.store.bucketfile import bucket_bytes
from gradwatch.store.buckets import WIDTHS, BucketRows
from gradwatch.store.budget import Budget, Evicted, Stored, extent
from gradwatch.store.columns import Rows, StepRows
from gradwatch.store.layout import (
    EVENTS_FILE,
    HOT_BYTES,
    HOT_ROWS,
    HOT_SECONDS,
    LATEST,
    LEVELS,
    META_FILE,
    PIN,
    ROWS,
    STEPS,
    DataFile,
    hot_name,
    sealed_name,
)
from gradwatch.store.pins import MAX_PINS, PIN_STEPS, pinned_bytes
from gradwatch.store.read import read_file
from gradwatch.store.rollups import Rollups
from gradwatch.store.sitefile import write_sites
from gradwatch.store.thin import thin

EVENTS_SHARE: Final = 0.05
"""Part of the budget that events may take."""

SECONDS_PER_ROW: Final = 3e-6
"""What sealing is taken to cost before the first seal of a process has been timed."""


class HotFile:
    """One growing file: whole messages only, also after a write that failed midway."""

    def __init__(self, path: Path, kind: str) -> None:
        self.size = 0
        self.torn = False
        self._descriptor = files.create(path)
        try:
            self.append(append.head(kind))
        except OSError:
            self.close()
            files.remove(path)
            raise

    def append(self, data: bytes) -> None:
        """Appends a message by one write; cuts off what a failed write left."""
        if os.fstat(self._descriptor).st_nlink == 0:
            self.torn = True
            raise OSError(errno.ENOENT, "the run's directory was removed")
        try:
            files.write_all(self._descriptor, data)
        except OSError:
            self._cut()
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Puts what was written on the disk itself."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _cut(self) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
        except OSError:
            self.torn = True


class OpenAttempt:
    """Writes one attempt."""

    def __init__(self, claim: Claim, sites: SiteTable, max_bytes: int) -> None:
        self.run = claim.run
        self.directory = claim.directory
        self.meta = claim.meta
        self._table = sites
        self._table_state: tuple[int, int] | None = None
        self._budget = Budget(claim.directory.parent, max_bytes)
        self._hot_limit = min(HOT_BYTES, max_bytes // 16)
        self._events_limit = int(EVENTS_SHARE * max_bytes)
        self._hot: dict[str, HotFile] = {}
        self._serial = 1
        self._rows = 0
        self._since = time.monotonic()
        self._unsealed: list[int] = []
        self._seconds_per_row = SECONDS_PER_ROW
        self._rollups = Rollups()
        self._fed = 0
        self._level_serial: dict[str, int] = {}
        self._saved: dict[str, Any] = dict(claim.meta)

    def name_sites(self) -> None:
        """Writes the site table if it has grown, and names it in the manifest."""
        self._write_sites()
        self.save()

    def encode(self, kind: str, rows: Rows | StepRows) -> bytes:
        """Returns rows as a message; writes the site table first when it has grown."""
        self._write_sites()
        if kind == ROWS and isinstance(rows, Rows):
            self._note_first_steps(rows)
        self.save()
        return append.encode(rows, str(self.meta["sites"]))

    def append(self, kind: str, data: bytes, rows: int) -> None:
        """Appends a message to the hot file of its kind."""
        if "sites" not in self.meta:
            self.name_sites()
        if kind in self._hot and self._hot[kind].torn:
            self._next_serial()
        if kind not in self._hot:
            self._hot[kind] = HotFile(self.directory / hot_name(kind, self._serial), kind)
        self._hot[kind].append(data)
        self._rows += rows

    def due(self, times: int = 1) -> bool:
        """Tells whether the hot files are old enough, or so many times large enough, to be sealed."""
        size = sum(file.size for file in self._hot.values())
        old = time.monotonic() - self._since >= HOT_SECONDS
        return bool(self._hot) and (size >= times * self._hot_limit or self._rows >= times * HOT_ROWS or old)

    def sealing_seconds(self) -> float:
        """Estimates how long sealing the hot files would take."""
        return self._rows * self._seconds_per_row

    def seal(self) -> None:
        """Seals the hot files, and those that could not be sealed before."""
        began, rows = time.monotonic(), self._rows
        self._next_serial()
        while self._unsealed:
            for kind in (ROWS, STEPS):
                self._seal_file(kind, self._unsealed[0])
            self._unsealed.pop(0)
        self._write_due_levels()
        self.save()
        if rows:
            self._seconds_per_row = max((time.monotonic() - began) / rows, self._seconds_per_row / 2)

    def finish(self) -> None:
        """Seals, and writes the windows of all levels that are still open."""
        self.seal()
        for level in LEVELS:
            self._write_level(level, everything=True)

    def roll_up(self, buckets: BucketRows, finest: str) -> None:
        """Takes buckets of steps whose rows are not kept, as if they had been sealed and evicted."""
        self._write_sites()
        self._rollups.feed_buckets(buckets, finest)
        last = int(buckets["step_hi"].max())
        gone = Evicted(self.directory / sealed_name(ROWS, 0), ROWS, int(buckets["samples"].sum()), last)
        self.meta["evicted"] = gone.add_to(self.meta.get("evicted"))
        self._write_due_levels()

    def _write_due_levels(self) -> None:
        for level in LEVELS:
            if self._rollups.due(level):
                self._write_level(level, everything=False)

    def pin(self, step: int) -> None:
        """Keeps the rows around a step when their file is evicted."""
        pins = self.meta.get("pins", [])
        if step not in pins and len(pins) < MAX_PINS:
            self.meta["pins"] = sorted([*pins, step])

    def save(self, **changes: Any) -> None:
        """Replaces the attempt's manifest when something in it has changed."""
        self.meta.update(changes)
        if self.meta != self._saved:
            files.replace_whole(self.directory / META_FILE, manifest.encode(self.meta))
            self._saved = {**self.meta}

    def heartbeat(self) -> None:
        """Shows that the process lives, and syncs the hot files."""
        os.utime(self.directory / META_FILE)
        self.sync()

    def sync(self) -> None:
        """Puts what was written on the disk itself."""
        for file in self._hot.values():
            file.sync()

    def write_event(self, event: Mapping[str, Any]) -> None:
        """Appends one line to the events, synced."""
        line = manifest.line(event)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.directory / EVENTS_FILE, flags, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size + len(line) > self._events_limit:
                self.meta["events_refused"] = self.meta.get("events_refused", 0) + 1
                return
            try:
                files.write_all(descriptor, line)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Closes all files."""
        for file in self._hot.values():
            file.close()
        self._hot = {}

    def gone(self) -> bool:
        """Tells whether the attempt's directory was removed."""
        return not self.directory.is_dir()

    def _write_sites(self) -> None:
        state = (self._table.version, len(self._table.optimizers))
        if state != self._table_state:
            self.meta["sites"] = write_sites(self.run, self._table)
            self._table_state = state

    def _note_first_steps(self, rows: Rows) -> None:
        # A new mapping, so that the saved manifest keeps the old one.
        known = dict(self.meta.get("first_steps", {}))
        for optimizer in sorted({*rows["optimizer"].tolist()}):
            first = int(rows["step"][rows["optimizer"] == optimizer].min())
            known[str(optimizer)] = min(first, known.get(str(optimizer), first))
        self.meta["first_steps"] = known

    def _next_serial(self) -> None:
        if self._hot:
            self.release()
            self._unsealed.append(self._serial)
            self._serial += 1
        self._rows, self._since = 0, time.monotonic()

    def _seal_file(self, kind: str, serial: int) -> None:
        hot = self.directory / hot_name(kind, serial)
        if not hot.exists():
            return
        part = read_file(self.directory, DataFile(serial, kind, sealed=False))
        if part.problems:
            self.meta["damaged"] = [*self.meta.get("damaged", []), *part.problems]
        rows = part.chunks[0].rows() if part.chunks else part.steps[0] if part.steps else None
        if isinstance(rows, Rows) and serial > self._fed:
            self._rollups.feed(rows)
            self._fed = serial
        if rows is not None:
            self._place(kind, serial, seal.sealed_bytes(rows, str(self.meta["sites"])))
        os.unlink(hot)

    def _place(self, kind: str, serial: int, data: bytes) -> None:
        """Puts a sealed file in place, after room was made for it."""
        self._make_room(len(data))
        self._put(self.directory / sealed_name(kind, serial), data)

    def _put(self, path: Path, data: bytes) -> None:
        files.replace_whole(path, data)
        self._budget.add(path, len(data))
        if path.parent == self.directory:
            self.meta["sealed"] = {**self.meta.get("sealed", {}), path.name: seal.checksum(data)}

    def _write_level(self, level: str, *, everything: bool, room: bool = True) -> None:
        """Writes what waits of a level as its next file."""
        rows = self._rollups.take(level, everything=everything)
        if len(rows):
            serial = self._level_serial.get(level, 0) + 1
            data = bucket_bytes(rows, str(self.meta["sites"]), width=WIDTHS[level], replaces=serial)
            if room:
                self._make_room(len(data))
            self._put(self.directory / sealed_name(level, serial), data)
            self._level_serial[level] = serial
        self._rollups.written(level, everything=everything)

    def _make_room(self, size: int) -> None:
        incoming = size + LATEST * self._hot_limit
        while (victim := self._budget.next_victim(incoming)) is not None:
            self._keep_coarser(victim)
            if victim.kind == ROWS:
                self._keep_pins(victim.path)
            self._forget(self._budget.unlink(victim))
        while self._budget.over(LEVELS[-1]) and thin(self._budget, self._put, self._drop):
            pass

    def _keep_coarser(self, victim: Stored) -> None:
        """Writes the next coarser level through the last step of a file that is to be evicted."""
        order = (ROWS, *LEVELS)
        if victim.kind in order[:-1] and victim.path.parent == self.directory:
            coarser = order[order.index(victim.kind) + 1]
            unwritten = self._rollups.unwritten_from(coarser)
            if unwritten is not None and unwritten <= extent(victim.path)[1]:
                self._write_level(coarser, everything=True, room=False)

    def _keep_pins(self, path: Path) -> None:
        """Keeps the rows around the onsets of findings out of a file that is to be evicted."""
        pins = self.meta.get("pins", [])
        first, last = extent(path)
        if any(first - PIN_STEPS <= pin <= last + PIN_STEPS for pin in pins):
            serial = int(path.stem.partition("-")[2])
            data = pinned_bytes(path, pins)
            if data and self._budget.over(PIN, len(data)):
                self.meta["pins_refused"] = self.meta.get("pins_refused", 0) + 1
            elif data:
                self._put(path.with_name(sealed_name(PIN, serial)), data)

    def _forget(self, evicted: Evicted) -> None:
        self._drop_checksum(evicted.path)
        self.meta["evicted"] = evicted.add_to(self.meta.get("evicted"))

    def _drop(self, path: Path) -> None:
        """Unlinks a file whose rows another one holds now."""
        files.remove(path)
        self._budget.forget(path)
        self._drop_checksum(path)

    def _drop_checksum(self, path: Path) -> None:
        if path.parent == self.directory:
            sealed = self.meta.get("sealed", {})
            self.meta["sealed"] = {name: crc for name, crc in sealed.items() if name != path.name}
