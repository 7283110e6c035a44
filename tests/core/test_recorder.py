"""The way from the training thread to the sinks, with slow devices, slow sinks and forks."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from gradwatch.guard import Guard
from gradwatch.record import Block, Resolved, StepRecord
from gradwatch.recorder import Recorder
from gradwatch.scalars import Scalars
from gradwatch.statistics import measure
from gradwatch.testing import MemorySink


class Memory(MemorySink):
    """One that may take its time, and notes what is called and on which thread."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.calls: list[str] = []
        self.threads: set[str] = set()

    def open(self) -> None:
        self.calls.append("open")

    def __call__(self, record: StepRecord) -> None:
        time.sleep(self.seconds)
        self.threads.add(threading.current_thread().name)
        super().__call__(record)

    def tick(self) -> None:
        self.calls.append("tick")

    def close(self) -> None:
        self.calls.append("close")


@dataclass
class SlowDevice:
    """A pending record whose numbers arrive when the test says so."""

    step: int
    arrived: threading.Event
    waited: list[int] = field(default_factory=list)

    def ready(self) -> bool:
        return self.arrived.is_set()

    def resolve(self) -> StepRecord:
        if not self.arrived.is_set():
            self.waited.append(self.step)
            self.arrived.wait()
        return StepRecord(self.step)

    def shed(self) -> tuple[str, ...]:
        return ("activation",)


