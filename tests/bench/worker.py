"""The process that trains: takes a task in JSON as its one argument, and prints the outcome as one line of JSON.

A task names a network and what to measure: a row with its numbers of steps, or the reads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tests.bench.networks import NETWORKS
from tests.bench.rows import ROWS

ROOT: Final = Path(__file__).parents[2]


class WorkerFailed(RuntimeError):
    """A worker ended without an outcome."""


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Runs a task in a process of its own.

    Raises:
        WorkerFailed: with the last lines of what it wrote.
    """
    command = [sys.executable, "-m", "tests.bench.worker", json.dumps(task)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    if done.returncode:
        raise WorkerFailed(f"{task} ended with code {done.returncode}:\n" + "\n".join(done.stderr.splitlines()[-12:]))
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Does a task in this process."""
    outcome: dict[str, Any]
    if "reads" in task:
        outcome = import_module("tests.bench.reads").measure(**task["reads"])
    else:
        network = NETWORKS[task["network"]]
        loop = import_module(f"tests.bench.{network.framework}_loop")
        outcome = loop.measure(network, ROWS[task["row"]], task["first"], task["steady"])
    return outcome


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
