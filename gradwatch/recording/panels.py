"""Dense series of one signal, and the table of steps: plain arrays that rules and reporters read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.record import ABSENT, STAGES, Block
from gradwatch.statistics import BINS, NULL, Float, Histogram, Integer, Statistics, UnitCounts, root_mean_square

Steps = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Panel:
    """The series of one signal under one optimizer, dense: t captured steps by m sites.

    A site without a row at a step has ``n`` = ``NULL`` there and null in every other column; a gradient that was None
    has the stage ``absent`` and n = 0.

    Attributes:
        signal: one of ``record.SIGNALS``.
        optimizer: index into ``SiteTable.optimizers``.
        steps: captured steps, ascending, shape [t].
        sites: site ids, ascending, shape [m].
        stage: positions in ``record.STAGES``, uint8, shape [t, m].
        n, nan, inf, zeros, subnormal: integers of 32 or 64 bits, shape [t, m]; ``NULL`` where not taken. A column of
            one value may be a view of it, which cannot be written to.
        l2, sum, absmax: float64, shape [t, m]; NaN is null.
        histogram_steps: rows of ``steps`` that have histograms, as indices, shape [h].
        histogram: uint32, shape [h, m, 64].
        units: shape [4, t, m] in the order of ``UnitCounts``, or None.
    """

    signal: str
    optimizer: int
    steps: Steps
    sites: npt.NDArray[np.uint32]
    stage: npt.NDArray[np.uint8]
    n: Integer
    l2: Float
    sum: Float
    absmax: Float
    nan: Integer
    inf: Integer
    zeros: Integer
    subnormal: Integer
    histogram_steps: Steps
    histogram: Histogram
    units: npt.NDArray[np.int64] | None = None

    def statistics(self) -> Statistics:
        """Returns the columns as statistics of t * m flattened sites, without histogram; ``n`` is 0 where unknown."""
        known = np.maximum(self.n, 0).ravel()
        nan, inf = np.maximum(self.nan, 0).ravel(), np.maximum(self.inf, 0).ravel()
        columns = (self.l2.ravel(), self.sum.ravel(), self.absmax.ravel())
        return Statistics(known, *columns, nan, inf, self.zeros.ravel(), self.subnormal.ravel())

    def rms(self) -> Float:
        """Returns l2 / sqrt(finite elements), shape [t, m]."""
        rms = np.empty(self.n.shape)
        for start in range(0, len(rms), _ROWS_AT_ONCE):
            at = slice(start, start + _ROWS_AT_ONCE)
            finite = np.maximum(self.n[at], 0) - np.maximum(self.nan[at], 0) - np.maximum(self.inf[at], 0)
            rms[at] = root_mean_square(self.l2[at], finite)
        return rms

    def mean(self) -> Float:
        """Returns sum / finite elements, shape [t, m]."""
        return self.statistics().mean().reshape(self.n.shape)

    def blocks(self, row: int) -> Iterator[Block]:
        """Rebuilds the blocks of one captured step, one per stage."""
        present = self.n[row] != NULL
        slot = np.searchsorted(self.histogram_steps, row)
        has_histogram = slot < len(self.histogram_steps) and self.histogram_steps[slot] == row
        for stage in np.unique(self.stage[row][present]):
            at = np.flatnonzero(present & (self.stage[row] == stage))
            full = bool((self.zeros[row, at] != NULL).any())
            yield Block(
                self.signal,
                self.sites[at],
                Statistics(
                    self.n[row, at].astype(np.int64),
                    self.l2[row, at],
                    self.sum[row, at],
                    self.absmax[row, at],
                    self.nan[row, at].astype(np.int64),
                    self.inf[row, at].astype(np.int64),
                    self.zeros[row, at].astype(np.int64) if full else None,
                    self.subnormal[row, at].astype(np.int64) if full else None,
                    self.histogram[slot, at] if has_histogram and STAGES[stage] != ABSENT else None,
                ),
                STAGES[stage],
                None if self.units is None else UnitCounts(*self.units[:, row, at]),
            )


@dataclass(frozen=True, slots=True)
class StepTable:
    """One row a captured step of one optimizer, ascending.

    Attributes:
        steps: shape [t].
        time: seconds since the attempt began, shape [t].
        skipped: bool, shape [t].
        facts: name of ``record.STEP_FACTS`` to float64 column, NaN where not given, shape [t] each.
        logged: name the user logged to float64 column, shape [t] each. What the user logged as NaN or infinity is in
            ``nonfinite_logged``.
        nonfinite_logged: (step, name, value) of logged scalars that were not finite.
    """

    steps: Steps
    time: Float
    skipped: npt.NDArray[np.bool_]
    facts: Mapping[str, Float]
    logged: Mapping[str, Float]
    nonfinite_logged: tuple[tuple[int, str, float], ...] = ()


def empty_panel(
    signal: str,
    optimizer: int,
    steps: Steps,
    sites: npt.NDArray[np.uint32],
    *,
    histograms: Steps,
    integer: type[np.signedinteger[Any]] = np.int64,
) -> Panel:
    """Returns a panel of nulls; ``histograms`` names the steps with histograms, ``integer`` the type of counts."""
    shape = (len(steps), len(sites))
    at = np.searchsorted(steps, histograms).astype(np.int64)

    def counts() -> Integer:
        return np.full(shape, NULL, dtype=integer)

    def values() -> Float:
        return np.full(shape, np.nan)

    return Panel(
        signal,
        optimizer,
        steps,
        sites,
        stage=np.zeros(shape, dtype=np.uint8),
        n=counts(),
        l2=values(),
        sum=values(),
        absmax=values(),
        nan=counts(),
        inf=counts(),
        zeros=counts(),
        subnormal=counts(),
        histogram_steps=at,
        histogram=np.zeros((len(at), len(sites), BINS), dtype=np.uint32),
    )
