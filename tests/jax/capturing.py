"""Captures a train step of JAX into memory, without files or rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gradwatch.guard import Guard
from gradwatch.plugins import Session
from gradwatch.record import SiteTable, StepRecord
from gradwatch.recorder import Recorder
from gradwatch.recording import Recording, from_records
from gradwatch.scalars import Scalars
from gradwatch.schedule import Schedule
from gradwatch.testing import MemorySink
from gradwatch_jax import JaxAdapter


class Captured:
    """What was captured; ``recording`` is complete once the capture has ended."""

    def __init__(self, session: Session, memory: MemorySink, notes: list[str], step: Callable[..., Any]) -> None:
        self.session = session
        self.memory = memory
        self.notes = notes
        self.step = step

    @property
    def records(self) -> list[StepRecord]:
        return self.memory.records

    @property
    def recording(self) -> Recording:
        return from_records(self.records, self.session.sites)

    @property
    def names(self) -> list[str]:
        return [site.name for site in self.session.sites if site.signal == "gradient"]

    def series(self, signal: str, name: str, statistic: str) -> list[float]:
        """Returns one site's values at its captured steps."""
        panel = self.recording.panel(signal, 0)
        site = self.session.sites.find(signal, name)
        assert panel is not None, f"no {signal}"
        assert site is not None, f"no site {signal} {name}"
        column = getattr(panel, statistic)
        values = column() if callable(column) else column
        return [float(x) for x in values[:, list(panel.sites).index(site)]]


@contextmanager
def capture(
    step: Callable[..., Any], layers: Callable[[str], bool] = lambda _: True, **options: Any
) -> Iterator[Captured]:
    """Watches a train step into memory; call ``captured.step`` in its place."""
    memory, guard, notes = MemorySink(), Guard(), []  # type: ignore[var-annotated]
    recorder = Recorder([memory], guard)
    session = Session(
        SiteTable(optimizers=()), Schedule(**options), recorder, Scalars(recorder), layers, note=notes.append
    )
    adapter = JaxAdapter()
    assert adapter.claims(step)
    adapter.attach(session, step)
    try:
        yield Captured(session, memory, notes, adapter.decorate(step))
    finally:
        adapter.detach()
        assert recorder.close(20)
