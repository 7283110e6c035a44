"""Scalars the user logs, and the step each belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gradwatch.record import StepRecord
from gradwatch.recorder import Recorder

Reader = Callable[[], float]


@dataclass(slots=True)
class _Late:
    """A pending record that adds scalars to a step that was handed over before."""

    step: int
    optimizer: int
    time: float
    readers: Mapping[str, Reader]

    def ready(self) -> bool:
        return True

    def resolve(self) -> StepRecord:
        logged = read(self.readers)
        return StepRecord(self.step, self.optimizer, self.time, logged=logged, late=True)

    def shed(self) -> tuple[str, ...]:
        return ()


class Scalars:
    """Assigns logged scalars to steps.

    One belongs to the last ended step if its key is not yet logged for it, else to the running step. What an adapter
    suggests (the loss that was differentiated) counts only until the user logs the same key. All methods run on the
    training thread; readers are called on the writer thread.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._ended: tuple[int, int, float] | None = None
        self._logged: set[str] = set()
        self._suggested: set[str] = set()
        self._running: dict[str, Reader] = {}

    def log(self, readers: Mapping[str, Reader]) -> None:
        """Takes scalars that the user logs."""
        late = {key: reader for key, reader in readers.items() if self._ended is not None and key not in self._logged}
        self._running.update({key: reader for key, reader in readers.items() if key not in late})
        self._logged.update(late)
        self._add_late(late)

    def suggest(self, readers: Mapping[str, Reader]) -> None:
        """Takes scalars of the last ended step that nobody logged or suggested before."""
        given = self._logged | self._suggested
        new = {key: reader for key, reader in readers.items() if key not in given}
        self._suggested.update(new)
        self._add_late(new)

    def end_step(
        self, step: int, optimizer: int, time: float, suggested: Mapping[str, Reader] = MappingProxyType({})
    ) -> dict[str, Reader]:
        """Ends a step; returns the scalars that were logged while it ran, and the suggested ones."""
        self._ended = (step, optimizer, time)
        running, self._running = self._running, {}
        self._logged, self._suggested = set(running), set(suggested)
        return {**suggested, **running}

    def _add_late(self, readers: Mapping[str, Reader]) -> None:
        if readers and self._ended is not None:
            self._recorder.put(self._ended[0], _Late(*self._ended, readers))


def read(readers: Mapping[str, Reader]) -> dict[str, float]:
    """Reads scalars; called on the writer thread."""
    return {key: float(reader()) for key, reader in readers.items()}
