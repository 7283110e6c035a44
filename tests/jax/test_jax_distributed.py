"""Two processes of jax.distributed: one run, one true number a layer."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import gradwatch
from tests.jax.processes import environment


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        port: int = listening.getsockname()[1]
    return port


def test_two_processes_write_one_run_of_the_global_gradient(tmp_path: Path) -> None:
    """Both train to the same bits as unwatched, one closes while the other does not, and each layer is there once."""
    address = f"localhost:{free_port()}"
    commands = [
        [sys.executable, "-m", "tests.jax.distributed_script", str(tmp_path), address, str(rank)] for rank in (0, 1)
    ]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(devices=2))
        for command in commands
    ]
    done = [process.communicate(timeout=250) for process in started]
    assert [process.returncode for process in started] == [0, 0], done[0][1][-2000:] + done[1][1][-2000:]
    told = [json.loads(out.splitlines()[-1]) for out, _ in done]
    assert all(one["same"] for one in told)
    assert [one["devices"] for one in told] == [4, 4]

    run = gradwatch.load(tmp_path / "run")
    rows = run.frame()
    for name in ("first", "second"):
        layer = rows[rows["parameter"] == name]
        expected = [step[name] for step in told[0]["expected"]]
        assert layer["l2"].tolist() == pytest.approx(expected, rel=1e-4)
        assert layer["step"].tolist() == list(range(len(expected)))
    assert set(rows["stage"]) == {"reduced"}
    assert sorted(run.frame(per_rank=True)["rank"].unique()) == [0, 1]
    assert len(run.frame("update")) == len(rows)
    assert run.recording.quality == ()
    assert [path.name for path in sorted((tmp_path / "run").glob("rank*"))] == ["rank0000", "rank0001"]
    assert (tmp_path / "run" / "report.html").exists()
    assert ["gradwatch: report" in err for _, err in done] == [True, False]
