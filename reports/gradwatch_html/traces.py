"""What the figures draw, as plain arrays and dictionaries: cells and their edges, lines and their breaks, names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.recording import Recording
from gradwatch.statistics import Float
from gradwatch_html.buckets import Buckets, joins
from gradwatch_html.metrics import NO_GRADIENT, NON_FINITE, Matrix, State
from gradwatch_html.series import series_pack
from gradwatch_html.words import middle_ellipsis, short, spelled

MOST_TICKS: Final = 14
ABSENT, ZERO, BAD = 0.0, 1.0, 2.0
"""Kinds of cells that have no colour on the scale."""

Steps = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LayerLine:
    """One parameter's series on the layer page.

    Attributes:
        site: its name.
        first, last: steps of each bucket, shape [b].
        high: its largest value in each bucket, the value itself where a bucket is one step, shape [b].
    """

    site: str
    first: Steps
    last: Steps
    high: Float


def layer_lines(recording: Recording, layer: str, chart: str) -> list[LayerLine]:
    """Returns the series of a layer in one of the charts of ``series.CHARTS``, as the page packs them."""
    index = recording.sites.layers.index(layer)
    packed = series_pack(recording, [index], ())
    data, found = np.frombuffer(packed.blob, dtype="<f4"), []
    for line in packed.lines.get(index, []):
        if line["chart"] == chart:
            first, last = (np.array(packed.times[line["time"]][end], dtype=np.int64) for end in ("first", "last"))
            # Of a line with a band three curves stand there: mean, smallest, largest.
            at = line["at"] + (2 * len(first) if line["band"] else 0)
            found.append(LayerLine(line["site"], first, last, data[at : at + len(first)].astype(np.float64)))
    return found


def nonfinite_steps(matrix: Matrix, layer: int) -> Steps:
    """Returns the steps at which some element of a layer is NaN or infinite, ascending."""
    column = np.flatnonzero(matrix.layers == layer)
    found: Steps = matrix.steps[(matrix.state[:, column] == NON_FINITE).any(axis=1)]
    return found


def line(first: Steps, last: Steps, y: Float, colour: str, name: str) -> dict[str, Any]:
    """Returns a scatter trace that joins neighbouring buckets only; a bucket stands at its first step."""
    breaks = np.flatnonzero(~joins(first, last))[1:]
    alone = len(breaks) > len(first) // 4
    return {
        "x": np.insert(first.astype(np.float64), breaks, np.nan),
        "y": np.insert(np.where(np.isfinite(y), y, np.nan), breaks, np.nan),
        "mode": "lines+markers" if alone or len(first) == 1 else "lines",
        "line": {"color": colour},
        "marker": {"color": colour, "size": 4},
        "connectgaps": False,
        "name": name,
    }


def cells(values: Float, state: State, *, share: bool) -> tuple[Float, Float]:
    """Returns what the scale draws, log10 but for shares, and the kind of every other cell; both are NaN elsewhere."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = values if share else np.log10(np.where(values > 0, values, np.nan))
    kinds = np.full(values.shape, np.nan)
    kinds[state == NO_GRADIENT] = ABSENT
    if not share:
        kinds[values == 0] = ZERO
        kinds[state == NON_FINITE] = BAD
    return np.where(np.isnan(kinds), z, np.nan), kinds


def edges(first: Steps, last: Steps) -> tuple[Float, npt.NDArray[np.intp]]:
    """Returns the edges of buckets on the step axis, with a column for each hole, and before which buckets holes are.

    A bucket reaches to the next one that follows without a hole, or else to the step after its last.
    """
    ends = last + 1.0
    joined = joins(first, last)
    ends[:-1] = np.where(joined[1:], first[1:], ends[:-1])
    holes = np.flatnonzero(~joined & np.concatenate([[False], ends[:-1] < first[1:]]))
    # An edge a bucket, one more where a hole begins (the end of the bucket before), and the end of the last.
    return np.append(np.insert(first.astype(np.float64), holes, ends[holes - 1]), ends[-1:]) - 0.5, holes


def spread(matrix: Any, holes: npt.NDArray[np.intp], fill: Any = np.nan) -> Any:
    """Inserts a blank column for each hole into an array, shape [r, b]."""
    return np.insert(matrix, holes, fill, axis=1)


def hover(names: Sequence[str], buckets: Buckets, values: Float) -> npt.NDArray[np.object_]:
    """Returns what is said of each cell, shape [r, b]."""
    times = [spelled(a, b) for a, b in zip(buckets.first.tolist(), buckets.last.tolist(), strict=True)]
    said = np.empty(values.shape, dtype=object)
    for row, name in enumerate(names):
        shown = escaped(name)
        said[row] = [
            f"{shown}<br>{time}: {'none' if np.isnan(value) else short(value)}"
            for time, value in zip(times, values[row].tolist(), strict=True)
        ]
    return said


def layer_axis(names: Sequence[str]) -> dict[str, Any]:
    """Returns an axis of layers from top to bottom, at most ``MOST_TICKS`` of them named."""
    return {**_named(names), "range": [len(names) - 0.5, -0.5]}


def depth_axis(names: Sequence[str]) -> dict[str, Any]:
    """Returns an axis of layers from left to right, at most ``MOST_TICKS`` of them named."""
    return {
        **_named(names),
        "range": [-0.5, len(names) - 0.5],
        "title": {"text": "input to output"},
        "automargin": True,
    }


def _named(names: Sequence[str]) -> dict[str, Any]:
    at = list(range(0, len(names), -(-len(names) // MOST_TICKS) or 1))
    return {"tickmode": "array", "tickvals": at, "ticktext": [escaped(names[i], 28) for i in at], "showgrid": False}


def escaped(text: str, limit: int = 90) -> str:
    """Shortens a name and keeps plotly from reading markup in it."""
    return middle_ellipsis(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def positive(values: Float) -> Float:
    """Returns the values that a logarithmic axis can show, NaN for the others."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def faint(colour: str) -> str:
    """Returns a colour ``#rrggbb`` at a fifth of its opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"


def fitted(y: Float, slope: float) -> dict[str, Any]:
    """Returns the ends of the straight line of a slope in decades a place through the mean of log10(y)."""
    at = np.flatnonzero(~np.isnan(y))
    ends = at[[0, -1]]
    return {"x": ends, "y": 10 ** (np.log10(y[at]).mean() + slope * (ends - at.mean()))}
