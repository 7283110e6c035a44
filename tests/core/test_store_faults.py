"""Disks that refuse: nothing is raised, nothing wrong is read, what was lost is said, and writing goes on after."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.recording import Recording, from_records, load_recording
from gradwatch.store import StoreWriter, manifest, opened, writer
from gradwatch.store.events import read_events
from gradwatch.store.verify import verify

STEPS = 12
CALLS = ("write", "open", "fsync", "replace", "link", "rename", "unlink", "mkdir", "ftruncate", "utime")


class Disk:
    """Counts the calls that reach the disk, and makes some of them fail."""

    def __init__(self, fails: Callable[[int], bool], number: int) -> None:
        self.calls = 0
        self._fails = fails
        self._number = number

    @contextmanager
    def faulty(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._wrap(name, getattr(os, name)))
            yield

    def _wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            reading = name == "open" and not (args[1] & (os.O_WRONLY | os.O_RDWR))
            if reading:
                return function(*args, **kwargs)
            self.calls += 1
            if self._fails(self.calls):
                if name == "write" and self.calls % 2:
                    function(args[0], bytes(args[1])[: max(1, len(args[1]) // 2)])
                raise OSError(self._number, os.strerror(self._number))
            return function(*args, **kwargs)

        return call


def train(path: Path) -> StoreWriter:
    """Writes a small run with a flush every third step and a seal in the middle."""
    run = SyntheticRun(layers=1, steps=STEPS)
    sink = StoreWriter(path, run.sites, {})
    sink.open()
    for record in run.records():
        sink(record)
        if record.step % 3 == 2:
            sink.event({"step": record.step})
            sink.flush()
            sink.tick()
    sink.flush()
    sink.close()
    return sink


@pytest.fixture
def wanted() -> Recording:
    run = SyntheticRun(layers=1, steps=STEPS)
    return from_records(run.records(), run.sites)


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "HOT_ROWS", 60)
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.0)


def assert_prefix(got: Recording, wanted: Recording, *, whole: bool) -> None:
    steps = got.steps()
    for key, panel in got.panels.items():
        full = wanted.panels[key]
        t = np.searchsorted(full.steps, panel.steps)
        np.testing.assert_array_equal(panel.l2, full.l2[t])
        np.testing.assert_array_equal(panel.n, full.n[t])
    if whole:
        assert steps.tolist() == list(range(STEPS))
        assert got.panels.keys() == wanted.panels.keys()


@pytest.mark.parametrize(("number", "stride"), [(errno.ENOSPC, 1), (errno.EIO, 5)])
def test_any_call_fails_once(tmp_path: Path, wanted: Recording, number: int, stride: int) -> None:
    """Whichever single call fails, no step is lost, nothing is raised, and the run is whole again at the end."""
    healthy = Disk(lambda _: False, number)
    with healthy.faulty():
        train(tmp_path / "healthy")
    assert healthy.calls > 40
    for n in range(1, healthy.calls + 1, stride):
        disk = Disk(lambda call, n=n: call == n, number)  # type: ignore[misc]
        with disk.faulty():
            sink = train(tmp_path / f"run{n}")
        got = load_recording(sink.run_dir)
        assert_prefix(got, wanted, whole=True)
        assert verify(sink.run_dir).problems == () or "degraded" in str(verify(sink.run_dir).problems)


def test_every_call_fails_from_the_nth_on(tmp_path: Path, wanted: Recording) -> None:
    """From whichever call on the disk is full, nothing is raised, and what was written before is read, and is right."""
    healthy = Disk(lambda _: False, errno.ENOSPC)
    with healthy.faulty():
        train(tmp_path / "healthy")
    opens = 0
    for n in range(1, healthy.calls + 1, 2):
        disk = Disk(lambda call, n=n: call >= n, errno.ENOSPC)  # type: ignore[misc]
        with disk.faulty():
            sink = train(tmp_path / f"run{n}")
        assert sink.degraded is not None
        assert "No space left on device at step" in sink.degraded
        if (sink.run_dir / "run.json").exists():
            opens += 1
            assert_prefix(load_recording(sink.run_dir), wanted, whole=False)
    assert opens > healthy.calls // 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE])
def test_a_full_disk_that_gets_space_again(tmp_path: Path, wanted: Recording, number: int) -> None:
    """While the disk refuses, steps wait; when it takes them again all are written, and the notes tell of it."""
    disk = Disk(lambda call: 30 <= call < 60, number)
    with disk.faulty():
        sink = train(tmp_path / "run")
        assert disk.calls > 60
    got = load_recording(sink.run_dir)
    assert_prefix(got, wanted, whole=True)
    notes = [note for note in got.quality if "degraded" in note]
    assert os.strerror(number) in notes[0]
    assert "recovered at step" in notes[-1]
    assert got.facts["status"] == "ok"


def test_a_removed_directory(tmp_path: Path) -> None:
    """When the run's directory is removed under the writer, it makes a new one and goes on."""
    run = SyntheticRun(layers=1, steps=STEPS)
    sink = StoreWriter(tmp_path / "run", run.sites, {})
    sink.open()
    for record in run.records():
        sink(record)
        if record.step == 5:
            assert sink.flush()
            shutil.rmtree(tmp_path / "run")
    assert not sink.flush()
    assert "removed" in str(sink.degraded) or "No such file" in str(sink.degraded)
    sink.tick()
    assert sink.degraded is None
    sink.close()
    got = load_recording(tmp_path / "run")
    assert got.steps().tolist() == list(range(6, STEPS))


