"""Following a run: the newest numbers, within a fixed share of a core, for this machine only, and nothing touched."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch import cli, load
from gradwatch.errors import RunError
from gradwatch.live.follower import Follower
from gradwatch.live.pace import SHARE, Pace
from gradwatch.live.sketch import BARS, sketch, sparkline
from gradwatch.live.trace import trace
from gradwatch.run import Run
from gradwatch.testing import example_run
from tests.core.live_run import Writer, live, looked, until, url_in, writing


def steps_of(run: Run) -> int:
    return len(run.recording.steps())


def follower(path: Path) -> Follower[int]:
    return Follower(path, steps_of, every=0.001)


def test_a_follower_sees_the_run_appear_grow_and_end(tmp_path: Path) -> None:
    """Before the first step it waits and says so; then every reading is the whole run so far; then it says the end."""
    path = tmp_path / "run"
    following = follower(path)
    assert not following.look()
    assert following.status == f"Waiting for {path}: it does not exist yet."
    writer = Writer(path)
    writer.write(7)
    assert looked(following)
    assert (following.made, following.open) == (7, True)
    writer.write(20)
    assert looked(following)
    assert following.made == 27
    assert not following.ended()
    writer.close()
    assert following.ended()
    assert looked(following)
    assert not following.open
    assert following.status == f"The run has ended. {load(path).verdict}"


def test_what_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    """A heartbeat and a report written into the run are no change; a new attempt's step is."""
    run = example_run(tmp_path / "run", steps=20)
    following = follower(run.path)
    assert looked(following)
    for meta in run.path.rglob("meta.json"):
        os.utime(meta)
    (run.path / "report.html").write_text("a report")
    seen = trace(run.path)
    time.sleep(0.3)
    assert not following.look()
    assert trace(run.path) == seen
    assert following.version == 1


def test_a_run_that_breaks_while_it_is_followed_is_told_and_followed_on(tmp_path: Path) -> None:
    """The last good reading stays, the trouble is one sentence, and the next good file ends it."""
    path = tmp_path / "run"
    writer = Writer(path)
    writer.write(12)
    following = follower(path)
    assert looked(following)
    whole = (path / "run.json").read_bytes()
    (path / "run.json").write_bytes(whole[:20])
    writer.write(5)
    until(lambda: following.look() or following.trouble)
    assert "run.json is damaged" in following.status
    assert following.made == 12
    (path / "run.json").write_bytes(whole)
    writer.write(5)
    assert looked(following)
    assert (following.made, following.trouble) == (22, "")
    writer.close()


def test_a_path_that_can_never_be_a_run_is_refused(tmp_path: Path) -> None:
    """A file, and a run.json of something else, are said at once."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        follower(tmp_path / "file").look()
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        follower(tmp_path).look()


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=50), st.floats(0.01, 10))
def test_readings_take_at_most_their_share_of_the_time(costs: list[float], every: float) -> None:
    """Whatever readings cost, their sum is at most a fifth of the time until the next one is due."""
    pace, now, spent = Pace(every), 0.0, 0.0
    for cost in costs:
        assert pace.due(now)
        pace.took(now, cost)
        spent += cost
        assert not pace.due(now + max(every, cost / SHARE) * 0.999)
        now += max(every, cost / SHARE) * 1.000001
        assert spent <= SHARE * now


def test_a_run_twice_as_long_takes_few_more_readings() -> None:
    """When a reading costs in proportion to the run's length, their number grows with the logarithm of the length."""

    def readings(seconds: float) -> int:
        pace, now, count = Pace(2.0), 0.0, 0
        while now < seconds:
            if pace.due(now):
                pace.took(now, 0.05 * now)
                count += 1
            now += 0.25
        return count

    counts = [readings(1000 * 4**k) for k in range(3)]
    assert counts[2] - counts[1] <= counts[1] - counts[0] + 1
    assert counts[2] < 2 * counts[0]


