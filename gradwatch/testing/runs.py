"""Example runs, and the assertion that a run is healthy."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.guard import Guard
from gradwatch.record import Resolved
from gradwatch.recorder import Recorder
from gradwatch.run import Run, load
from gradwatch.schedule import Schedule
from gradwatch.store import StoreWriter

_QUEUE_LIMIT: Final = 64
_CLOSE_SECONDS: Final = 60.0


def example_run(
    path: str | os.PathLike[str], *, layers: int = 12, steps: int = 200, seed: int = 0, fault: str | None = None
) -> Run:
    """Writes a made-up run of a plain network through the real recorder and store, and loads it.

    Args:
        path: the run's directory; it must not hold a run yet.
        layers: of the network; each has a weight and a bias.
        steps: of training.
        seed: of the noise.
        fault: None, or one of ``gradwatch.examples.synthetic.FAULTS``.

    Raises:
        GradwatchError: for an unknown fault, or numbers out of range.
        TimeoutError: when the run cannot be written within a minute after its last step.
    """
    made = SyntheticRun(layers=layers, steps=steps, seed=seed, fault=fault)
    manifest = {"framework": "example", "framework_version": "0", "schedule": Schedule().describe()}
    writer = StoreWriter(Path(path), made.sites, manifest)
    recorder = Recorder([writer], Guard())
    recorder.start()
    for record in made.records():
        recorder.put(record.step, Resolved(record))
        while recorder.waiting > _QUEUE_LIMIT:
            time.sleep(0.001)
    if not recorder.close(_CLOSE_SECONDS):
        raise TimeoutError(f"the example run in {path} could not be written within {_CLOSE_SECONDS:g} s.")
    return load(writer.run_dir)


def assert_healthy(run: Run, *, at_most: str = "notice") -> None:
    """Asserts that a run was judged and has nothing worse than a notice (or than ``at_most``).

    Raises:
        AssertionError: with the verdict and every worse finding.
    """
    assert run.analysis.judged, run.verdict
    worse = {"notice": "warning", "warning": "critical"}.get(at_most)
    assert worse is not None, f'at_most={at_most!r} must be "notice" or "warning"'
    found = run.analysis.at_least(worse)
    lines = [f"{finding.severity}: {finding.title} ({finding.kind})" for finding in found]
    assert not found, "\n".join([run.verdict, *lines])
