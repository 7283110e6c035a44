"""The sink that writes a run. All methods but ``event`` run on the recorder's writer thread."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gradwatch.record import SiteTable, StepRecord
from gradwatch.store import attempt, process
from gradwatch.store.columns import rows_of, step_rows_of
from gradwatch.store.layout import FLUSH_SECONDS, FLUSH_STEPS, LATEST, ROWS, STEPS

if TYPE_CHECKING:
    from gradwatch.store.buckets import BucketRows
    from gradwatch.store.opened import OpenAttempt

log = logging.getLogger("gradwatch")

RETRY_SECONDS: Final = 1.0
WAITING_BYTES: Final = 32 * 2**20
NOTES_SECONDS: Final = 5.0
SEAL_AT_CLOSE_SECONDS: Final = 1.0
EVENTS: Final = 10_000
_ROW_BYTES: Final = 128


class StoreWriter:
    """Writes the records of a run into its directory; degrades on faults of the disk, and never raises for them.

    Records wait until 64 steps were captured or the oldest is 0.5 s old, and are then written by one call; what was
    written survives the end of the process. While the disk refuses, records wait in memory up to ``WAITING_BYTES``;
    then the oldest are dropped and counted, and writing goes on when space returns.

    Args:
        run_dir: the run's directory, new, empty, or of an earlier attempt.
        sites: the table the adapter adds to.
        manifest: plain data for ``run.json``: versions, schedule, ...
        rank, world_size: of this process in its launch.
        launch_id: the launcher's id, "" without one; ranks of one launch share the run.
        restart: how often the launcher restarted.
        max_bytes: budget of the rank's directory.
        notes: gives what the recorder refused and what failed, for the attempt's manifest.

    Raises:
        RunError: when ``run_dir`` is a file, holds something else, or is of a newer release.
    """

    def __init__(
        self,
        run_dir: Path,
        sites: SiteTable,
        manifest: Mapping[str, Any],
        *,
        rank: int = 0,
        world_size: int = 1,
        launch_id: str = "",
        restart: int = 0,
        max_bytes: int = 512 * 2**20,
        notes: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._run_dir = Path(run_dir)
        attempt.check(self._run_dir)
        self._sites = sites
        self._manifest = manifest
        self._identity = {"rank": rank, "world_size": world_size, "launch_id": launch_id, "restart": restart}
        self._max_bytes = max_bytes
        self._notes = notes
        self._attempt: OpenAttempt | None = None
        self._waiting: deque[StepRecord] = deque()
        self._waiting_bytes = 0
        self._waiting_since = 0.0
        self._captured = 0
        self._frames: deque[tuple[str, bytes, int]] = deque()
        self._events: deque[Mapping[str, Any]] = deque(maxlen=EVENTS)
        self._pins: deque[int] = deque(maxlen=EVENTS)
        self._began = time.monotonic()
        self._pid = os.getpid()
        self._fault: str | None = None
        self._faults: list[str] = []
        self._lost = 0
        self._retry_at = 0.0
        self._beat_at = 0.0
        self._notes_at = 0.0
        self._last_step = 0

    @property
    def run_dir(self) -> Path:
        """The run's directory; another one than asked for when a living process writes there."""
        return self._run_dir

    @property
    def degraded(self) -> str | None:
        """Why and since which step nothing can be written, or None."""
        return self._fault

    def open(self) -> None:
        """Claims the run and an attempt, whole on disk when this returns."""
        self._pid = os.getpid()
        self._began = time.monotonic()
        self._guarded(lambda: self._opened().name_sites())

    def __call__(self, record: StepRecord) -> None:
        """Takes one record."""
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting.append(record)
        self._waiting_bytes += _weight(record)
        self._captured += not record.late
        self._last_step = record.step
        if self._fault is not None:
            self._drop_oldest()
        elif self._captured >= FLUSH_STEPS:
            self.flush()
            self._seal_if_due(times=LATEST)

    def event(self, event: Mapping[str, Any]) -> None:
        """Takes a line for ``events.jsonl``; callable from every thread, written at the next tick."""
        self._events.append({"time": round(time.monotonic() - self._began, 6), **event})

    def pin(self, step: int) -> None:
        """Keeps every row within 64 steps of this one, also when its file is evicted; callable from every thread."""
        self._pins.append(step)

    def roll_up(self, buckets: BucketRows, finest: str) -> None:
        """Takes buckets of steps whose rows are not kept, for the level ``finest`` and all coarser ones."""
        self._guarded(lambda: self._opened().roll_up(buckets, finest))

    def tick(self) -> None:
        """Does what is due by time."""
        now = time.monotonic()
        if self._fault is not None:
            if now >= self._retry_at:
                self.flush()
            return
        if self._events or (self._waiting and now - self._waiting_since >= FLUSH_SECONDS):
            self.flush()
        if now >= self._beat_at:
            self._beat_at = now + process.HEARTBEAT_SECONDS
            self._guarded(lambda: self._opened().heartbeat())
        self._seal_if_due()

    def flush(self) -> bool:
        """Writes everything that waits; tells whether that succeeded."""
        return self._guarded(self._write)

    def close(self, status: str = "ok") -> None:
        """Writes what waits, seals and rolls up if that takes less than a second, and marks the attempt closed."""
        self.flush()
        opened = self._attempt
        if opened is None:
            return
        if self._fault is None and opened.sealing_seconds() < SEAL_AT_CLOSE_SECONDS:
            self._guarded(opened.finish)
        self._guarded(lambda: opened.save(closed=True, **self._state(status)))
        self._guarded(opened.sync)
        opened.release()
        self._attempt = None

    def _seal_if_due(self, times: int = 1) -> None:
        if self._attempt is not None and self._fault is None and self._attempt.due(times):
            self._guarded(self._attempt.seal)

    def _guarded(self, work: Callable[[], object]) -> bool:
        """Runs work that may meet a fault of the disk; nothing is written from a forked child."""
        if os.getpid() != self._pid:
            return False
        try:
            work()
        except OSError as error:
            self._degrade(error)
            return False
        return True

    def _write(self) -> None:
        opened = self._opened()
        self._append(opened)
        if self._waiting:
            self._encode(opened)
            self._append(opened)
        while self._pins:
            opened.pin(self._pins.popleft())
        while self._events:
            opened.write_event(self._events[0])
            self._events.popleft()
        if self._fault is not None:
            self._recover(opened)
        if time.monotonic() >= self._notes_at:
            self._notes_at = time.monotonic() + NOTES_SECONDS
            opened.save(**self._state("ok"))

    def _append(self, opened: OpenAttempt) -> None:
        while self._frames:
            opened.append(*self._frames[0])
            self._frames.popleft()

    def _encode(self, opened: OpenAttempt) -> None:
        records = list(self._waiting)
        rows, steps = rows_of(records), step_rows_of(records)
        frames = [(ROWS, opened.encode(ROWS, rows), len(rows))] if len(rows) else []
        frames.append((STEPS, opened.encode(STEPS, steps), 0))
        self._frames.extend(frames)
        self._waiting.clear()
        self._waiting_bytes = self._captured = 0

    def _opened(self) -> OpenAttempt:
        """Returns the attempt, claiming one when there is none or its directory was removed."""
        if self._attempt is not None and self._fault is not None and self._attempt.gone():
            self._attempt.release()
            self._attempt = None
        if self._attempt is None:
            self._attempt = self._claimed()
        return self._attempt

    def _claimed(self) -> OpenAttempt:
        # Arrow takes a quarter of a second to import: here, on the writer thread, it delays nobody.
        from gradwatch.store.opened import OpenAttempt  # noqa: PLC0415

        started = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"launch_id": self._identity["launch_id"], "created": started, "manifest": self._manifest}
        meta = {**self._identity, "started": started, "closed": False, "status": "ok", "manifest": self._manifest}
        claimed = attempt.claim(self._run_dir, content, meta)
        if claimed.run != self._run_dir:
            log.warning("gradwatch: %s is being written already; this run goes to %s.", self._run_dir, claimed.run)
            self._run_dir = claimed.run
        return OpenAttempt(claimed, self._sites, self._max_bytes)

    def _degrade(self, error: OSError) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if self._fault is None:
            reason = error.strerror or str(error) or type(error).__name__
            self._fault = f"degraded: {reason} at step {self._last_step}"
            self._faults.append(self._fault)
            log.warning("gradwatch: the run in %s is %s; training goes on.", self._run_dir, self._fault)
        if self._attempt is not None:
            self._try_to_note(self._attempt)

    def _try_to_note(self, opened: OpenAttempt) -> None:
        try:
            opened.save(**self._state("ok"))
        except OSError:
            return

    def _recover(self, opened: OpenAttempt) -> None:
        self._faults[-1] = f"{self._fault}, recovered at step {self._last_step}"
        self._fault = None
        opened.save(**self._state("ok"))
        log.warning("gradwatch: the run in %s can be written again.", self._run_dir)

    def _state(self, status: str) -> dict[str, Any]:
        degraded = {"degraded": list(self._faults[-20:])} if self._faults else {}
        lost = {"lost_steps": self._lost} if self._lost else {}
        return {"status": self._fault or status, **degraded, **lost, "notes": dict(self._notes())}

    def _drop_oldest(self) -> None:
        while self._waiting_bytes > WAITING_BYTES and len(self._waiting) > 1:
            dropped = self._waiting.popleft()
            self._waiting_bytes -= _weight(dropped)
            self._lost += not dropped.late


def _weight(record: StepRecord) -> int:
    """Returns roughly the bytes that a record holds."""
    histograms = (block.statistics.histogram for block in record.blocks)
    held = sum(counts.nbytes for counts in histograms if counts is not None)
    return _ROW_BYTES * (1 + sum(len(block.sites) for block in record.blocks)) + held
