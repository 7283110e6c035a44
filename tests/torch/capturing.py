"""Captures torch training into memory, without files or rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from gradwatch.guard import Guard
from gradwatch.plugins import Session
from gradwatch.record import SiteTable, StepRecord
from gradwatch.recorder import Recorder
from gradwatch.recording import Recording, from_records
from gradwatch.scalars import Scalars
from gradwatch.schedule import Schedule
from gradwatch.testing import MemorySink
from gradwatch_torch import TorchAdapter


class Captured:
    """What was captured; ``recording`` is complete once the capture has ended."""

    def __init__(self, session: Session, memory: MemorySink, adapter: TorchAdapter) -> None:
        self.session = session
        self.memory = memory
        self.adapter = adapter

    @property
    def records(self) -> list[StepRecord]:
        return self.memory.records

    @property
    def recording(self) -> Recording:
        return from_records(self.records, self.session.sites)

    def series(self, signal: str, name: str, statistic: str, optimizer: int = 0) -> list[float]:
        """Returns one site's values at its captured steps."""
        panel = self.recording.panel(signal, optimizer)
        site = self.session.sites.find(signal, name)
        assert panel is not None
        assert site is not None, f"no site {signal} {name}"
        column = getattr(panel, statistic)
        values = column() if callable(column) else column
        return [float(x) for x in values[:, list(panel.sites).index(site)]]


@contextmanager
def capture(*targets: Any, layers: Callable[[str], bool] = lambda _: True, **options: Any) -> Iterator[Captured]:
    """Watches torch objects into memory."""
    memory, guard = MemorySink(), Guard()
    world = options.pop("world", (0, 1))
    schedule = Schedule(**options)
    recorder = Recorder([memory], guard)
    session = Session(
        SiteTable(optimizers=()), schedule, recorder, Scalars(recorder), layers, rank=world[0], world_size=world[1]
    )
    adapter = TorchAdapter()
    adapter.attach(session, *targets)
    try:
        yield Captured(session, memory, adapter)
    finally:
        adapter.detach()
        assert recorder.close(20)


@contextmanager
def charges(schedule: Schedule) -> Iterator[list[tuple[float, float]]]:
    """Lists what a schedule is charged: seconds of capture, and of the step that it is part of."""
    charged: list[tuple[float, float]] = []
    charge = schedule.charge

    def listed(capture: float, step: float) -> None:
        charged.append((capture, step))
        charge(capture, step)

    with patch.object(schedule, "charge", listed):
        yield charged
