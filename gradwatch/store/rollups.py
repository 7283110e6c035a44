"""The roll-ups of an attempt while they are made: what is merged already and not yet in a file. Bounded memory.

Every level is fed from the rows of each sealed file, once; none reads what another wrote. Windows that are over wait
until they fill a file; the one that goes on is held open. What waits is in finer files too, so a killed process loses
none of it, as long as a finer file is evicted only after ``unwritten_from`` lies behind it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.statistics import Integer
from gradwatch.store.buckets import WIDTHS, BucketRows, buckets_of, join_buckets, merged, no_buckets
from gradwatch.store.columns import Rows
from gradwatch.store.layout import LEVELS

FILE_ROWS: Final = 65_536
"""Rows that make a file of a level."""
_SLICE_ROWS: Final = 131_072


class Rollups:
    """The unwritten buckets of every level."""

    def __init__(self) -> None:
        self._over: dict[str, list[BucketRows]] = {level: [] for level in WIDTHS}
        self._open: dict[str, BucketRows] = {level: no_buckets() for level in WIDTHS}
        self._last: dict[int, int] = {}

    def feed(self, rows: Rows) -> None:
        """Adds the rows of a file in order of arrival to every level; no window of the finest goes on beyond it."""
        for start in range(0, len(rows), _SLICE_ROWS):
            part = rows.take(np.arange(start, min(start + _SLICE_ROWS, len(rows))))
            self.feed_buckets(buckets_of(part))
        self.split(LEVELS[0])

    def feed_buckets(self, buckets: BucketRows, finest: str = LEVELS[0]) -> None:
        """Adds buckets to a level and all coarser ones.

        Args:
            buckets: of windows no wider than those of ``finest``, that begin no earlier than those added before.
            finest: the level.
        """
        for optimizer in np.unique(buckets["optimizer"]).tolist():
            last = int(buckets["step_lo"][buckets["optimizer"] == optimizer].max())
            self._last[optimizer] = max(last, self._last.get(optimizer, last))
        for level in LEVELS[LEVELS.index(finest) :]:
            width = WIDTHS[level]
            buckets = merged(buckets, width)
            self._add(level, width, buckets)

    def _add(self, level: str, width: int, buckets: BucketRows) -> None:
        rows = merged(join_buckets([self._open[level], buckets]), width)
        last = np.full(256, -1, dtype=np.int64)
        last[list(self._last)] = list(self._last.values())
        over = rows["step_lo"] // width < self._current()[rows["optimizer"]] // width
        self._over[level].append(rows.take(np.flatnonzero(over)))
        self._open[level] = rows.take(np.flatnonzero(~over))

    def _current(self) -> Integer:
        current = np.full(256, -1, dtype=np.int64)
        current[list(self._last)] = list(self._last.values())
        return current

    def due(self, level: str) -> bool:
        """Tells whether enough windows of a level are over to fill a file."""
        return sum(map(len, self._over[level])) >= FILE_ROWS

    def unwritten_from(self, level: str) -> int | None:
        """Returns the first step that is in no file of a level yet, or None when there is none."""
        parts = [part for part in (*self._over[level], self._open[level]) if len(part)]
        return min((int(part["step_lo"].min()) for part in parts), default=None)

    def take(self, level: str, *, everything: bool) -> BucketRows:
        """Returns what is to be written of a level, sorted by site, and marks it as written when ``written`` is called.

        With ``everything`` that is all there is; no window of a coarser level goes on beyond it then. Otherwise it is
        the windows that are over, up to where one of the next coarser level ends. So wherever files of a level were
        evicted, no bucket of a coarser one holds steps on both sides.
        """
        rows = join_buckets([*self._over[level], self._open[level]])
        if everything:
            return _sorted(rows)
        coarser = _COARSER.get(level, 1)
        limit = self._current() // coarser * coarser
        return _sorted(rows.take(np.flatnonzero(self._eligible(level, rows, limit))))

    def written(self, level: str, *, everything: bool) -> None:
        """Forgets what ``take`` returned."""
        if everything:
            self._over[level], self._open[level] = [], no_buckets()
            for coarser in LEVELS[LEVELS.index(level) + 1 :]:
                self.split(coarser)
            return
        coarser_width = _COARSER.get(level, 1)
        limit = self._current() // coarser_width * coarser_width
        over = join_buckets([*self._over[level], no_buckets()])
        self._over[level] = [over.take(np.flatnonzero(~self._eligible(level, over, limit)))]

    def split(self, level: str) -> None:
        """Ends the open windows of a level here: what comes later in them makes buckets of its own."""
        self._over[level].append(self._open[level])
        self._open[level] = no_buckets()

    def _eligible(self, level: str, rows: BucketRows, limit: Integer) -> npt.NDArray[np.bool_]:
        width = WIDTHS[level]
        ended: npt.NDArray[np.bool_] = rows["step_lo"] // width < self._current()[rows["optimizer"]] // width
        return ended & (rows["step_lo"] < limit[rows["optimizer"]])


_COARSER: Final = {level: WIDTHS[coarser] for level, coarser in pairwise(LEVELS)}


def _sorted(rows: BucketRows) -> BucketRows:
    return rows.take(np.lexsort((rows["step_lo"], rows["site"], rows["optimizer"])))
