"""Scalars the user logs, and the step each belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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

    One belongs to the last ended step if its key is not yet logged for it, else to the running step. All methods run on the training thread; readers are called on the writer thread.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._ended: tuple[int, int, float] | None = None
        self._logged: set[str] = set()
        self._running: dict[str, Reader] = {}

    def log(self, readers: Mapping[str, Reader]) -> None:
        """Takes scalars."""
        late = {key: reader for key, reader in readers.items() if self._ended is not None and key not in self._logged}
        self._running.update({key: reader for key, reader in readers.items() if key not in late})
        if late and self._ended is not None:
            self._logged.update(late)
            self._recorder.put(self._ended[0], _Late(*self._ended, late))

    def end_step(self, step: int, optimizer: int, time: float) -> dict[str, Reader]:
        """Ends a step; returns the scalars that were logged while it ran."""
        self._ended = (step, optimizer, time)
        running, self._running = self._running, {}
        self._logged = set(running)
        return running


def read(readers: Mapping[str, Reader]) -> dict[str, float]:
    """Reads scalars; called on the writer thread."""
    return {key: float(reader()) for key, reader in readers.items()}
