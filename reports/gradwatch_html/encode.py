"""Numbers as text in the page: a byte a cell on a logarithmic scale, gzip, base64.

Codes: 0 not captured, 1 the gradient was None, 2 exactly zero, 3..254 levels, 255 non-finite.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.statistics import Float
from gradwatch_html.metrics import FINITE, NO_GRADIENT, NON_FINITE, State

ZERO_CODE: Final = 2
FIRST_LEVEL: Final = 3
LAST_LEVEL: Final = 254
NON_FINITE_CODE: Final = 255
FINEST_STEP: Final = 0.05
"""Decades a level: 12 %, enough for colour and trend."""

COARSEST_STEP: Final = 0.1
"""251 levels of 0.1 span 25 decades; what lies below is clipped, counted and said."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A matrix of codes and its scale: a level c stands for 10^(low + (c - 3) * step), or for that share.

    Attributes:
        codes: uint8, shape [t, r].
        low: log10 of the lowest level's value (0 for shares).
        step: decades a level (share a level for shares).
        clipped: cells whose value lies below the lowest level.
    """

    codes: npt.NDArray[np.uint8]
    low: float
    step: float
    clipped: int = 0


def encode(values: Float, state: State, *, share: bool) -> Encoded:
    """Encodes a matrix of values, shape [t, r], NaN where there is none."""
    positive = (state == FINITE) & (values > 0)
    levels, low, step, clipped = _share_levels(values, positive) if share else _log_levels(values, positive)
    codes = np.zeros(values.shape, dtype=np.uint8)
    codes[state == NO_GRADIENT] = 1
    codes[(state == FINITE) & (values == 0)] = ZERO_CODE
    codes[positive] = levels
    codes[state == NON_FINITE] = NON_FINITE_CODE
    if share:
        # The share of non-finite elements is itself a finite number.
        bad = (state == NON_FINITE) & (values > 0)
        codes[bad] = _share_levels(values, bad)[0]
    return Encoded(codes, low, step, clipped)


def pack(data: bytes) -> str:
    """Compresses bytes to base64 text, the same bytes to the same text."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def pack_codes(codes: npt.NDArray[np.uint8]) -> str:
    """Packs a matrix [t, r] layer by layer, each as its differences over time modulo 256."""
    return pack(differences(codes))


def differences(codes: npt.NDArray[np.uint8]) -> bytes:
    """Writes a matrix [t, r] layer by layer, each as its differences over time modulo 256."""
    by_layer = np.ascontiguousarray(codes.T)
    found = by_layer.copy()
    found[:, 1:] = by_layer[:, 1:] - by_layer[:, :-1]
    return found.tobytes()


def json_island(data: Any) -> str:
    """Writes JSON that is safe inside a script element.

    Raises:
        ValueError: for a non-finite number; map it to None first.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _log_levels(values: Float, at: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.uint8], float, float, int]:
    if not at.any():
        return np.zeros(0, dtype=np.uint8), 0.0, FINEST_STEP, 0
    logs = np.log10(values[at])
    count = LAST_LEVEL - FIRST_LEVEL
    span = float(logs.max() - logs.min())
    step = min(max(FINEST_STEP, span / (count - 1)), COARSEST_STEP)
    low = max(np.floor(logs.min() / step) * step, np.ceil(logs.max() / step) * step - count * step)
    levels = np.rint((logs - low) / step)
    return (FIRST_LEVEL + np.clip(levels, 0, count)).astype(np.uint8), round(low, 6), step, int((levels < 0).sum())


def _share_levels(values: Float, at: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.uint8], float, float, int]:
    """Shares are rounded up: a single element of a million must show."""
    count = LAST_LEVEL - FIRST_LEVEL
    return (FIRST_LEVEL + np.ceil(np.clip(values[at], 0, 1) * count)).astype(np.uint8), 0.0, 1 / count, 0
