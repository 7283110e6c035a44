"""Roll-ups as dense series: what stands in for the steps whose rows were evicted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import SIGNALS, SiteTable
from gradwatch.recording.buckets import BucketPanel
from gradwatch.recording.series import unique
from gradwatch.recording.span import Span
from gradwatch.recording.stored import Kept
from gradwatch.recording.windows import SpanSource, Windows
from gradwatch.statistics import Integer
from gradwatch.store.buckets import BUCKET_KEYS
from gradwatch.store.grids import grids_of
from gradwatch.store.layout import LEVELS
from gradwatch.store.read import BucketFile
from gradwatch.store.stored import StoredAttempt

Key = tuple[str, int]

MAX_ROWS: Final = 4_000_000
"""Roll-up rows read of a run, some 300 MB: beyond it the finest levels are left out."""
_KEYS: Final = [*BUCKET_KEYS, "histograms", "units"]
_OPTIMIZERS: Final = 256
_NEVER: Final = np.iinfo(np.int64).max


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
    """Builds the panels of buckets out of files; only their keys are read now."""
    signals = np.array([SIGNALS.index(site.signal) for site in sites], dtype=np.uint8)
    found: dict[Key, Windows] = {}
    for span in chosen:
        for key, add in _parts(span, signals):
            add(found.setdefault(key, Windows(key)))
    kept = Kept()
    return {key: windows.panel(kept) for key, windows in found.items()}


def _parts(span: Span, signals: npt.NDArray[np.uint8]) -> Iterator[tuple[Key, Callable[[Windows], None]]]:
    """Yields the keys that a span has buckets of, and what adds these to the windows of the key."""
    raw = span.file.load(_KEYS)
    rows = span.chosen(raw)
    if not len(rows):
        return
    # The rows as they are in the file need not be merged again for each column.
    source = SpanSource(span, plain=rows["step_lo"] is raw["step_lo"])
    window = rows["step_lo"] // span.file.width * span.file.width
    for grid in grids_of(window, rows["optimizer"], rows["site"]):
        code = signals[grid.sites]
        for number in unique(code).tolist():
            part = grid.of_sites(code == number)
            yield (
                (SIGNALS[number], grid.optimizer),
                lambda windows, part=part: windows.add(source, part, rows),  # type: ignore[misc]
            )
