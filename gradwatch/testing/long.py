"""A made-up run of any length, written in minutes: its early steps only as the roll-ups that a real one would leave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from gradwatch.errors import GradwatchError
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.schedule import Schedule
from gradwatch.statistics import NULL
from gradwatch.store import StoreWriter
from gradwatch.store.buckets import WIDTHS, BucketRows, buckets_of
from gradwatch.store.columns import rows_of

SPANS: Final = (("L2", 24_000), ("L3", 96_000))
"""Level and how far from the end its windows begin to be made, of a network of ``USUAL_LAYERS``; before that those of
L4 only are. The budget keeps fewer steps of a larger network."""
USUAL_LAYERS: Final = 1000
_CADENCES: Final = {"gradient": 1, "weight": 32, "update": 32, "activation": 64, "activation_gradient": 64}


def long_run(
    path: str | os.PathLike[str], *, layers: int, steps: int, whole: int, seed: int = 0, max_bytes: int = 512 * 2**20
) -> Path:
    """Writes a healthy run of which only the last steps go through the store one by one; returns its directory.

    The steps before come to the same roll-ups as generated buckets: a window's statistics are those of one step of
    it, taken as often as the schedule samples. Files, levels, budget and readers are those of a real run.

    Args:
        path: the run's directory; it must not hold a run yet.
        layers: of the network.
        steps: of training.
        whole: the last so many steps are written one by one.
        seed: of the noise.
        max_bytes: budget of the files.

    Raises:
        GradwatchError: when ``whole`` is not between 1 and ``steps``.
    """
    if not 1 <= whole <= steps:
        raise GradwatchError(f"whole={whole} must be between 1 and steps={steps}.")
    made = SyntheticRun(layers=layers, steps=steps, seed=seed)
    schedule = Schedule()
    writer = StoreWriter(
        Path(path), made.sites, {"framework": "example", "schedule": schedule.describe()}, max_bytes=max_bytes
    )
    writer.open()
    begin = steps - whole
    for level, first, last in _windows(begin, steps, max(1.0, layers / USUAL_LAYERS)):
        writer.roll_up(_bucket(made, first, last), level)
    for step in range(begin, steps):
        writer(made.record(step, schedule.plan(step)))
        writer.tick()
    writer.close()
    return writer.run_dir


def _windows(begin: int, steps: int, size: float) -> Iterator[tuple[str, int, int]]:
    """Yields level, first and last step of the windows before ``begin``."""
    at = 0
    while at < begin:
        level = next((level for level, before in SPANS if at >= steps - before / size), "L4")
        last = min((at // WIDTHS[level] + 1) * WIDTHS[level], begin) - 1
        yield level, at, last
        at = last + 1


def _bucket(made: SyntheticRun, first: int, last: int) -> BucketRows:
    """Returns one window's bucket of every site that the schedule samples in it."""
    full = Schedule().plan(0)
    record = made.record((first + last) // 2, full)
    rows = buckets_of(rows_of([replace(record, step=first)]))
    cadence = np.array([_CADENCES[site.signal] for site in made.sites])[rows["site"]]
    low = -(-first // cadence) * cadence
    samples = (last - low) // cadence + 1
    sampled = np.flatnonzero(samples > 0)
    columns = dict(rows.columns)
    columns |= {"step_lo": low, "step_hi": low + (samples - 1) * cadence, "samples": samples}
    columns["sum"] = rows["sum"] * samples
    for name in ("n", "nan", "inf", "zeros", "subnormal", "counted"):
        columns[name] = np.where(rows[name] == NULL, NULL, rows[name] * samples)
    columns["l2"] = rows["l2"] * np.sqrt(np.maximum(samples, 0))
    columns["histograms"] = np.where(rows["histograms"] > 0, samples, 0)
    many = samples[rows.histogram_rows].astype(np.float64)
    return BucketRows(columns, rows.histogram_rows, rows.histogram * many[:, None]).take(sampled)
