"""Rows of sites that are read when they are needed: where they lie is in memory, their values still in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gradwatch.record import STAGES
from gradwatch.statistics import Histogram, Integer
from gradwatch.store.columns import Column, Rows
from gradwatch.store.grids import Grid, grids_of


class Source(Protocol):
    """Where the values of a chunk are."""

    def rows(self) -> Rows:
        """Returns all of its rows."""
        ...

    def columns(self, names: Sequence[str]) -> Mapping[str, Column | None]:
        """Returns some of ``ROW_COLUMNS`` of all its rows; None for one that is null in all of them."""
        ...

    def histogram(self) -> tuple[Integer, Histogram]:
        """Returns the positions of the rows that have a histogram, ascending, shape [h], and these, shape [h, 64]."""
        ...

    def histogram_steps(self) -> Integer | None:
        """Returns steps beside which none has a histogram; None when that is not known without reading them."""
        ...

    def histogram_count(self) -> int | None:
        """Returns how many rows have a histogram; None when that is not known without reading them."""
        ...


class Chunk:
    """Some rows of sites.

    Attributes:
        source: their values.
    """

    def __init__(self, step: Column, optimizer: Column, site: Column, source: Source) -> None:
        self.source = source
        self._size = len(step)
        self._keys: tuple[Column, Column, Column] | None = (step, optimizer, site)
        self._order: Integer | None = None
        self._grids: list[Grid] = []

    @property
    def grids(self) -> list[Grid]:
        """Where the rows lie, in the order that ``in_order`` gives."""
        if self._keys is not None:
            keys, self._keys = self._keys, None
            self._order = _order(*keys)
            order = slice(None) if self._order is None else self._order
            self._grids = list(grids_of(*(column[order] for column in keys)))
        return self._grids

    def settle(self) -> None:
        """Lets go of the keys row by row."""
        _ = self.grids

    def size(self) -> int:
        """Returns how many rows the source has."""
        return self._size

    def __len__(self) -> int:
        return sum(len(grid) for grid in self.grids)

    @property
    def last(self) -> int:
        """The last step, -1 without any."""
        return max((int(grid.steps.max()) for grid in self.grids), default=-1)

    @property
    def first(self) -> int:
        """The first step; undefined without any."""
        return min((int(grid.steps.min()) for grid in self.grids), default=0)

    def keep_steps(self, kept: Callable[[Grid], npt.NDArray[np.bool_]]) -> tuple[int, int | None]:
        """Leaves out the steps of each grid where a mask is False; returns how many rows, and the first step of them.

        Args:
            kept: gives the mask of a grid, shape [t].
        """
        before, gone, grids = len(self), list[int](), list[Grid]()
        for grid in self.grids:
            mask = kept(grid)
            if not mask.all():
                gone.append(int(grid.steps[~mask].min()))
            grids.append(grid.at_steps(mask))
        self._grids = [grid for grid in grids if len(grid)]
        return before - len(self), min(gone, default=None)

    def keep_before(self, limit: Integer) -> tuple[int, int | None]:
        """Leaves out the rows from an optimizer's limit on, shape [256]; returns how many and their first step."""
        return self.keep_steps(lambda grid: grid.steps < limit[grid.optimizer])

    def keep_known(self, sites: int, optimizers: int) -> int:
        """Leaves out the rows of sites and optimizers from these numbers on, and of steps below 0; returns how many."""
        before = len(self)
        grids = [grid.of_sites(grid.sites < sites) for grid in self.grids if grid.optimizer < optimizers]
        grids = [grid.at_steps(grid.steps >= 0) for grid in grids]
        self._grids = [grid for grid in grids if len(grid)]
        return before - len(self)

    def rename(self, sites: npt.NDArray[np.uint32], optimizers: npt.NDArray[np.uint8]) -> None:
        """Maps site ids and optimizers by the tables given."""
        same = np.array_equal(sites, np.arange(len(sites)))
        for i, grid in enumerate(self.grids):
            names = grid.sites if same else sites[grid.sites]
            self._grids[i] = replace(grid, sites=names, optimizer=int(optimizers[grid.optimizer]))

    def columns(self, names: Sequence[str]) -> dict[str, Column | None]:
        """Reads columns of all the source's rows in the order that the grids are of; None for one that is null."""
        found = dict(self.source.columns(names))
        stage = found.get("stage")
        if stage is not None:
            found["stage"] = known_stages(stage)
        return {name: None if column is None else self.in_order(column) for name, column in found.items()}

    def in_order(self, column: Column) -> Column:
        """Returns a column of the source's rows in the order that the grids are of."""
        self.settle()
        constant = column.strides[0] == 0
        return column if self._order is None or constant else column[self._order]

    def all_histograms_at(self) -> Integer | None:
        """Returns the steps at which every row has a histogram, where no other row has one; None when that is not so.

        Told without reading them, by their number.
        """
        steps, count = self.source.histogram_steps(), self.source.histogram_count()
        if steps is None or count is None:
            return None
        there = sum(len(grid.sites) * int(np.isin(grid.steps, steps).sum()) for grid in self.grids)
        return steps if there == count else None

    def rows(self) -> Rows:
        """Reads the rows that are kept, in the source's order, with the ids that were given to sites and optimizers."""
        rows = self.source.rows()
        keys = {name: rows[name].copy() for name in ("site", "optimizer")}
        kept = np.zeros(len(rows), dtype=np.bool_)
        for grid in self.grids:
            at = grid.rows() if self._order is None else self._order[grid.rows()]
            kept[at] = True
            keys["site"][at] = grid.sites[:, None]
            keys["optimizer"][at] = grid.optimizer
        found = replace(rows, columns={**rows.columns, **keys, "stage": known_stages(rows["stage"])})
        return found if kept.all() else found.take(np.flatnonzero(kept))


class InMemory:
    """Rows that are in memory, as a source."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def rows(self) -> Rows:
        """Returns them."""
        return self._rows

    def columns(self, names: Sequence[str]) -> Mapping[str, Column | None]:
        """Returns some of their columns."""
        return {name: self._rows[name] for name in names}

    def histogram(self) -> tuple[Integer, Histogram]:
        """Returns their histograms."""
        return self._rows.histogram_rows, self._rows.histogram

    def histogram_steps(self) -> Integer | None:
        """Returns the steps that have histograms."""
        return np.unique(self._rows["step"][self._rows.histogram_rows])

    def histogram_count(self) -> int:
        """Returns how many rows have a histogram."""
        return len(self._rows.histogram_rows)


def chunk_of(rows: Rows) -> Chunk:
    """Returns rows that are in memory as a chunk."""
    return Chunk(rows["step"], rows["optimizer"], rows["site"], InMemory(rows))


def known_stages(stage: Column) -> Column:
    """Returns stages, of which one that only a later release knows becomes "unknown"."""
    if not len(stage) or stage.max() < len(STAGES):
        return stage
    return np.where(stage < len(STAGES), stage, STAGES.index("unknown")).astype(np.uint8)


def _order(step: Column, optimizer: Column, site: Column) -> Integer | None:
    """Returns the order by optimizer, site, step and arrival; None when the rows are in that of sealed files."""
    same_site, forward = site[1:] == site[:-1], step[1:] >= step[:-1]
    if ((site[1:] > site[:-1]) | (same_site & forward)).all():
        return None
    return np.lexsort((step, site, optimizer))
