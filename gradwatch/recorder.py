"""From the training thread through a bounded queue and a writer thread to the sinks."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from gradwatch.guard import Guard
from gradwatch.record import Pending, StepRecord

CAPACITY: Final = 512
POLL_SECONDS: Final = 0.1
CLOSE_SECONDS: Final = 2.0


class Sink(Protocol):
    """Takes the records of a run. All four methods run on the writer thread."""

    def open(self) -> None:
        """Called once, when the first step begins."""
        ...

    def __call__(self, record: StepRecord) -> None:
        """Takes one record; records come in the order in which they were handed over."""
        ...

    def tick(self) -> None:
        """Called at least every 0.1 s, for work that is due by time."""
        ...

    def close(self) -> None:
        """Called once at the end; no call follows."""
        ...


class Recorder:
    """Hands pending records over to a writer thread, which gives the step records to the sinks.

    Nothing here makes the training thread wait: ``put`` appends to a deque, and the writer polls. When half of the
    queue is full, a new record loses its extras (histograms, activations, updates, weights) and ``on_overflow`` is
    called; when it is full, the record is refused. What is queued is never thrown away, and every refusal is counted
    in ``refused`` by signal.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        guard: Guard,
        *,
        on_overflow: Callable[[], None] = lambda: None,
        capacity: int = CAPACITY,
    ) -> None:
        self.guard = guard
        self.refused: Counter[str] = Counter()
        self.refused_steps: tuple[int, int] | None = None
        self._capacity = capacity
        self._queue: deque[Pending] = deque()
        self._on_overflow = on_overflow
        self._overflowing = False
        self._opened = threading.Event()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._guard_sinks(sinks)
        _live.add(self)

    def start(self) -> None:
        """Starts the writer thread, which opens the sinks; does nothing when it runs already."""
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self.guard.wrap(self._write), name="gradwatch-writer", daemon=True)
            self._thread.start()

    def wait_open(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Waits until the sinks are open: once, at the end of the first step, so that a killed run can be opened."""
        return self._opened.wait(seconds)

    @property
    def waiting(self) -> int:
        """Pending records in the queue."""
        return len(self._queue)

    def put(self, step: int, pending: Pending) -> None:
        """Takes a pending record without waiting; ``step`` only labels a refusal."""
        waiting = self.waiting
        if waiting >= self._capacity:
            self._refuse(step, ("record",))
            return
        if waiting >= self._capacity // 2:
            self._refuse(step, pending.shed())
            if not self._overflowing:
                self._overflowing = True
                self._on_overflow()
        self._queue.append(pending)

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Drains the queue, closes the sinks and ends the writer thread; returns False when that took too long."""
        self._closing = True
        self._wake.set()
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """Stops for good in a forked child, whose writer thread does not exist and whose files are the parent's."""
        self.guard.stop()
        self._closing = True
        self._thread = None
        self._queue = deque()

    def _guard_sinks(self, sinks: Sequence[Sink]) -> None:
        parts = [(sink, type(sink).__name__) for sink in sinks]
        wrap = self.guard.wrap
        self._open = [wrap(sink.open, part) for sink, part in parts]
        self._take = [wrap(sink.__call__, part) for sink, part in parts]
        self._tick = [wrap(sink.tick, part) for sink, part in parts]
        self._close = [wrap(sink.close, part) for sink, part in parts]
        self._resolve = wrap(_resolve)
        self._ready = wrap(_ready, default=True)

    def _refuse(self, step: int, signals: Sequence[str]) -> None:
        if signals:
            self.refused.update(signals)
            first = self.refused_steps[0] if self.refused_steps else step
            self.refused_steps = (first, step)

    def _write(self) -> None:
        try:
            for opening in self._open:
                opening()
        finally:
            self._opened.set()
        while not self._closing:
            self._drain(wait=False)
            for tick in self._tick:
                tick()
            self._wake.wait(POLL_SECONDS)
        self._drain(wait=True)
        # The last first: what the rules still tell, the store, which is first, still writes.
        for closing in reversed(self._close):
            closing()

    def _drain(self, *, wait: bool) -> None:
        while self._queue:
            if not (wait or self._ready(self._queue[0])):
                return
            record = self._resolve(self._queue.popleft())
            if record is not None:
                for take in self._take:
                    take(record)
        self._overflowing = False


def _ready(pending: Pending) -> bool:
    return pending.ready()


def _resolve(pending: Pending) -> StepRecord | None:
    return pending.resolve()


_live: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _abandon_all() -> None:
    for recorder in tuple(_live):
        recorder.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
