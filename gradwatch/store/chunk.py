"""Rows of sites that are loaded when they are needed: their keys are in memory, their values still in the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import STAGES
from gradwatch.statistics import NULL, Integer
from gradwatch.store.columns import COUNTS, UNITS, Column, Rows, compact

SMALL: Final = 2**30
"""Counts below it and sums of two of them fit 32 bits."""


class Chunk:
    """Some rows of sites.

    Attributes:
        step, optimizer, site: their keys, shape [r] each.
        histogram: whether a row has a histogram, shape [r].
        units: whether a row has counts per unit, shape [r].
        small: whether every count is below ``SMALL``.
    """

    def __init__(self, rows: Rows, load: Callable[[], Rows]) -> None:
        step = rows["step"]
        fits = bool(len(step)) and step.min() >= 0 and step.max() < 2**31
        self.step: Column = step.astype(np.int32) if fits else step
        self.optimizer: Column = compact(rows["optimizer"])
        self.site: Column = rows["site"]
        histogram = np.zeros(len(rows), dtype=np.bool_)
        histogram[rows.histogram_rows] = True
        self.histogram: Column = compact(histogram)
        self.units: Column = compact(np.logical_or.reduce([rows[name] != NULL for name in UNITS]))
        self.small = all(bool((rows[name] < SMALL).all()) for name in COUNTS)
        self._load = load
        self._kept: Integer | None = None

    def __len__(self) -> int:
        return len(self.step)

    def keep(self, mask: npt.NDArray[np.bool_]) -> int:
        """Leaves out the rows where the mask is False; returns how many."""
        if mask.all():
            return 0
        index = np.flatnonzero(mask)
        self._kept = index if self._kept is None else self._kept[index]
        for name in ("step", "optimizer", "site", "histogram", "units"):
            setattr(self, name, getattr(self, name)[index])
        return len(mask) - len(index)

    def rename(self, sites: npt.NDArray[np.uint32], optimizers: npt.NDArray[np.uint8]) -> None:
        """Maps site ids and optimizers by the tables given."""
        if not np.array_equal(sites, np.arange(len(sites))):
            self.site = sites[self.site]
        if not np.array_equal(optimizers, np.arange(len(optimizers))):
            self.optimizer = optimizers[self.optimizer]

    def rows(self) -> Rows:
        """Loads the rows; a stage that only a later release knows becomes "unknown"."""
        rows = self._load()
        if self._kept is not None:
            rows = rows.take(self._kept)
        stage = rows["stage"]
        if (stage >= len(STAGES)).any():
            stage = np.where(stage < len(STAGES), stage, STAGES.index("unknown")).astype(np.uint8)
        return replace(rows, columns={**rows.columns, "site": self.site, "optimizer": self.optimizer, "stage": stage})


def chunk_of(rows: Rows) -> Chunk:
    """Returns rows that are in memory as a chunk."""
    return Chunk(rows, lambda: rows)
