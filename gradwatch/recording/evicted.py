"""What is left of the steps whose rows were evicted: pins, and the roll-ups that stand in for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import SiteTable
from gradwatch.recording.buckets import BucketPanel
from gradwatch.recording.levels import Key, bucket_panels, spans
from gradwatch.recording.span import Span
from gradwatch.statistics import Integer
from gradwatch.store.stored import StoredAttempt

Ids = Callable[[StoredAttempt], tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]]

_NEVER: Final = np.iinfo(np.int64).max


def stand_ins(
    attempts: list[StoredAttempt], ids: Ids, sites: SiteTable
) -> tuple[dict[Key, BucketPanel], dict[int, int]]:
    """Returns the buckets before the rows that are there in full, and each optimizer's first step of these.

    The buckets are those of the lowest rank. A bucket that a later attempt cuts is shown whole, up to the cut. Pins
    that lie in the full part, because their file is still there, are left out of the attempts.

    Args:
        attempts: with the run's ids, cut where later attempts begin.
        ids: gives the run's ids of an attempt's sites and optimizers.
        sites: the run's table.
    """
    chosen: list[Span] = []
    begins: dict[int, int] = {}
    lowest = min((attempt.rank for attempt in attempts), default=0)
    for rank in sorted({attempt.rank for attempt in attempts}):
        mine = [attempt for attempt in attempts if attempt.rank == rank]
        evicted = [attempt.number for attempt in mine if attempt.evicted]
        if evicted:
            _add(begins, _first_rows([attempt for attempt in mine if attempt.number >= max(evicted)]))
        for attempt in mine:
            full = _full_from(attempt)
            for chunk in attempt.pins:
                chunk.keep_before(full)
            if rank == lowest and attempt.evicted:
                chosen += spans(attempt, full, *ids(attempt))
            attempt.buckets = []
    panels = bucket_panels(chosen, sites)
    for (_, optimizer), panel in panels.items():
        np.minimum(panel.last, begins.get(optimizer, _NEVER) - 1, out=panel.last)
    return panels, begins


def _full_from(attempt: StoredAttempt) -> Integer:
    """Returns the first step of each optimizer that is in an attempt's rows, else where the next attempt begins."""
    full = np.full(256, _NEVER) if attempt.until is None else attempt.until.copy()
    for optimizer, step in _first_rows([attempt]).items():
        full[optimizer] = min(full[optimizer], step)
    return full


def _first_rows(attempts: list[StoredAttempt]) -> dict[int, int]:
    firsts = np.full(256, _NEVER)
    for attempt in attempts:
        for grid in (grid for chunk in attempt.rows for grid in chunk.grids):
            firsts[grid.optimizer] = min(firsts[grid.optimizer], grid.steps.min())
    return {int(i): int(firsts[i]) for i in np.flatnonzero(firsts != _NEVER)}


def _add(begins: dict[int, int], found: dict[int, int]) -> None:
    for optimizer, step in found.items():
        begins[optimizer] = max(step, begins.get(optimizer, step))
