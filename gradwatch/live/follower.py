"""Follows a run: reads it again when its files have changed and the pace allows it, and says in words how it stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Generic, TypeVar

from gradwatch.errors import RunError
from gradwatch.live.pace import Pace
from gradwatch.live.trace import Trace, trace
from gradwatch.run import Run, load

T = TypeVar("T")


class Follower(Generic[T]):
    """Holds what was made of the newest reading of a run.

    Args:
        path: the run's directory; it need not exist yet.
        make: what is made of a reading, such as a page; its time counts towards the pace.
        every: least seconds between two readings.
        silence: findings that are not to be told.

    Attributes:
        path: as given.
        version: number of readings so far; 0 before the first.
        made: what was made of the newest one, or None before the first.
        open: whether the run is being written, by the last look.
        verdict: of the newest reading, or "".
        trouble: why the last reading failed, in one sentence, or "".
        cost: processor seconds of the newest reading.
    """

    def __init__(self, path: Path, make: Callable[[Run], T], *, every: float, silence: Collection[str] = ()) -> None:
        self.path = path
        self.version = 0
        self.made: T | None = None
        self.open = False
        self.verdict = ""
        self.trouble = ""
        self.cost = 0.0
        self._make = make
        self._silence = silence
        self._pace = Pace(every)
        self._seen: Trace | None = None

    def look(self) -> bool:
        """Reads the run if it has changed and it is time to; tells whether it did.

        Raises:
            RunError: when the path cannot be read as a run at the first try; later failures are told by ``trouble``.
        """
        now = time.monotonic()
        if not self._pace.due(now):
            return False
        seen = trace(self.path)
        if seen is None and self.path.is_file():
            load(self.path)
        if seen is None or seen == self._seen:
            return False
        began = time.process_time()
        try:
            self._read()
        except RunError as error:
            if self.version == 0:
                raise
            self.trouble = str(error)
        self._seen = seen
        self.cost = time.process_time() - began
        self._pace.took(now, self.cost)
        return not self.trouble

    def ended(self) -> bool:
        """Tells whether a run that was being written is so no more; looks at little and reads nothing."""
        if not self.open:
            return False
        seen = trace(self.path)
        return seen is None or not seen.writers

    @property
    def status(self) -> str:
        """How the run stands, in one line."""
        if self.trouble:
            return self.trouble
        if not self.version:
            return f"Waiting for {self.path}: {'no run is in it' if self.path.exists() else 'it does not exist'} yet."
        return "The run is being written." if self.open else f"The run has ended. {self.verdict}"

    def _read(self) -> None:
        run = load(self.path, silence=self._silence)
        self.made = self._make(run)
        self.open = run.recording.open
        self.verdict = run.verdict
        self.trouble = ""
        self.version += 1
