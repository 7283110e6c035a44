"""Merging the panels of a launch's ranks: reduced rows are the same everywhere, shards add, the rest stays apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import ABSENT, STAGES, SiteTable
from gradwatch.recording.panels import Panel, empty_panel
from gradwatch.recording.series import Key
from gradwatch.statistics import NULL, Statistics, merge

DISAGREEMENT: Final = 1e-4
"""Relative difference of ``l2`` above which ranks disagree; the order of a float32 reduction changes some 1e-6."""

_REDUCED: Final = np.array([stage.startswith("reduced") for stage in STAGES])
_SHARD: Final = np.array([stage == "shard" for stage in STAGES])
_ABSENT: Final = STAGES.index(ABSENT)
_COLUMNS: Final = ("stage", "n", "l2", "sum", "absmax", "nan", "inf", "zeros", "subnormal")


@dataclass(slots=True)
class _Disagreement:
    """Cells in which two ranks give different numbers for the same reduced gradient."""

    count: int = 0
    largest: float = 0.0
    first: tuple[int, int] | None = None
    ranks: set[int] = field(default_factory=set)


def merge_ranks(panels: Mapping[int, Mapping[Key, Panel]], sites: SiteTable) -> tuple[dict[Key, Panel], list[str]]:
    """Merges the panels of ranks, whose site ids are all of one table; returns them with notes on disagreement.

    The lowest rank gives its rows in full. Of the others, reduced rows fill what it lacks and are compared with what
    it has, shards are added to its shards, and rows of other stages are left out: they belong to their rank.
    """
    order = sorted(panels)
    merged = dict(panels[order[0]]) if order else {}
    found = _Disagreement()
    for rank in order[1:]:
        for key, other in panels[rank].items():
            if _mergeable(other).any():
                base = merged.get(key) or _nothing_like(other)
                merged[key] = _merge_pair(base, other, rank, found)
    return merged, list(_notes(found, sites))


def _mergeable(panel: Panel) -> npt.NDArray[np.bool_]:
    there: npt.NDArray[np.bool_] = (panel.n != NULL) & (_REDUCED | _SHARD)[panel.stage]
    return there


def _nothing_like(panel: Panel) -> Panel:
    nothing = np.zeros(0, dtype=np.int64)
    return empty_panel(panel.signal, panel.optimizer, nothing, panel.sites[:0], histograms=nothing)


def _merge_pair(base: Panel, other: Panel, rank: int, found: _Disagreement) -> Panel:
    useful = _mergeable(other)
    steps = np.union1d(base.steps, other.steps[useful.any(axis=1)])
    sites = np.union1d(base.sites, other.sites[useful.any(axis=0)]).astype(np.uint32)
    merged = _widened(base, other, steps, sites)
    row, column = np.nonzero(useful)
    t, s = np.searchsorted(steps, other.steps)[row], np.searchsorted(sites, other.sites)[column]
    there = (merged.n[t, s] != NULL) & (merged.stage[t, s] != _ABSENT)
    _fill(merged, other, (t[~there], s[~there]), (row[~there], column[~there]))
    both = there & _REDUCED[merged.stage[t, s]] & _REDUCED[other.stage[row, column]]
    _compare(merged, other, (t[both], s[both]), (row[both], column[both]), rank, found)
    shards = there & _SHARD[merged.stage[t, s]] & _SHARD[other.stage[row, column]]
    _add(merged, other, (t[shards], s[shards]), (row[shards], column[shards]))
    return merged


Cells = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def _widened(base: Panel, other: Panel, steps: npt.NDArray[np.int64], sites: npt.NDArray[np.uint32]) -> Panel:
    """Returns a copy of a panel over more steps and sites, with room for the histograms of both."""
    with_histogram = np.union1d(base.steps[base.histogram_steps], other.steps[other.histogram_steps])
    histograms = with_histogram[np.isin(with_histogram, steps)]
    units = base.units is not None
    wide = empty_panel(base.signal, base.optimizer, steps, sites, histograms=histograms, units=units)
    t, s = np.searchsorted(steps, base.steps), np.searchsorted(sites, base.sites)
    for name in _COLUMNS:
        getattr(wide, name)[np.ix_(t, s)] = getattr(base, name)
    at = np.searchsorted(histograms, base.steps[base.histogram_steps])
    wide.histogram[np.ix_(at, s)] = base.histogram
    if wide.units is not None and base.units is not None:
        wide.units[np.ix_(np.arange(4), t, s)] = base.units
    return wide


def _fill(merged: Panel, other: Panel, to: Cells, source: Cells) -> None:
    for name in _COLUMNS:
        getattr(merged, name)[to] = getattr(other, name)[source]
    into, taken = _histogram_rows(merged, to), _histogram_rows(other, source)
    has = (into >= 0) & (taken >= 0)
    merged.histogram[into[has], to[1][has]] = other.histogram[taken[has], source[1][has]]


def _compare(merged: Panel, other: Panel, to: Cells, source: Cells, rank: int, found: _Disagreement) -> None:
    mine, theirs = merged.l2[to], other.l2[source]
    size = np.fmax(np.abs(mine), np.abs(theirs))
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(mine == theirs, 0.0, np.abs(mine - theirs) / size)
    relative[np.isnan(mine) & np.isnan(theirs)] = 0.0
    relative[np.isnan(mine) != np.isnan(theirs)] = np.inf
    wrong = np.flatnonzero(relative > DISAGREEMENT)
    if len(wrong):
        first = wrong[np.argmin(merged.steps[to[0][wrong]])]
        where = (int(merged.steps[to[0][first]]), int(merged.sites[to[1][first]]))
        found.first = min(where, found.first) if found.first else where
        found.count += len(wrong)
        found.largest = max(found.largest, float(relative[wrong].max()))
        found.ranks.add(rank)


def _add(merged: Panel, other: Panel, to: Cells, source: Cells) -> None:
    if not len(to[0]):
        return
    into, taken = _histogram_rows(merged, to), _histogram_rows(other, source)
    total = merge(_cells(merged, to), _cells(other, source))
    for name in _COLUMNS[1:]:
        getattr(merged, name)[to] = getattr(total, name)
    both, one = (into >= 0) & (taken >= 0), (into >= 0) & (taken < 0)
    merged.histogram[into[both], to[1][both]] += other.histogram[taken[both], source[1][both]]
    # A histogram of some shards only would be one of unknown elements: null, as in statistics.merge.
    merged.histogram[into[one], to[1][one]] = 0


def _cells(panel: Panel, at: Cells) -> Statistics:
    return Statistics(**{name: getattr(panel, name)[at] for name in _COLUMNS[1:]})


def _histogram_rows(panel: Panel, at: Cells) -> npt.NDArray[np.int64]:
    """Returns the position in ``histogram`` of each cell's step, -1 where the step has none."""
    position = np.full(len(panel.steps), -1, dtype=np.int64)
    position[panel.histogram_steps] = np.arange(len(panel.histogram_steps))
    return position[at[0]]


def _notes(found: _Disagreement, sites: SiteTable) -> Iterator[str]:
    if found.first is not None:
        step, site = found.first
        ranks = ", ".join(str(rank) for rank in sorted(found.ranks))
        how = f"by up to {found.largest:.2g} relative" if np.isfinite(found.largest) else "(finite against non-finite)"
        yield (
            f"Reduced gradients differ between rank 0 and rank {ranks} in {found.count} rows {how}, first at step "
            f"{step} in {sites[site].name}: the ranks do not train the same model."
        )