def wait_for(condition: object, seconds: float = 5.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def full_record(step: int) -> StepRecord:
    statistics = measure(np.ones(3))
    sites = np.zeros(1, dtype=np.uint32)
    return StepRecord(step, blocks=(Block("gradient", sites, statistics), Block("weight", sites, statistics)))


def test_a_slow_device_is_polled_and_never_waited_for() -> None:
    """Records stay in the queue until their device is ready, and come in order."""
    sink = Memory()
    recorder = Recorder([sink], Guard())
    recorder.start()
    arrived = threading.Event()
    pending = [SlowDevice(step, arrived) for step in range(3)]
    for step, record in enumerate(pending):
        recorder.put(step, record)
    wait_for(lambda: sink.calls.count("tick") >= 3)
    assert sink.records == []
    arrived.set()
    wait_for(lambda: len(sink.records) == 3)
    assert [record.step for record in sink.records] == [0, 1, 2]
    assert all(not record.waited for record in pending)
    assert recorder.close()


def test_closing_waits_for_the_device_and_loses_nothing() -> None:
    """What was handed over before close reaches the sinks, also when the device is late."""
    sink = Memory()
    recorder = Recorder([sink], Guard())
    recorder.start()
    arrived = threading.Event()
    recorder.put(0, SlowDevice(0, arrived))
    threading.Timer(0.2, arrived.set).start()
    assert recorder.close()
    assert [record.step for record in sink.records] == [0]
    assert sink.calls[0] == "open"
    assert sink.calls[-1] == "close"


def test_a_device_that_never_answers_cannot_hold_up_closing() -> None:
    """Close returns after its deadline and says that it could not finish."""
    recorder = Recorder([Memory()], Guard())
    recorder.start()
    arrived = threading.Event()
    recorder.put(0, SlowDevice(0, arrived))
    began = time.monotonic()
    assert not recorder.close(0.3)
    assert time.monotonic() - began < 2.0
    arrived.set()


def test_sinks_run_on_the_writer_thread_only() -> None:
    """The training thread never runs a sink."""
    sink = Memory()
    recorder = Recorder([sink], Guard())
    recorder.start()
    for step in range(5):
        recorder.put(step, Resolved(StepRecord(step)))
    assert recorder.close()
    assert sink.threads == {"gradwatch-writer"}


def test_overflow_sheds_the_newest_extras_first_and_counts_every_refusal() -> None:
    """From half a queue on extras go, at a full one whole records; what was queued before is kept whole."""
    sink = Memory()
    halvings: list[int] = []
    recorder = Recorder([sink], Guard(), on_overflow=lambda: halvings.append(1), capacity=8)
    for step in range(12):
        recorder.put(step, Resolved(full_record(step)))
    recorder.start()
    assert recorder.close()
    signals = [[block.signal for block in record.blocks] for record in sink.records]
    assert signals == [["gradient", "weight"]] * 4 + [["gradient"]] * 4
    assert [record.blocks[0].statistics.histogram is None for record in sink.records] == [False] * 4 + [True] * 4
    assert recorder.refused == {"weight": 4, "histogram": 4, "record": 4}
    assert recorder.refused_steps == (4, 11)
    assert halvings == [1]


def test_handing_over_never_waits_for_a_slow_sink() -> None:
    """With a sink that needs 50 ms a record, a hundred hand-overs take less than one."""
    recorder = Recorder([Memory(seconds=0.05)], Guard())
    recorder.start()
    began = time.perf_counter()
    for step in range(100):
        recorder.put(step, Resolved(StepRecord(step)))
    assert time.perf_counter() - began < 0.05 * 5
    recorder.close(0.1)


def test_a_failing_sink_stops_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """When one sink raises, it is dropped with one line, and the other goes on."""
    monkeypatch.delenv("GRADWATCH_STRICT", raising=False)

    class Broken(Memory):
        def __call__(self, record: StepRecord) -> None:
            raise OSError(28, "No space left on device")

    good, guard = Memory(), Guard()
    recorder = Recorder([Broken(), good], guard)
    recorder.start()
    for step in range(5):
        recorder.put(step, Resolved(StepRecord(step)))
    assert recorder.close()
    assert len(good.records) == 5
    assert len(guard.failures) == len(caplog.records) == 1
    assert "No space left on device" in guard.failures[0]


def test_strict_mode_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """With GRADWATCH_STRICT=1 a guarded failure is raised as well as noted."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    guard = Guard()

    def broken() -> None:
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        guard.wrap(broken)()
    assert guard.stopped()
    assert guard.wrap(broken)() is None


def test_an_error_that_cannot_be_shown_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception whose text raises does no harm either."""
    monkeypatch.delenv("GRADWATCH_STRICT", raising=False)

    class RudeError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def broken() -> None:
        raise RudeError

    guard = Guard()
    assert guard.wrap(broken, default=3)() == 3
    assert guard.failures == ["capture stopped after an error that cannot be shown"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")  # of libraries other tests loaded
def test_a_forked_child_writes_nothing_and_does_not_hang() -> None:
    """In the child the recorder is inert: put and close return at once."""
    sink = Memory()
    recorder = Recorder([sink], Guard())
    recorder.start()
    recorder.wait_open()
    child = os.fork()
    if child == 0:
        recorder.put(1, Resolved(StepRecord(1)))
        os._exit(0 if recorder.close(1.0) and recorder.guard.stopped() and not sink.records else 1)
    recorder.put(0, Resolved(StepRecord(0)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert recorder.close()
    assert [record.step for record in sink.records] == [0]


def logged(sink: Memory) -> list[tuple[int, dict[str, float]]]:
    return [(record.step, dict(record.logged)) for record in sink.records]


def test_scalars_belong_to_the_last_ended_step_unless_it_has_them() -> None:
    """Logging before, after and twice a step assigns each value to its step."""
    sink = Memory()
    recorder = Recorder([sink], Guard())
    scalars = Scalars(recorder)

    def end_step(step: int, suggested: dict[str, float]) -> None:
        readers = scalars.end_step(step, 0, 0.0, {k: lambda v=v: v for k, v in suggested.items()})  # type: ignore[misc]
        values = {key: reader() for key, reader in readers.items()}
        recorder.put(step, Resolved(StepRecord(step, logged=values)))

    def log(**values: float) -> None:
        scalars.log({key: lambda value=value: value for key, value in values.items()})  # type: ignore[misc]

    log(loss=1.0)
    end_step(0, {"loss": 9.0})
    log(accuracy=0.5)
    log(loss=2.0)
    end_step(1, {})
    end_step(2, {"loss": 7.0})
    log(loss=3.0)
    scalars.suggest({"loss": lambda: 8.0})
    recorder.start()
    assert recorder.close()
    assert logged(sink) == [
        (0, {"loss": 1.0}),
        (0, {"accuracy": 0.5}),
        (1, {"loss": 2.0}),
        (2, {"loss": 7.0}),
        (2, {"loss": 3.0}),
    ]
