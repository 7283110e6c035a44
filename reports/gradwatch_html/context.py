"""Scalars of the run beside the findings: loss, learning rate, loss scale, total norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.recording import Recording, StepTable
from gradwatch.statistics import Float
from gradwatch_html.buckets import bucket

COLUMNS: Final = 512
LANES: Final = (("loss", "loss"), ("learning_rate", "learning rate"), ("loss_scale", "loss scale"))
MAX_LANES: Final = 6


@dataclass(frozen=True, slots=True)
class Lane:
    """One scalar over time.

    Attributes:
        title: as written on the page; with the optimizer's key where the run has several.
        first, last: captured steps of each bucket, shape [b].
        low, high: over each bucket, shape [b]; NaN where nothing finite was logged.
        nonfinite: steps at which NaN or infinity was logged.
        logarithmic: whether the values are positive and span more than two decades.
    """

    title: str
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    low: Float
    high: Float
    nonfinite: tuple[int, ...]
    logarithmic: bool


def lanes(recording: Recording) -> list[Lane]:
    """Returns the lanes of the run: the loss first."""
    made = []
    several = len(recording.step_tables) > 1
    for key, title in LANES:
        for optimizer, table in sorted(recording.step_tables.items()):
            column, bad = _column(table, key)
            if column is None or (np.isnan(column).all() and not bad):
                continue
            name = f"{title}, {recording.sites.optimizers[optimizer]}" if several else title
            made.append(_lane(name, table.steps, column, bad))
    return made[:MAX_LANES]


def _column(table: StepTable, key: str) -> tuple[Float | None, tuple[int, ...]]:
    logged: Mapping[str, Float] = table.logged
    column = logged.get(key, table.facts.get(key))
    bad = tuple(step for step, name, _ in table.nonfinite_logged if name == key)
    if column is None and bad:
        column = np.full(len(table.steps), np.nan)
    return column, bad[:COLUMNS]


def _lane(title: str, steps: npt.NDArray[np.int64], column: Float, bad: tuple[int, ...]) -> Lane:
    known = ~np.isnan(column)
    buckets = bucket(steps[known], COLUMNS, early=True)
    values = column[known]
    positive = bool(len(values)) and float(values.min()) > 0 and float(values.max() / values.min()) > 100
    return Lane(title, buckets.first, buckets.last, buckets.minimum(values), buckets.maximum(values), bad, positive)