def test_waiting_steps_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written, the oldest waiting steps are dropped beyond the limit, and counted."""
    monkeypatch.setattr(writer, "WAITING_BYTES", 200_000)
    monkeypatch.setattr(writer, "RETRY_SECONDS", 3600.0)
    run = SyntheticRun(layers=4, steps=400)
    disk = Disk(lambda _: True, errno.ENOSPC)
    sink = StoreWriter(tmp_path / "run", run.sites, {})
    with disk.faulty():
        sink.open()
        for record in run.records():
            sink(record)
    assert sink._waiting_bytes < 250_000
    assert sink.flush()
    sink.close()
    got = load_recording(tmp_path / "run")
    steps = got.steps().tolist()
    lost = 400 - len(steps)
    assert 0 < lost < 400
    assert steps == list(range(lost, 400))
    assert any(f"{lost} steps could not be written and are lost" in note for note in got.quality)


def test_a_slow_disk_does_not_hold_up_the_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hot data whose sealing would take long is left as it is at close, whole and marked closed."""
    run = SyntheticRun(layers=2, steps=30)
    monkeypatch.setattr(opened, "HOT_ROWS", 10**9)
    monkeypatch.setattr(opened, "SECONDS_PER_ROW", 1.0)
    sink = StoreWriter(tmp_path / "run", run.sites, {})
    sink.open()
    for record in run.records():
        sink(record)
    began = time.monotonic()
    sink.close()
    assert time.monotonic() - began < 2.0
    assert (tmp_path / "run" / "rank0000" / "a0001" / "hot-000001.arrows").exists()
    got = load_recording(tmp_path / "run")
    assert (got.open, got.quality, len(got.steps())) == (False, (), 30)


def test_the_budget_is_kept(tmp_path: Path) -> None:
    """A rank's directory stays within max_bytes; the oldest rows go first, all later ones stay, and it is said."""
    budget = 400_000
    run = SyntheticRun(layers=10, steps=1200)
    sink = StoreWriter(tmp_path / "run", run.sites, {}, max_bytes=budget)
    sink.open()
    rank = tmp_path / "run" / "rank0000"
    largest = 0
    for record in run.records():
        sink(record)
        if record.step % 32 == 31:
            sink.flush()
            sink.tick()
            largest = max(largest, sum(path.stat().st_size for path in rank.rglob("*") if path.is_file()))
    sink.close()
    assert largest <= budget
    assert largest > budget // 2
    got = load_recording(tmp_path / "run")
    kept = got.panels["gradient", 0].steps
    assert kept.tolist() == list(range(kept[0], 1200))
    assert kept[0] > 0
    assert any(f"up to step {kept[0] - 1} were evicted" in note for note in got.quality)
    assert verify(tmp_path / "run").whole


def test_earlier_attempts_count_for_the_budget(tmp_path: Path) -> None:
    """The files of earlier attempts are evicted first, and their cut stays where the later attempt began."""
    budget = 300_000
    for first in (0, 300):
        run = SyntheticRun(layers=10, steps=first + 400)
        sink = StoreWriter(tmp_path / "run", run.sites, {}, max_bytes=budget)
        sink.open()
        for record in run.records():
            if record.step >= first:
                sink(record)
                sink.tick()
        sink.close()
    rank = tmp_path / "run" / "rank0000"
    assert sum(path.stat().st_size for path in rank.rglob("*") if path.is_file()) <= budget
    steps = load_recording(tmp_path / "run").panels["gradient", 0].steps
    assert steps.tolist() == list(range(steps[0], 700))
    assert verify(tmp_path / "run").whole


def test_what_the_recorder_refused_is_said(tmp_path: Path) -> None:
    """Refusals and failures of the recorder stand in the manifest and in the notes."""
    notes = {
        "refused": {"histogram": 12, "activation": 3},
        "refused_steps": (40, 90),
        "failures": ["capture stopped after ValueError: x"],
    }
    run = SyntheticRun(layers=1, steps=2)
    sink = StoreWriter(tmp_path / "run", run.sites, {}, notes=lambda: notes)
    sink.open()
    sink.close()
    meta = manifest.read(tmp_path / "run" / "rank0000" / "a0001" / "meta.json")
    assert meta["notes"]["refused"] == notes["refused"]
    assert load_recording(tmp_path / "run").quality == (
        "rank 0 attempt 1: the writer could not keep up and refused 12 of histogram, 3 of activation "
        "between steps 40 and 90.",
        "rank 0 attempt 1: capture stopped after ValueError: x.",
    )


def test_events_are_bounded(tmp_path: Path) -> None:
    """Events stop at their share of the budget, and how many were refused is said."""
    sink = StoreWriter(tmp_path / "run", SyntheticRun(layers=1, steps=0).sites, {}, max_bytes=100_000)
    sink.open()
    for _ in range(100):
        sink.event({"text": "x" * 100})
    sink.tick()
    sink.close()
    events = len(read_events(tmp_path / "run"))
    assert 20 < events < 100
    assert any(f"{100 - events} events" in note for note in load_recording(tmp_path / "run").quality)


def test_a_name_that_is_taken_by_something_else(tmp_path: Path) -> None:
    """A file where the next attempt would be degrades the run with a reason and does not hang."""
    run = SyntheticRun(layers=1, steps=1)
    path = tmp_path / "run"
    StoreWriter(path, run.sites, {}).open()
    shutil.rmtree(path / "rank0000" / "a0001")
    (path / "rank0000" / "a0001").write_text("x")
    sink = StoreWriter(path, run.sites, {})
    sink.open()
    assert "no attempt" in str(sink.degraded)
    sink.close()
