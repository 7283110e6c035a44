"""Where the rows of sites lie: rectangles of sites by steps, so that their keys need not be kept row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.statistics import Integer
from gradwatch.store.columns import Column

Sites = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp] | slice


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows of one optimizer: every one of s sites at every one of t steps, the steps of a site behind one another.

    Attributes:
        optimizer: index into the optimizers.
        sites: ids, shape [s].
        steps: ascending, shape [t]; one that stands twice was given twice, the last of them stands.
        first: the row of each site's first step, shape [s].
        along: how far behind it the row of each step is, shape [t].
    """

    optimizer: int
    sites: Sites
    steps: Integer
    first: Integer
    along: Integer

    def __len__(self) -> int:
        return len(self.sites) * len(self.steps)

    def rows(self) -> Integer:
        """Returns the row of each cell, shape [s, t]."""
        return self.first[:, None] + self.along[None, :]

    def cells(self, column: Column) -> Column:
        """Returns the values of a column of rows, shape [s, t, ...]; a view of it where they lie together."""
        if not len(self):
            return column[:0].reshape(len(self.sites), len(self.steps), *column.shape[1:])
        begin, wide = int(self.first[0] + self.along[0]), len(self.steps)
        pitch = int(self.first[1] - self.first[0]) if len(self.first) > 1 else wide
        together = _even(self.along, 1) and _even(self.first, pitch) and pitch >= wide
        if together and begin + pitch * len(self.sites) <= len(column):
            block = column[begin : begin + pitch * len(self.sites)]
            return block.reshape(len(self.sites), pitch, *column.shape[1:])[:, :wide]
        return column[self.rows()]

    def spread(self, column: Column, target: Column, rows: Places, columns: Places) -> None:
        """Puts a column's values into [steps, sites, ...] cells; ``places`` gives the rows and columns of the cells."""
        if column.strides[0] == 0 and column.ndim == 1 and len(self):
            values = column[:1, None]
        else:
            values = np.swapaxes(self.cells(column), 0, 1)
        if isinstance(rows, slice) or isinstance(columns, slice):
            target[rows, columns] = values
        else:
            target[np.ix_(rows, columns)] = values

    def at_steps(self, kept: npt.NDArray[np.bool_]) -> Grid:
        """Keeps the steps where the mask is True."""
        return self if kept.all() else replace(self, steps=self.steps[kept], along=self.along[kept])

    def of_sites(self, kept: npt.NDArray[np.bool_]) -> Grid:
        """Keeps the sites where the mask is True."""
        return self if kept.all() else replace(self, sites=self.sites[kept], first=self.first[kept])


def grids_of(step: Column, optimizer: Column, site: Column) -> Iterator[Grid]:
    """Yields the rows of these keys, which are in order of site and step, as few grids.

    Neighbouring sites that have rows at the same steps are one grid.
    """
    if not len(step):
        return
    new = (site[1:] != site[:-1]) | (optimizer[1:] != optimizer[:-1])
    first = np.concatenate([[0], np.flatnonzero(new) + 1])
    length = np.diff(first, append=len(step))
    alike = _alike(step, first, length) & (optimizer[first[1:]] == optimizer[first[:-1]])
    bounds = [0, *(np.flatnonzero(~alike) + 1).tolist(), len(first)]
    for low, high in pairwise(bounds):
        begin, wide = int(first[low]), int(length[low])
        steps = step[begin : begin + wide].astype(np.int64)
        sites = site[first[low:high]].astype(np.uint32)
        yield Grid(int(optimizer[begin]), sites, steps, first[low:high].copy(), np.arange(wide))


def places(known: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> Places:
    """Returns where values, all of them known, are in an ascending array: a slice where they follow one another."""
    found = np.searchsorted(known, wanted)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) and _even(found, 1) else found


def _alike(step: Column, first: Integer, length: Integer) -> npt.NDArray[np.bool_]:
    """Tells which runs of rows, but the first, have the steps of the run before."""
    alike = np.asarray(length[1:] == length[:-1])
    if not alike.any():
        return alike
    before = np.arange(len(step)) - np.repeat(np.concatenate([[0], length[:-1]]), length)
    differs = step != step[np.maximum(before, 0)]
    return np.asarray(alike & (np.add.reduceat(differs, first, dtype=np.int64)[1:] == 0))


def _even(values: Integer, distance: int) -> bool:
    """Tells whether ascending values are all this far apart."""
    return bool((np.diff(values) == distance).all())
