"""Common time buckets: many captured steps become few columns without losing a spike.

Buckets are equal in captured steps, the same for every layer; those of the start may be finer. A bucket keeps its
maximum, and a non-finite value in it always shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
EARLY: Final = 8
"""One column of so many tells the first steps apart, where that is asked for."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Where t captured steps are cut into b <= t buckets.

    Attributes:
        starts: first row of each bucket, ascending, shape [b].
        first, last: first and last captured step of each bucket, shape [b].
    """

    starts: Index
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def maximum(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns each bucket's maximum over axis 0, shape [b, ...]; null only where all is null."""
        operation = np.fmax if values.dtype.kind == "f" else np.maximum
        return self._reduce(operation, values)

    def minimum(self, values: Float) -> Float:
        """Returns each bucket's minimum over axis 0, shape [b, ...]; null only where all is null."""
        return self._reduce(np.fmin, values)

    def mean(self, values: Float) -> Float:
        """Returns each bucket's mean of what is not null over axis 0, shape [b, ...]."""
        known = np.isfinite(values)
        total = self._reduce(np.add, np.where(known, values, 0.0))
        count = self._reduce(np.add, known.astype(np.float64))
        with np.errstate(invalid="ignore"):
            return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def total(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns each bucket's sum over axis 0, shape [b, ...]."""
        return self._reduce(np.add, values)

    def _reduce(self, operation: np.ufunc, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if len(self) == len(values):
            return values
        reduced: npt.NDArray[Any] = operation.reduceat(values, self.starts, axis=0)
        return reduced


def bucket(
    steps: npt.NDArray[np.int64],
    columns: int,
    *,
    last: npt.NDArray[np.int64] | None = None,
    keep: Iterable[int] = (),
    around: int = 64,
    early: bool = False,
) -> Buckets:
    """Cuts ascending steps, shape [t], into about ``columns`` buckets equal in captured steps.

    With windows of steps among them the buckets are equal in steps, and none cuts a window.

    Args:
        steps: captured steps, or the first ones of windows.
        last: the last steps of windows, or None when all are single steps.
        columns: number of buckets, 1 or more; fewer when there are fewer steps.
        keep: steps around which every captured step has a bucket of its own (more buckets than ``columns``).
        around: how many captured steps on either side of ``keep``.
        early: whether one column of ``EARLY`` goes to the first of single steps: on a logarithmic axis they are to be
            told apart, whatever the length of the run.
    """
    t = len(steps)
    if t <= columns:
        starts = np.arange(t, dtype=np.intp)
    elif last is None or np.array_equal(last, steps):
        starts = np.unique(_even(t, columns, columns // EARLY if early else 0).astype(np.intp))
    else:
        starts = _starts(steps, last, columns)
    if t > columns:
        for step in keep:
            at = int(np.searchsorted(steps, step))
            starts = np.union1d(starts, np.arange(max(0, at - around), min(t, at + around + 2), dtype=np.intp))
    ends = np.append(starts[1:], t) - 1
    return Buckets(starts, steps[starts] if t else steps, (steps if last is None else last)[ends] if t else steps)


def _even(t: int, columns: int, finer: int) -> Float:
    """Returns where rows are cut: ``finer`` columns of one step and then of ever more, the others equal."""
    width = max(t // columns, finer)
    k = np.arange(finer)
    early = np.maximum(k, float(width) ** (k / max(1, finer)) - 1)
    return np.concatenate([early, np.linspace(width if finer else 0, t, columns - finer, endpoint=False)])


def _starts(first: npt.NDArray[np.int64], last: npt.NDArray[np.int64], columns: int) -> Index:
    cell = (first - first[0]) * columns // (last[-1] - first[0] + 1)
    return np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1]]))


def joins(first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tells which buckets follow their predecessor without a hole, shape [b]; the first never does.

    A hole is more than twice the smallest distance: samples apart are drawn as points, never as a line between them.
    """
    if len(first) < 2:
        return np.zeros(len(first), dtype=np.bool_)
    distance = first[1:] - last[:-1]
    return np.concatenate([[False], distance <= 2 * max(1, int(distance.min()))])


def time_axis(first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> dict[str, list[int]]:
    """Writes buckets for the script: their first and last steps, and which of them do not follow their predecessor."""
    return {
        "first": first.tolist(),
        "last": last.tolist(),
        "breaks": np.flatnonzero(~joins(first, last)).tolist(),
    }
