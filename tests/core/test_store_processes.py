"""Processes that die, processes that read while another writes, and processes that want the same directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.recording import from_records, load_recording
from gradwatch.store import StoreWriter
from gradwatch.store.verify import verify

KILLS = 50

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes")

# The mother imports everything once and forks a child a kill: a child starts in a millisecond.
MOTHER = """
import json, os, random, signal, sys, time
from pathlib import Path
import gradwatch.store.opened as opened
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.store import StoreWriter

opened.HOT_ROWS = 150

def child(path, pipe):
    run = SyntheticRun(layers=3, steps=10**6)
    writer = StoreWriter(path, run.sites, {}, max_bytes=budget)
    writer.open()
    os.write(pipe, b"-1\\n")
    for record in run.records():
        writer(record)
        if record.step % 5 == 4:
            assert writer.flush()
            writer.tick()
            os.write(pipe, b"%d\\n" % record.step)

directory, kills, budget, latest = Path(sys.argv[1]), *map(int, sys.argv[2:])
random.seed(0)
for i in range(kills):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            child(directory / f"run{i}", writing)
        finally:
            os._exit(1)
    os.close(writing)
    wanted, told = random.randrange(-1, latest), b""
    while told.count(b"\\n") <= wanted:
        told += os.read(reading, 65536)
    time.sleep(random.uniform(0.0, 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    told += b"".join(iter(lambda: os.read(reading, 65536), b""))
    os.close(reading)
    steps = told.split(b"\\n")[:-1]
    print(json.dumps(int(steps[-1]) if steps else None), flush=True)
"""

WRITER = """
import sys, time
from pathlib import Path
import gradwatch.store.opened as opened
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.store import StoreWriter

opened.HOT_ROWS = 400
run = SyntheticRun(layers=3, steps=int(sys.argv[2]), seed=3)
writer = StoreWriter(Path(sys.argv[1]), run.sites, {})
writer.open()
for record in run.records():
    writer(record)
    if record.step % 7 == 6:
        assert writer.flush()
        writer.tick()
    time.sleep(0.001)
writer.close()
"""


def killed(directory: Path, kills: int, *, budget: int, latest: int) -> list[int | None]:
    """Kills so many writers below a directory; returns the last step that each acknowledged."""
    numbers = map(str, (kills, budget, latest))
    told = subprocess.run(
        [sys.executable, "-c", MOTHER, str(directory), *numbers], check=True, capture_output=True, text=True
    )
    acknowledged = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(acknowledged) == kills
    return acknowledged


def test_kill_while_old_steps_are_evicted(tmp_path: Path) -> None:
    """Killed while rolling up, merging and evicting, a run shows every acknowledged step: in full or in a bucket."""
    evicted = 0
    for i, last in enumerate(killed(tmp_path, 20, budget=160_000, latest=120)):
        if last is None or last < 0:
            continue
        recording = load_recording(tmp_path / f"run{i}")
        panel = recording.panels["gradient", 0]
        begin = recording.whole_from.get(0, 0)
        assert panel.steps.tolist() == list(range(begin, panel.steps[-1] + 1))
        assert panel.steps[-1] >= last
        if begin:
            evicted += 1
            buckets = recording.buckets["gradient", 0]
            assert (buckets.first[0], buckets.last[-1]) == (0, begin - 1)
            assert (buckets.first[1:] == buckets.last[:-1] + 1).all()
            np.testing.assert_array_equal(buckets.samples[:, 0], buckets.last - buckets.first + 1)
        assert all("damaged" not in problem for problem in verify(tmp_path / f"run{i}").problems)
    assert evicted > 5


def test_kill_at_any_moment(tmp_path: Path) -> None:
    """Killed while writing or sealing, 50 of 50 runs hold every acknowledged step, once, and no gap."""
    acknowledged = killed(tmp_path, KILLS, budget=2**29, latest=16)
    wanted = from_records(SyntheticRun(layers=3, steps=2000).records(), SyntheticRun(layers=3, steps=1).sites)
    whole = wanted.panels["gradient", 0]
    sealed = 0
    for i, last in enumerate(acknowledged):
        if last is None:
            continue
        recording = load_recording(tmp_path / f"run{i}")
        steps = recording.steps()
        assert np.array_equal(steps, np.arange(len(steps)))
        assert len(steps) >= last + 1, f"run {i} lost acknowledged steps"
        assert not recording.open
        assert all("not closed" in note or "cut off" in note for note in recording.quality)
        panel = recording.panel("gradient")
        if panel is not None:
            np.testing.assert_array_equal(panel.l2, whole.l2[: len(panel.steps)])
        sealed += any(tmp_path.glob(f"run{i}/rank0000/a0001/L0-*"))
        assert all("damaged" not in problem for problem in verify(tmp_path / f"run{i}").problems)
    assert sealed > KILLS // 4
    assert max(step for step in acknowledged if step is not None) > 50


def test_read_while_written(tmp_path: Path) -> None:
    """A reader beside a writer that flushes and seals sees whole steps in order, more each time, and none twice."""
    path, total = tmp_path / "run", 500
    wanted = from_records(SyntheticRun(layers=3, steps=total, seed=3).records(), SyntheticRun(layers=3, steps=1).sites)
    whole = wanted.panels["gradient", 0]
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(total)]) as process:
        seen, reads = 0, 0
        while process.poll() is None:
            if not (path / "run.json").exists():
                continue
            recording = load_recording(path)
            steps = recording.steps()
            assert np.array_equal(steps, np.arange(len(steps)))
            panel = recording.panel("gradient")
            if panel is not None:
                assert len(panel.steps) == len(steps)
                np.testing.assert_array_equal(panel.l2, whole.l2[: len(steps)])
            assert recording.quality == ()
            assert len(steps) >= seen
            seen, reads = len(steps), reads + 1
            time.sleep(0.002)
        assert process.returncode == 0
    assert reads > 10
    final = load_recording(path)
    assert not final.open
    assert len(final.steps()) == total


def test_two_processes_want_one_directory(tmp_path: Path) -> None:
    """Processes that start at once with the same directory each get one of their own, and nothing is overwritten."""
    code = WRITER.replace("time.sleep(0.001)", "time.sleep(0.02)")
    command = [sys.executable, "-c", code, str(tmp_path / "run"), "30"]
    started = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in started] == [0, 0, 0, 0]
    runs = sorted(path.name for path in tmp_path.iterdir())
    attempts = sorted(tmp_path.glob("run*/rank0000/a*"))
    assert len(attempts) == 4
    assert runs[0] == "run"
    for name in runs:
        assert load_recording(tmp_path / name).steps().tolist() == list(range(30))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")  # of libraries other tests loaded
def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    """In a forked child the writer is deaf: the files are the parent's."""
    source = SyntheticRun(layers=1, steps=8)
    records = list(source.records())
    writer = StoreWriter(tmp_path / "run", source.sites, {})
    writer.open()
    writer(records[0])
    writer.flush()
    before = {path: path.stat().st_size for path in tmp_path.rglob("*")}
    code = os.fork()
    if code == 0:
        for record in records[1:]:
            writer(record)
        writer.flush()
        writer.tick()
        writer.close()
        os._exit(0)
    assert os.waitpid(code, 0)[1] == 0
    assert {path: path.stat().st_size for path in tmp_path.rglob("*")} == before
    writer.close()
    assert load_recording(tmp_path / "run").steps().tolist() == [0]
