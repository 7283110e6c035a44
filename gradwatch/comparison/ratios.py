"""How many times larger a number of one run is in another, per matched layer and bucket of common steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.comparison.layers import LayerMatch
from gradwatch.comparison.series import LayerSeries, gradient_norms, over_columns, update_ratios
from gradwatch.recording import Recording, Steps
from gradwatch.statistics import Float

UNKNOWN, FINITE, ZERO_FIRST, ZERO_OTHER, BAD_FIRST, BAD_OTHER, BAD_BOTH = range(7)
"""States of a cell: not known in both; a ratio; exactly zero in one run alone; non-finite in one run alone, or both."""

STATE_WORDS: Final = (
    "not captured in both",
    "",
    "exactly zero in {first} only",
    "exactly zero in {other} only",
    "non-finite in {first} only",
    "non-finite in {other} only",
    "non-finite in both",
)

MOST_COLUMNS: Final = 256
LEAST_COLUMNS: Final = 64
CELLS: Final = 250_000
"""Cells of a ratio: about 0.2 MB in a page."""

METRICS: Final[tuple[tuple[str, str, Callable[[Recording], LayerSeries]], ...]] = (
    ("gradient", "gradient norm", gradient_norms),
    ("update", "update / weight", update_ratios),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """log10(other / first) of a number, over b buckets of common steps and r matched layers.

    Attributes:
        key: ``gradient`` or ``update``.
        title: what the number is.
        layers: (layer of the first run, layer of the other) of the columns, input first.
        first, last: first and last common step of each bucket, shape [b].
        values: log10 of the largest value in the bucket in the other run over that in the first one, NaN where the
            state is not ``FINITE``, shape [b, r]. Two exact zeros are equal: 0.
        state: one of the states above, shape [b, r].
    """

    key: str
    title: str
    layers: tuple[tuple[str, str], ...]
    first: Steps
    last: Steps
    values: Float
    state: npt.NDArray[np.uint8]


def ratios(series: Sequence[LayerSeries], other: Sequence[LayerSeries], match: LayerMatch) -> tuple[Ratio, ...]:
    """Returns the ratio of each of ``METRICS`` that was captured in both runs, at common steps, for a common layer.

    Buckets are equal in common steps. A bucket keeps the maximum of either run, so that no spike is lost, and a
    non-finite value in it always shows.
    """
    runs = zip(METRICS, series, other, strict=True)
    made = (_ratio(key, title, mine, theirs, match) for (key, title, _), mine, theirs in runs)
    return tuple(ratio for ratio in made if ratio is not None)


def _ratio(key: str, title: str, first: LayerSeries, other: LayerSeries, match: LayerMatch) -> Ratio | None:
    mine, theirs = set(first.layers), set(other.layers)
    layers = tuple(pair for pair in match.pairs if pair[0] in mine and pair[1] in theirs)
    steps = np.intersect1d(first.steps, other.steps, assume_unique=True)
    if not layers or not len(steps):
        return None
    starts = _starts(len(steps), min(max(CELLS // len(layers), LEAST_COLUMNS), MOST_COLUMNS))
    below, above = (
        np.fmax.reduceat(over_columns(run, steps, [pair[side] for pair in layers]), starts, axis=0)
        for side, run in enumerate((first, other))
    )
    state = _states(below, above)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(state == FINITE, np.log10(above) - np.log10(below), np.nan)
    values[(above == 0) & (below == 0)] = 0.0
    last = steps[np.append(starts[1:], len(steps)) - 1]
    return Ratio(key, title, layers, steps[starts], last, values, state)


def _starts(steps: int, columns: int) -> npt.NDArray[np.intp]:
    """Returns the first row of each bucket."""
    return np.unique(np.linspace(0, steps, min(columns, steps), endpoint=False).astype(np.intp))


def _states(below: Float, above: Float) -> npt.NDArray[np.uint8]:
    state = np.full(below.shape, FINITE, dtype=np.uint8)
    state[(below == 0) & (above > 0)] = ZERO_FIRST
    state[(above == 0) & (below > 0)] = ZERO_OTHER
    state[np.isinf(below)] = BAD_FIRST
    state[np.isinf(above)] = BAD_OTHER
    state[np.isinf(below) & np.isinf(above)] = BAD_BOTH
    state[np.isnan(below) | np.isnan(above)] = UNKNOWN
    return state
