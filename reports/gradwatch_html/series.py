"""Exact float32 series of single sites for the layer pages, packed behind one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.recording import BucketPanel, Panel, Recording
from gradwatch.statistics import Float
from gradwatch_html.buckets import Buckets, bucket, time_axis
from gradwatch_html.metrics import ROWS_AT_ONCE, bucket_values, site_values

COLUMNS: Final = 1024
FLOAT_BUDGET: Final = 250_000
"""Floats over all layers: 1 MB. Layers beyond it are drawn from the heatmap's matrices."""

VALUES_AT_ONCE: Final = 1_000_000
"""Values of one chart that are in memory at once."""

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
    sources = list(_sources(recording, order, keep, pack))
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


class _Source:
    """One chart's values under one optimizer, of which the columns of a few layers at a time are in memory."""

    def __init__(self, recording: Recording, panel: Panel, chart: str, statistic: str, order: Sequence[int]) -> None:
        self.chart = chart
        self.time = -1
        self._joined = _Joined(recording, panel, statistic)
        self._columns = _columns_by_layer(recording, panel)
        queue = [column for layer in order for column, _ in self._drawn(recording.sites.layers[layer])]
        self._queue = list(dict.fromkeys(queue))
        self._held: dict[int, int] = {}
        known, self._curves = self._read(0)
        self.rows = np.flatnonzero(known)
        self._curves = [curve[self.rows] for curve in self._curves]
        self.buckets: Buckets

    def cut(self, keep: Sequence[int]) -> None:
        """Cuts the time into buckets."""
        first, last = self._joined.first[self.rows], self._joined.last[self.rows]
        self.buckets = bucket(first, COLUMNS, last=last, keep=keep, early=True)

    def curves(self, layer: str) -> list[tuple[dict[str, Any], Float]]:
        """Returns the lines of a layer and their values."""
        made = []
        for column, name in self._drawn(layer):
            mean, low, high = self._column(column)
            if np.isnan(high).all():
                continue
            banded = len(self.buckets) < len(mean) or self._joined.earlier is not None
            curves = (
                [self.buckets.mean(mean), self.buckets.minimum(low), self.buckets.maximum(high)] if banded else [mean]
            )
            line = {"chart": self.chart, "site": name, "time": self.time, "band": banded}
            made.append((line, np.concatenate(curves)))
        return made

    def _drawn(self, layer: str) -> list[tuple[int, str]]:
        largest = sorted(self._columns.get(layer, []), key=lambda column: -column[2])[:MAX_LINES]
        return [(column, name) for column, name, _ in sorted(largest)]

    def _column(self, column: int) -> list[Float]:
        if column not in self._held:
            # Layers are asked for in the order of the queue: those that follow are read with this one.
            self._curves = [curve[self.rows] for curve in self._read(self._queue.index(column))[1]]
        return [curve[:, self._held[column]] for curve in self._curves]

    def _read(self, begin: int) -> tuple[npt.NDArray[np.bool_], list[Float]]:
        chosen = self._queue[begin : begin + max(64, VALUES_AT_ONCE // max(1, len(self._joined.first)))]
        self._held = {column: i for i, column in enumerate(chosen)}
        return self._joined.read(np.array(chosen, dtype=np.intp))


class _Joined:
    """Mean, smallest and largest value of every site: in windows of steps, and from where all are there, at steps.

    Attributes:
        first, last: steps of each row.
        earlier: the windows, or None when there are none.
    """

    def __init__(self, recording: Recording, panel: Panel, statistic: str) -> None:
        self._recording = recording
        self._panel = panel
        self._statistic = statistic
        self.earlier = recording.buckets.get((panel.signal, panel.optimizer))
        whole = 0 if self.earlier is None else recording.whole_from.get(panel.optimizer, 0)
        self._begin = int(np.searchsorted(panel.steps, whole))
        first = last = panel.steps[self._begin :]
        if self.earlier is not None:
            first, last = np.concatenate([self.earlier.first, first]), np.concatenate([self.earlier.last, last])
        self.first, self.last = first, last

    def read(self, columns: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.bool_], list[Float]]:
        """Returns which rows have a value of any site, and mean, low and high of some of the panel's columns."""
        known, parts = list[npt.NDArray[np.bool_]](), list[tuple[Float, Float, Float]]()
        if self.earlier is not None:
            some, part = self._windows(self.earlier, columns)
            known.append(some)
            parts.append(part)
        for start in range(self._begin, len(self._panel.steps), ROWS_AT_ONCE):
            rows = self._panel.at(slice(start, start + ROWS_AT_ONCE))
            values = site_values(self._recording, rows, self._statistic)
            known.append(_some(values))
            few = values[:, columns]
            parts.append((few, few, few))
        if not parts:
            return np.zeros(0, dtype=np.bool_), [np.zeros((0, len(columns)))] * 3
        return np.concatenate(known), [np.concatenate(curve) for curve in zip(*parts, strict=True)]

    def _windows(
        self, earlier: BucketPanel, columns: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.bool_], tuple[Float, Float, Float]]:
        mine = np.flatnonzero(np.isin(earlier.sites, self._panel.sites))
        there = np.isin(self._panel.sites[columns], earlier.sites)
        theirs = np.searchsorted(earlier.sites, self._panel.sites[columns[there]])

        def of(values: Float) -> Float:
            early = np.full((len(values), len(columns)), np.nan)
            early[:, there] = values[:, theirs]
            return early

        values = bucket_values(self._recording, earlier, self._statistic)
        known = _some(values[:, mine])
        high = of(values)
        if self._statistic != "rms":
            return known, (high, high, high)
        del values
        return known, (of(earlier.rms()), of(earlier.rms_min), high)


def _sources(recording: Recording, order: Sequence[int], keep: Sequence[int], pack: SeriesPack) -> list[_Source]:
    sources = []
    for chart, signal, statistic in CHARTS:
        for (name, _), panel in sorted(recording.panels.items(), key=lambda item: item[0]):
            if name != signal or not len(panel.steps):
                continue
            source = _Source(recording, panel, chart, statistic, order)
            if len(source.rows):
                source.cut(keep)
                source.time = len(pack.times)
                pack.times.append(time_axis(source.buckets.first, source.buckets.last))
                sources.append(source)
    return sources


def _some(values: Float) -> npt.NDArray[np.bool_]:
    """Tells which rows have a value."""
    return np.asarray((~np.isnan(values)).any(axis=1))


def _columns_by_layer(recording: Recording, panel: Panel) -> dict[str, list[tuple[int, str, int]]]:
    columns: dict[str, list[tuple[int, str, int]]] = {}
    for column, site_id in enumerate(panel.sites):
        site = recording.sites[int(site_id)]
        columns.setdefault(site.layer, []).append((column, site.name, site.numel))
    return columns
