"""Pins: the rows around the onsets of findings, kept in full when the file that holds them is evicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from gradwatch.store import seal
from gradwatch.store.columns import join_rows
from gradwatch.store.layout import ROWS, DataFile
from gradwatch.store.read import read_file

PIN_STEPS: Final = 64
"""Steps kept on either side of an onset."""
MAX_PINS: Final = 256


def pinned_bytes(path: Path, pins: Sequence[int]) -> bytes:
    """Returns the rows of a sealed file within ``PIN_STEPS`` of a pin as a sealed file, b"" when there are none."""
    part = read_file(path.parent, DataFile(int(path.stem.partition("-")[2]), ROWS, sealed=True))
    kept = []
    for chunk in part.chunks:
        chunk.keep_steps(lambda grid: (np.abs(grid.steps[:, None] - np.array(pins)) <= PIN_STEPS).any(axis=1))
        if len(chunk):
            kept.append(chunk.rows())
    return seal.sealed_bytes(join_rows(kept), part.sites) if kept else b""