@pytest.mark.parametrize(
    ("option", "value"), [("--every", "0"), ("--every", "nan"), ("--port", "70000"), ("--silence", "x")]
)
def test_nonsense_is_one_sentence(option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An option out of range ends the command with exit code 2 before anything is listened to."""
    assert cli.main(["live", str(tmp_path), option, value]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1


def test_the_page_waits_follows_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    """It starts before the run, serves what is written, says the end, serves on, and stops without a traceback."""
    path = tmp_path / "run"
    with live(path, "--every", "0.2") as (process, lines):
        url = url_in(lines)

        def news() -> Any:
            with urllib.request.urlopen(f"{url}version", timeout=10) as answer:
                return json.load(answer)

        assert "does not exist yet" in news()["status"]
        with writing(path):
            first = until(lambda: news()["version"])
            until(lambda: news()["version"] > first + 1)
            assert news()["open"]
        until(lambda: any("The run has ended." in line for line in lines))
        with urllib.request.urlopen(f"{url}report", timeout=10) as answer:
            assert answer.read().startswith(b"<!doctype html>")
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        until(lambda: lines[-1] == "gradwatch live: stopped.")
    assert not any("Traceback" in line for line in lines)


def test_the_training_process_and_its_files_are_not_touched(tmp_path: Path) -> None:
    """A run that is followed has the same files with the same bytes as before, and the one who wrote it goes on."""
    run = example_run(tmp_path / "run", steps=30)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.rglob("*") if path.is_file()}
    with live(run.path, "--terminal") as (process, lines):
        assert process.wait(60) == 0
    assert any("The run has ended." in line for line in lines)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.slow
def test_training_is_the_same_while_it_is_followed(tmp_path: Path) -> None:
    """A training process gives the same bits with somebody following it, and ends as it would."""
    script = textwrap.dedent(
        """
        import sys, time, torch, gradwatch
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        optimizer = torch.optim.Adam(model.parameters())
        with gradwatch.watch(model, optimizer, run=sys.argv[1], report=False):
            for _ in range(60):
                model(torch.randn(8, 8)).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                time.sleep(0.03)
        print(*(float(p.double().sum()).hex() for p in model.parameters()))
        """
    )
    pytest.importorskip("torch")

    def train(path: Path) -> str:
        command = [sys.executable, "-c", script, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    alone = train(tmp_path / "alone")
    with live(tmp_path / "followed", "--terminal", "--every", "0.1") as (process, lines):
        followed = train(tmp_path / "followed")
        assert process.wait(60) == 0
    assert followed == alone
    assert any("training, step" in line for line in lines)


def test_the_terminal_tells_each_finding_once_and_ends_with_the_run(tmp_path: Path) -> None:
    """Without a terminal: lines of progress, each finding once, and the verdict at the end; exit code 0."""
    path = tmp_path / "run"
    with live(path, "--terminal", "--every", "0.1") as (process, lines):
        until(lambda: any("Waiting for" in line for line in lines))
        with writing(path, fault="vanishing"):
            until(lambda: sum("training, step" in line for line in lines) > 2)
        assert process.wait(60) == 0
    told = [line for line in lines if line.startswith("  ")]
    assert told
    assert len(told) == len(set(told))
    assert lines[-1] == f"gradwatch live: The run has ended. {load(path).verdict}"
    assert not any("\x1b" in line for line in lines)


def in_a_terminal(command: list[str], environment: dict[str, str], act: Callable[[int], None]) -> tuple[int, str]:
    """Runs a command in a terminal of its own; ``act`` is given its process id. Returns exit code and output."""
    terminal, inside = pty.openpty()
    # No fork of this process, in which a framework may run threads.
    process = subprocess.Popen(
        command, env=environment, stdin=inside, stdout=inside, stderr=inside, start_new_session=True
    )
    os.close(inside)
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                return
            if not data:
                return
            shown.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    act(process.pid)
    code = process.wait(60)
    reader.join()
    os.close(terminal)
    return code, shown.decode()


@pytest.mark.parametrize("rich", [True, False], ids=["with rich", "without rich"])
def test_a_terminal_is_redrawn_in_place_where_rich_is_installed(tmp_path: Path, rich: bool) -> None:
    """With rich the view moves the cursor up and hides nothing at the end; without it there are plain lines."""
    if rich:
        pytest.importorskip("rich")
    path = tmp_path / "run"
    block = "import sys; sys.modules['rich.live'] = None; " if not rich else "import sys; "
    program = (
        f"{block}from gradwatch.cli import main; sys.exit(main(['live', sys.argv[1], '--terminal', '--every', '0.1']))"
    )
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", "PYTHONIOENCODING": "utf-8"}

    def write(_: int) -> None:
        with writing(path, fault="vanishing"):
            time.sleep(2.5)

    code, shown = in_a_terminal([sys.executable, "-c", program, str(path)], environment, write)
    assert code == 0
    assert "vanishing" in shown
    assert "The run has ended." in shown
    assert ("\x1b[1A" in shown) == rich
    if rich:
        assert any(bar in shown for bar in BARS)
        assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_ctrl_c_ends_the_terminal_view_cleanly(tmp_path: Path) -> None:
    """The cursor is shown again, one line is said, and the exit code is 0."""
    path = tmp_path / "run"
    writer = Writer(path)
    writer.write(30)
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}

    def interrupt(pid: int) -> None:
        time.sleep(3)
        os.kill(pid, signal.SIGINT)

    command = [sys.executable, "-m", "gradwatch", "live", str(path), "--terminal"]
    code, shown = in_a_terminal(command, environment, interrupt)
    writer.close()
    assert code == 0
    assert shown.rstrip().endswith("gradwatch live: stopped.")
    assert "Traceback" not in shown
    assert shown.rfind("\x1b[?25h") >= shown.rfind("\x1b[?25l")


@given(st.lists(st.one_of(st.floats(-1e300, 1e300), st.just(float("nan"))), max_size=200), st.integers(1, 60))
def test_a_sparkline_keeps_order(values: list[float], columns: int) -> None:
    """It has at most so many bars; a mark stands exactly where nothing is finite; a higher mean is no lower bar."""
    series = np.array(values, dtype=np.float64)
    drawn = sparkline(series, columns)
    assert len(drawn) == min(columns, len(values))
    parts = np.array_split(series, len(drawn)) if drawn else []
    means = [part[~np.isnan(part)].mean() if (~np.isnan(part)).any() else None for part in parts]
    assert [bar == "!" for bar in drawn] == [mean is None for mean in means]
    known = sorted((mean, BARS.index(bar)) for mean, bar in zip(means, drawn, strict=True) if mean is not None)
    assert [bar for _, bar in known] == sorted(bar for _, bar in known)


def test_the_view_names_the_sick_layers_with_their_numbers(tmp_path: Path) -> None:
    """The layers of the worst finding stand there with the newest gradient rms that the data frame has."""
    run = example_run(tmp_path / "run", steps=80, fault="vanishing")
    lines = [line.text for line in sketch(run)]
    assert lines[0] == run.verdict
    culprit = run.findings[0].layer
    assert culprit is not None
    rows = run.frame("gradient")
    rows = rows[(rows["layer"] == culprit) & (rows["step"] == 79)]
    newest = (rows["l2"] / rows["numel"].astype(float) ** 0.5).max()
    assert any(culprit in line and f"{newest:.3g} (" in line for line in lines[2:])
