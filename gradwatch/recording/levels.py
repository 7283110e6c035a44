"""Roll-ups as dense series: what stands in for the steps whose rows were evicted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import ABSENT, SIGNALS, STAGES, SiteTable
from gradwatch.recording.buckets import BucketPanel, empty_buckets
from gradwatch.statistics import NULL, Integer
from gradwatch.store.buckets import BUCKET_KEYS, BucketRows, merged
from gradwatch.store.columns import UNITS
from gradwatch.store.layout import LEVELS
from gradwatch.store.read import BucketFile
from gradwatch.store.stored import StoredAttempt

Key = tuple[str, int]

MAX_ROWS: Final = 4_000_000
"""Roll-up rows read of a run, some 300 MB: beyond it the finest levels are left out."""
_KEYS: Final = [*BUCKET_KEYS, "histograms", "units"]
_OPTIMIZERS: Final = 256
_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Span:
    """A file of roll-ups and the steps of each optimizer for which it stands.

    Attributes:
        file: the file.
        before: optimizer to the step at which something finer begins, shape [256].
        after: the last step for which something coarser stands.
        sites, optimizers: the run's ids of those in the file.
    """

    file: BucketFile
    before: Integer
    sites: npt.NDArray[np.uint32]
    optimizers: npt.NDArray[np.uint8]
    after: int = -1

    def rows(self, wanted: list[str] | None = None) -> BucketRows:
        """Loads the buckets that begin within the span, or some of their columns, with the run's ids."""
        rows = self.file.load(wanted)
        known = (rows["site"] < len(self.sites)) & (rows["optimizer"] < len(self.optimizers)) & (rows["step_lo"] >= 0)
        rows = rows if known.all() else rows.take(np.flatnonzero(known))
        columns = {
            **rows.columns,
            "site": self.sites[rows["site"]],
            "optimizer": self.optimizers[rows["optimizer"]],
            "stage": np.where(rows["stage"] < len(STAGES), rows["stage"], STAGES.index("unknown")).astype(np.uint8),
        }
        rows = BucketRows(columns, rows.histogram_rows, rows.histogram)
        begun = (rows["step_lo"] < self.before[rows["optimizer"]]) & (rows["step_lo"] > self.after)
        return merged(rows if begun.all() else rows.take(np.flatnonzero(begun)), self.file.width)


def spans(
    attempt: StoredAttempt, full: Integer, sites: npt.NDArray[np.uint32], optimizers: npt.NDArray[np.uint8]
) -> list[Span]:
    """Chooses the files of an attempt that stand for the steps before its rows, the coarsest first.

    A coarser level stands for the steps before the first one of the next finer level.

    Args:
        attempt: with its files of roll-ups.
        full: optimizer of the run to the first step that is there in full, shape [256].
        sites: the run's ids of those of the attempt.
        optimizers: the run's numbers of those of the attempt.
    """
    before, chosen, reached = full, list[Span](), -1
    levels = [[file for file in attempt.buckets if file.level == level] for level in LEVELS]
    limit = min((len(LEVELS) - 1, *(i for i, files in enumerate(levels) if _affordable(levels[i:], full))))
    for files in levels[limit:]:
        level = [Span(file, before, sites, optimizers) for file in files if file.first < before.max()]
        chosen = [*level, *chosen]
        reached = max([reached, *(span.file.last for span in level)])
        if level:
            before = np.minimum(before, _firsts(level[0]))
    # A finer level that is left out still gives the end, which waited for its window when the process ended.
    for files in reversed(levels[:limit]):
        ends = [file for file in files if file.last > reached]
        chosen += [Span(file, full, sites, optimizers, reached) for file in ends]
        reached = max([reached, *(file.last for file in ends)])
    return chosen


def _affordable(levels: list[list[BucketFile]], full: Integer) -> bool:
    """Tells whether the levels, of which the finest comes first, hold few enough rows before the full ones."""
    limit, rows = int(full.max()), 0
    for files in levels:
        rows += sum(file.rows for file in files if file.first < limit)
        limit = min([limit, *(file.first for file in files)])
    return rows <= MAX_ROWS


def _firsts(span: Span) -> Integer:
    """Returns the first step of each optimizer in a level's oldest file."""
    firsts = np.full(_OPTIMIZERS, _NEVER)
    rows = span.rows(_KEYS)
    np.minimum.at(firsts, rows["optimizer"], rows["step_lo"])
    return firsts


def bucket_panels(chosen: Iterable[Span], sites: SiteTable) -> dict[Key, BucketPanel]:
    """Builds the panels of buckets out of files, one file at a time."""
    signals = np.array([SIGNALS.index(site.signal) for site in sites], dtype=np.int64)
    extents: dict[Key, _Extent] = {}
    kept = list(chosen)
    for span in kept:
        rows = span.rows(_KEYS)
        for key, at in _groups(rows, signals):
            extents.setdefault(key, _Extent()).add(rows, at, span.file.width)
    targets = {key: _Target(key, extent) for key, extent in extents.items()}
    for span in kept:
        rows = span.rows()
        for key, at in _groups(rows, signals):
            targets[key].scatter(rows, at, span.file.width)
    return {key: target.finished() for key, target in targets.items()}


