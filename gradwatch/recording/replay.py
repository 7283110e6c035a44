"""The steps of panels in memory as the records that they were, for the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import ABSENT, STAGES, Block
from gradwatch.recording.panels import Panel, Steps
from gradwatch.statistics import NULL, Float, Histogram, Integer, Statistics, UnitCounts


class LateHistograms(dict[str, Any]):
    """Columns in memory, of which the histograms are read when they are asked for."""

    def __init__(
        self,
        columns: Mapping[str, Any],
        read: Callable[[], tuple[Steps, Histogram]],
        without: Callable[[], npt.NDArray[np.bool_]],
    ) -> None:
        """Takes the other columns.

        Args:
            columns: the other columns.
            read: returns which rows have histograms, and these.
            without: tells which rows have none for certain, at little cost, shape [t].
        """
        super().__init__(columns)
        self._read = read
        self._without = without

    @cached_property
    def without(self) -> npt.NDArray[np.bool_]:
        """Which rows have none for certain, shape [t]."""
        return self._without()

    def __missing__(self, name: str) -> Any:
        if name not in ("histogram_steps", "histogram"):
            raise KeyError(name)
        self["histogram_steps"], self["histogram"] = self._read()
        return self[name]


class Replay:
    """The blocks of the steps of a panel, one after another."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._present = panel.n != NULL
        stage = self._stage = panel.stage
        # A row of one stage, in which every site is, needs no selection: its blocks are views of the columns.
        one_stage = stage.min(axis=1) == stage.max(axis=1) if len(panel.sites) else False
        self._plain = self._present.all(axis=1) & one_stage
        self._full = (panel.zeros != NULL).any(axis=1)
        self._columns = {name: panel.columns[name] for name in _REPLAYED}

    def blocks(self, row: int) -> Iterator[Block]:
        """Rebuilds the blocks of one captured step, one per stage."""
        if self._plain[row]:
            yield self._block(row, slice(None), int(self._stage[row, 0]), full=bool(self._full[row]))
            return
        stages, present = self._stage[row], self._present[row]
        for stage in np.unique(stages[present]).tolist():
            at = np.flatnonzero(present & (stages == stage))
            full = bool(self._full[row]) and bool((self._columns["zeros"][row, at] != NULL).any())
            yield self._block(row, at, stage, full=full)

    def _block(self, row: int, at: Integer | slice, stage: int, *, full: bool) -> Block:
        held, sites = self._columns, self._panel.sites
        statistics = _Replayed(
            _wide(held["n"][row, at]),
            held["l2"][row, at],
            held["sum"][row, at],
            held["absmax"][row, at],
            _wide(held["nan"][row, at]),
            _wide(held["inf"][row, at]),
            _wide(held["zeros"][row, at]) if full else None,
            _wide(held["subnormal"][row, at]) if full else None,
            None if STAGES[stage] == ABSENT else _Place(self._panel, row, at),
        )
        return Block(
            self._panel.signal,
            sites if isinstance(at, slice) else sites[at],
            statistics,
            STAGES[stage],
            None if held["units"] is None else UnitCounts(*held["units"][:, row, at]),
        )


_REPLAYED: Final = ("n", "l2", "sum", "absmax", "nan", "inf", "zeros", "subnormal", "units")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where histograms are, for which few rules ask."""

    panel: Panel
    row: int
    at: Integer | slice

    def read(self) -> Histogram | None:
        columns = self.panel.columns
        if isinstance(columns, LateHistograms) and columns.without[self.row]:
            return None
        having = self.panel.histogram_steps
        slot = int(np.searchsorted(having, self.row))
        if slot == len(having) or having[slot] != self.row:
            return None
        return self.panel.histogram[slot, self.at]


class _Replayed(Statistics):
    """Statistics whose histograms may be read when they are asked for."""

    __slots__ = ("_place",)
    _place: _Place | Histogram | None

    def __init__(
        self,
        n: Integer,
        l2: Float,
        sum: Float,
        absmax: Float,
        nan: Integer,
        inf: Integer,
        zeros: Integer | None = None,
        subnormal: Integer | None = None,
        histogram: _Place | Histogram | None = None,
    ) -> None:
        columns = (n, l2, sum, absmax, nan, inf, zeros, subnormal)
        for name, column in zip(_STATISTICS, columns, strict=True):
            object.__setattr__(self, name, column)
        object.__setattr__(self, "_place", histogram)

    @property
    def histogram(self) -> Histogram | None:
        """As in ``Statistics``."""
        return self._place.read() if isinstance(self._place, _Place) else self._place

    def __reduce__(self) -> tuple[Any, ...]:
        return Statistics, tuple(getattr(self, field.name) for field in fields(Statistics))


_STATISTICS: Final = ("n", "l2", "sum", "absmax", "nan", "inf", "zeros", "subnormal")


def _wide(counts: Integer) -> Integer:
    return counts.astype(np.int64, copy=False)
