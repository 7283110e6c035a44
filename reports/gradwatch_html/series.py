"""Exact float32 series of single sites for the layer pages, packed behind one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.recording import Panel, Recording, Steps
from gradwatch.statistics import Float
from gradwatch_html.buckets import Buckets, bucket, time_axis
from gradwatch_html.metrics import bucket_values, site_values

COLUMNS: Final = 1024
FLOAT_BUDGET: Final = 250_000
"""Floats over all layers: 1 MB. Layers beyond it are drawn from the heatmap's matrices."""

MAX_LINES: Final = 6
"""Sites drawn of one layer and signal; the largest parameters are kept."""

CHARTS: Final = (
    ("gradient", "gradient", "rms"),
    ("ratio", "update", "ratio"),
    ("zeros", "gradient", "zeros"),
    ("nonfinite", "gradient", "nonfinite"),
    ("activation", "activation", "rms"),
    ("delta", "activation_gradient", "rms"),
)
"""Chart of the layer page, and the signal and statistic that it draws."""


@dataclass(slots=True)
class SeriesPack:
    """Series of some layers.

    Attributes:
        blob: float32 values behind one another.
        times: the time axes of the lines.
        lines: layer index to its lines: chart, site name, start in the blob, time axis, and whether three curves
            (mean, min, max of each bucket) stand there or one.
    """

    blob: bytes = b""
    times: list[dict[str, list[int]]] = field(default_factory=list)
    lines: dict[int, list[dict[str, Any]]] = field(default_factory=dict)


def series_pack(recording: Recording, order: Sequence[int], keep: Sequence[int]) -> SeriesPack:
    """Packs the exact series of layers until the budget is used up.

    Args:
        recording: the run.
        order: layer indices, most important first.
        keep: steps around which full resolution is kept.
    """
    pack, parts, used = SeriesPack(), [], 0
    sources = list(_sources(recording, keep, pack))
    for layer in order:
        name = recording.sites.layers[layer]
        curves = [curve for source in sources for curve in source.curves(name)]
        size = sum(len(values) for _, values in curves)
        if used + size > FLOAT_BUDGET and pack.lines:
            break
        for line, values in curves:
            pack.lines.setdefault(layer, []).append({**line, "at": used})
            parts.append(values.astype("<f4"))
            used += len(values)
    pack.blob = np.concatenate(parts).tobytes() if parts else b""
    return pack


@dataclass(slots=True)
class _Source:
    """One chart's values under one optimizer, with the columns of each layer."""

    chart: str
    time: int
    buckets: Buckets
    mean: Float
    low: Float
    high: Float
    columns: dict[str, list[tuple[int, str, int]]]

    def curves(self, layer: str) -> list[tuple[dict[str, Any], Float]]:
        largest = sorted(self.columns.get(layer, []), key=lambda column: -column[2])[:MAX_LINES]
        made = []
        for column, name, _ in sorted(largest):
            mean, low, high = (values[:, column] for values in (self.mean, self.low, self.high))
            if np.isnan(high).all():
                continue
            banded = len(self.buckets) < len(mean) or self.low is not self.high
            curves = (
                [self.buckets.mean(mean), self.buckets.minimum(low), self.buckets.maximum(high)] if banded else [mean]
            )
            line = {"chart": self.chart, "site": name, "time": self.time, "band": banded}
            made.append((line, np.concatenate(curves)))
        return made


def _sources(recording: Recording, keep: Sequence[int], pack: SeriesPack) -> list[_Source]:
    sources = []
    for chart, signal, statistic in CHARTS:
        for (name, _), panel in sorted(recording.panels.items()):
            if name != signal or not len(panel.steps):
                continue
            first, last, *series = _series(recording, panel, statistic)
            rows = np.flatnonzero(~np.isnan(series[-1]).all(axis=1))
            if len(rows):
                buckets = bucket(first[rows], COLUMNS, last=last[rows], keep=keep, early=True)
                pack.times.append(time_axis(buckets.first, buckets.last))
                mean, low, high = _rows(series, rows)
                columns = _columns_by_layer(recording, panel)
                sources.append(_Source(chart, len(pack.times) - 1, buckets, mean, low, high, columns))
    return sources


def _rows(series: list[Float], rows: npt.NDArray[np.intp]) -> list[Float]:
    """Selects rows, of the same array once."""
    taken = {id(values): values[rows] for values in series}
    return [taken[id(values)] for values in series]


def _series(recording: Recording, panel: Panel, statistic: str) -> tuple[Steps, Steps, Float, Float, Float]:
    """Returns first and last step of each row, and the mean, smallest and largest value in it of every site.

    Before the steps that are there in full the rows are windows of steps.
    """
    values, steps = site_values(recording, panel, statistic), panel.steps
    earlier = recording.buckets.get((panel.signal, panel.optimizer))
    if earlier is None:
        return steps, steps, values, values, values
    whole = slice(int(np.searchsorted(steps, recording.whole_from.get(panel.optimizer, 0))), None)
    high = bucket_values(recording, earlier, statistic)
    mean, low = (earlier.rms(), earlier.rms_min) if statistic == "rms" else (high, high)
    both, mine = np.isin(earlier.sites, panel.sites), np.searchsorted(panel.sites, earlier.sites)

    def joined(windows: Float) -> Float:
        early = np.full((len(windows), len(panel.sites)), np.nan)
        early[:, mine[both]] = windows[:, both]
        return np.concatenate([early, values[whole]])

    first, last = np.concatenate([earlier.first, steps[whole]]), np.concatenate([earlier.last, steps[whole]])
    return first, last, joined(mean), joined(low), joined(high)


def _columns_by_layer(recording: Recording, panel: Panel) -> dict[str, list[tuple[int, str, int]]]:
    columns: dict[str, list[tuple[int, str, int]]] = {}
    for column, site_id in enumerate(panel.sites):
        site = recording.sites[int(site_id)]
        columns.setdefault(site.layer, []).append((column, site.name, site.numel))
    return columns
