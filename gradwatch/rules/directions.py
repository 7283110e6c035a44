"""Where gradients and updates point, as far as sums over parameters tell: one coordinate a parameter."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.rules.view import Rows
from gradwatch.statistics import Float

SEEN: Final = 1e-4
"""Share of a parameter's norm below which its sum is rounding: the gradient at a softmax sums to 0 over the classes."""


def coordinates(rows: Rows) -> Float:
    """Returns the projection of each parameter on its unit vector of equal elements, shape [p]; null where not seen.

    That is sum / sqrt(n): a linear map of the whole vector, so whatever holds between vectors, such as g' = -g, holds
    between its coordinates.
    """
    found = rows.sum / np.sqrt(np.maximum(rows.n, 1))
    return np.where(np.abs(found) > SEEN * rows.l2, found, np.nan)


def cosine(one: Float, other: Float) -> float:
    """Returns the cosine between two vectors over the coordinates that both have; null without any."""
    shared = np.isfinite(one) & np.isfinite(other)
    if not np.count_nonzero(shared):
        return float("nan")
    a, b = one[shared], other[shared]
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