def _groups(rows: BucketRows, signals: Integer) -> Iterable[tuple[Key, Integer]]:
    if len(rows):
        code = rows["optimizer"].astype(np.int64) * len(SIGNALS) + signals[rows["site"]]
        for found in np.unique(code).tolist():
            yield (SIGNALS[found % len(SIGNALS)], found // len(SIGNALS)), np.flatnonzero(code == found)


class _Extent:
    """The windows and sites that a panel of buckets will have."""

    def __init__(self) -> None:
        self.windows: Integer = np.zeros(0, dtype=np.int64)
        self.histograms: Integer = np.zeros(0, dtype=np.int64)
        self.sites: npt.NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)
        self.units = False

    def add(self, rows: BucketRows, at: Integer, width: int) -> None:
        windows = rows["step_lo"][at] // width * width
        self.windows = np.union1d(self.windows, windows)
        self.histograms = np.union1d(self.histograms, windows[rows["histograms"][at] > 0])
        self.sites = np.union1d(self.sites, rows["site"][at]).astype(np.uint32)
        self.units = self.units or bool((rows["units"][at] != NULL).any())


class _Target:
    """A panel of buckets being filled; the parts of a window that two files share are merged."""

    def __init__(self, key: Key, extent: _Extent) -> None:
        self._windows = extent.windows
        self.panel = empty_buckets(*key, extent.windows, extent.sites, extent.histograms, units=extent.units)

    def scatter(self, rows: BucketRows, at: Integer, width: int) -> None:
        panel = self.panel
        t = np.searchsorted(self._windows, rows["step_lo"][at] // width * width)
        s = np.searchsorted(panel.sites, rows["site"][at])
        np.minimum.at(panel.first, t, rows["step_lo"][at])
        np.maximum.at(panel.last, t, rows["step_hi"][at])
        new = panel.samples[t, s] == 0
        present = np.where(rows["stage"][at] == STAGES.index(ABSENT), new, True)
        panel.stage[t[present], s[present]] = rows["stage"][at][present]
        panel.samples[t, s] += rows["samples"][at].astype(np.int32)
        for name in ("n", "nan", "inf"):
            column, more = getattr(panel, name), rows[name][at]
            held = column[t, s]
            column[t, s] = np.where(more == NULL, held, np.maximum(held, 0) + more)
        panel.l2[t, s] = _hypot(panel.l2[t, s], rows["l2"][at])
        panel.rms_min[t, s] = np.fmin(panel.rms_min[t, s], rows["rms_min"][at])
        for name in ("absmax", "rms_max", "nonfinite_max", "zeros_max"):
            column = getattr(panel, name)
            column[t, s] = np.fmax(column[t, s], rows[name][at])
        if panel.units is not None:
            for i, name in enumerate(UNITS):
                panel.units[i, t, s] = np.maximum(panel.units[i, t, s], rows[name][at])
        self._histograms(rows, at, t, s)

    def _histograms(self, rows: BucketRows, at: Integer, t: Integer, s: Integer) -> None:
        place = np.full(len(rows), NULL, dtype=np.int64)
        place[rows.histogram_rows] = np.arange(len(rows.histogram_rows))
        source = place[at]
        having = np.flatnonzero(source != NULL)
        if len(having):
            where = (np.searchsorted(self.panel.histogram_rows, t[having]), s[having])
            mean = rows.histogram[source[having]] / np.maximum(rows["histograms"][at[having]], 1)[:, None]
            codes = np.minimum(np.rint(8.0 * np.log2(1.0 + mean)), 255).astype(np.uint8)
            # Of a window that two files share, the fuller bin stands: both are means over parts of it.
            self.panel.histogram[where] = np.maximum(self.panel.histogram[where], codes)

    def finished(self) -> BucketPanel:
        """Returns the panel, with windows that do not overlap."""
        panel = self.panel
        if len(panel.last) > 1:
            panel.last[:-1] = np.minimum(panel.last[:-1], panel.first[1:] - 1)
        constant = {name: getattr(panel, name) for name in ("nan", "inf", "nonfinite_max", "zeros_max")}
        views: dict[str, Any] = {
            name: np.broadcast_to(column.ravel()[:1].copy(), column.shape)
            for name, column in constant.items()
            if column.size and column.min() == column.max()
        }
        return replace(panel, **views)


def _hypot(held: npt.NDArray[np.float64], more: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    both = np.hypot(held, more)
    return np.where(np.isnan(held), more, np.where(np.isnan(more), held, both))
