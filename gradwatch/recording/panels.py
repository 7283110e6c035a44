"""Dense series of one signal, and the table of steps: plain arrays that rules and reporters read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gradwatch.statistics import (
    BINS,
    NULL,
    Float,
    Histogram,
    Integer,
    Statistics,
    over_elements,
    root_mean_square,
)

Steps = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 256
HISTOGRAMS: Final = ("histogram", "histogram_steps", "histogram_rows")
"""Columns that are not of one row a step."""


@dataclass(frozen=True, slots=True)
class Panel:
    """The series of one signal under one optimizer, dense: t captured steps by m sites.

    A site without a row at a step has ``n`` = ``NULL`` there and null in every other column; a gradient that was None
    has the stage ``absent`` and n = 0. Of a run in files a column is read when it is asked for, and may be read again
    when much else was asked for since: who needs one often keeps it.

    Attributes:
        signal: one of ``record.SIGNALS``.
        optimizer: index into ``SiteTable.optimizers``.
        steps: captured steps, ascending, shape [t].
        sites: site ids, ascending, shape [m].
        columns: the columns below, by name.
    """

    signal: str
    optimizer: int
    steps: Steps
    sites: npt.NDArray[np.uint32]
    columns: Mapping[str, Any]

    @property
    def stage(self) -> npt.NDArray[np.uint8]:
        """Positions in ``record.STAGES``, shape [t, m]."""
        return self.columns["stage"]  # type: ignore[no-any-return]

    @property
    def n(self) -> Integer:
        """Elements, integers of 32 or 64 bits, shape [t, m]; ``NULL`` without a row.

        This and other columns that do not change may be a view of one row or value, which cannot be written to.
        """
        return self.columns["n"]  # type: ignore[no-any-return]

    @property
    def l2(self) -> Float:
        """Norms, float64, shape [t, m]; NaN is null."""
        return self.columns["l2"]  # type: ignore[no-any-return]

    @property
    def sum(self) -> Float:
        """Sums, float64, shape [t, m]; NaN is null."""
        return self.columns["sum"]  # type: ignore[no-any-return]

    @property
    def absmax(self) -> Float:
        """Largest absolute values, float64, shape [t, m]; NaN is null."""
        return self.columns["absmax"]  # type: ignore[no-any-return]

    @property
    def nan(self) -> Integer:
        """Elements that are NaN, shape [t, m]; ``NULL`` without a row."""
        return self.columns["nan"]  # type: ignore[no-any-return]

    @property
    def inf(self) -> Integer:
        """Elements that are infinite, shape [t, m]; ``NULL`` without a row."""
        return self.columns["inf"]  # type: ignore[no-any-return]

    @property
    def zeros(self) -> Integer:
        """Elements that are exactly 0, shape [t, m]; ``NULL`` where not taken."""
        return self.columns["zeros"]  # type: ignore[no-any-return]

    @property
    def subnormal(self) -> Integer:
        """Elements that are subnormal, shape [t, m]; ``NULL`` where not taken."""
        return self.columns["subnormal"]  # type: ignore[no-any-return]

    @property
    def histogram_steps(self) -> Steps:
        """Rows of ``steps`` that have histograms, as indices, shape [h]."""
        return self.columns["histogram_steps"]  # type: ignore[no-any-return]

    @property
    def histogram(self) -> Histogram:
        """Histograms of these rows, uint32, shape [h, m, 64]."""
        return self.columns["histogram"]  # type: ignore[no-any-return]

    @property
    def units(self) -> npt.NDArray[np.int64] | None:
        """Counts per unit, shape [4, t, m] in the order of ``UnitCounts``, or None."""
        return self.columns["units"]  # type: ignore[no-any-return]

    def statistics(self) -> Statistics:
        """Returns the columns as statistics of t * m flattened sites, without histogram; ``n`` is 0 where unknown."""
        known = np.maximum(self.n, 0).ravel()
        nan, inf = np.maximum(self.nan, 0).ravel(), np.maximum(self.inf, 0).ravel()
        columns = (self.l2.ravel(), self.sum.ravel(), self.absmax.ravel())
        return Statistics(known, *columns, nan, inf, self.zeros.ravel(), self.subnormal.ravel())

    def rms(self) -> Float:
        """Returns l2 / sqrt(finite elements), shape [t, m]."""
        n, nan, inf, l2 = self.n, self.nan, self.inf, self.l2
        rms = np.empty(n.shape)
        for start in range(0, len(rms), _ROWS_AT_ONCE):
            at = slice(start, start + _ROWS_AT_ONCE)
            finite = np.maximum(n[at], 0) - np.maximum(nan[at], 0) - np.maximum(inf[at], 0)
            rms[at] = root_mean_square(l2[at], finite)
        return rms

    def mean(self) -> Float:
        """Returns sum / finite elements, shape [t, m]."""
        finite = np.maximum(self.n, 0) - np.maximum(self.nan, 0) - np.maximum(self.inf, 0)
        return over_elements(self.sum, finite)

    def at(self, rows: slice | npt.NDArray[np.intp]) -> Panel:
        """Returns the panel of some of its steps, by position, without histograms."""
        return Panel(self.signal, self.optimizer, self.steps[rows], self.sites, Selected(self.columns, rows))

    def histograms(self) -> Iterator[tuple[Steps, Histogram]]:
        """Yields rows of ``steps`` that have histograms and these, some at a time where they are in files."""
        parts = getattr(self.columns, "histograms", None)
        if parts is None:
            yield self.histogram_steps, self.histogram
        else:
            yield from parts()


class Selected(Mapping[str, Any]):
    """Columns of some rows of a panel."""

    def __init__(self, columns: Mapping[str, Any], rows: slice | npt.NDArray[np.intp]) -> None:
        self._columns = columns
        self._rows = rows

    def __getitem__(self, name: str) -> Any:
        if name in HISTOGRAMS:
            raise KeyError(name)
        column = self._columns[name]
        return None if column is None else column[:, self._rows] if name == "units" else column[self._rows]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._columns if name not in HISTOGRAMS)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@runtime_checkable
class InParts(Protocol):
    """Panels of which some steps after others can be had in memory: those of a run in files."""

    def parts(self, optimizer: int, begin: int) -> Iterator[Mapping[tuple[str, int], Panel]]:
        """Yields the panels of an optimizer from a step on, in order, no step in two of them."""
        ...


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
    units: bool = False,
) -> Panel:
    """Returns a panel of nulls; ``histograms`` names the steps with histograms, ``units`` asks for counts per unit."""
    shape = (len(steps), len(sites))
    at = np.searchsorted(steps, histograms).astype(np.int64)

    def counts() -> Integer:
        return np.full(shape, NULL, dtype=np.int64)

    def values() -> Float:
        return np.full(shape, np.nan)

    columns: dict[str, Any] = {name: counts() for name in ("n", "nan", "inf", "zeros", "subnormal")}
    columns |= {name: values() for name in ("l2", "sum", "absmax")}
    columns |= {
        "stage": np.zeros(shape, dtype=np.uint8),
        "histogram_steps": at,
        "histogram": np.zeros((len(at), len(sites), BINS), dtype=np.uint32),
        "units": np.full((4, *shape), NULL, dtype=np.int64) if units else None,
    }
    return Panel(signal, optimizer, steps, sites, columns)
