"""Runs the processes of one network, in rounds whose order turns around: A B C, C B A, ..."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.bench import worker
from tests.bench.networks import Network
from tests.bench.rows import Row
from tests.bench.summary import Round

RIVAL_ROUNDS: Final = 2
"""Rounds in which rivals take part: once in each order, for they are far from the noise."""

READING_PROCESSES: Final = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a network.

    Attributes:
        network: which one.
        rows: what was compared, in order.
        missing: rows whose packages are not installed.
        rounds: outcomes by row, a dictionary for each round.
        reads: outcomes of ``reads.measure``, one for each process.
    """

    network: Network
    rows: list[Row]
    missing: list[Row]
    rounds: list[Round]
    reads: list[dict[str, Any]]


def measure(network: Network, rows: Sequence[Row], pairs: int, steady: int | None, *, reads: bool) -> Measured:
    """Measures a network; ``steady`` limits the steps of the steady state."""
    found = [row for row in rows if row.installed]
    missing = [row for row in rows if not row.installed]
    done: list[Round] = []
    for number in range(pairs):
        taking = [row for row in found if not row.rival or number < RIVAL_ROUNDS]
        ordered = taking if number % 2 == 0 else taking[::-1]
        done.append({row.key: _run(network, row, steady, f"{number + 1}/{pairs}") for row in ordered})
    reading = network.reading if reads else 0
    if steady is not None:
        reading = min(reading, 4 * steady)
    times = min(pairs, READING_PROCESSES) if reading else 0
    read = [_timed(f"{network.name}: reads", {"reads": _reading(network, reading)}) for _ in range(times)]
    return Measured(network, found, missing, done, read)


def _run(network: Network, row: Row, steady: int | None, pair: str) -> dict[str, Any]:
    first, window = row.window(network, steady)
    task = {"network": network.name, "row": row.key, "first": first, "steady": window}
    return _timed(f"{network.name} {pair}: {row.label}", task)


def _reading(network: Network, steps: int) -> dict[str, Any]:
    return {"maker": network.maker, "steps": steps}


def _timed(what: str, task: dict[str, Any]) -> dict[str, Any]:
    """Runs a task, and says on the terminal what runs and how long it took."""
    began = time.monotonic()
    outcome = worker.run(task)
    print(f"{what}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return outcome
