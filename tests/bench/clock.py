"""Times phases of a training loop in the process's CPU time, the writer's thread included."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, Final

import gradwatch
from tests.bench.rows import WARM_UP

SETTLE: Final = 0.6
"""Seconds of sleep, which cost no CPU time, at the end of each phase: the writer polls every 0.1 s and writes after
0.5 s, so its work counts in the phase that caused it."""

Step = Callable[[], object]


def run_phases(bare: Step, attached: AbstractContextManager[Step], first: int, steady: int) -> dict[str, Any]:
    """Trains, bare to warm up and then as ``attached`` gives it; returns CPU seconds of each phase.

    ``start`` is attaching and the first step, with imports, files and compilation; ``first`` are the ``first - 1``
    steps behind it; ``steady`` are the ``steady`` steps behind those. ``peak_bytes`` is the process's peak memory.
    """
    for _ in range(WARM_UP):
        bare()
    marks = [time.process_time()]
    with attached as step:
        for steps in (1, first - 1, steady):
            for _ in range(steps):
                step()
            time.sleep(SETTLE)
            marks.append(time.process_time())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    spans = [after - before for before, after in pairwise(marks)]
    return {**dict(zip(("start", "first", "steady"), spans, strict=True)), "steps": [first, steady], "peak_bytes": peak}


def kinds_found(watch: gradwatch.Watch) -> list[str]:
    """Returns the kinds of trouble found, which tell whether capture ran on its schedule: an alarm adds to it.

    Raises:
        RuntimeError: when gradwatch failed inside, and so cost less than it should.
    """
    if watch.guard.failures:
        raise RuntimeError(f"gradwatch failed: {'; '.join(watch.guard.failures)}")
    return [finding.kind for finding in watch.findings]
