"""The coarsest level always spans the whole run: over its share, neighbouring files are merged to twice the window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch.store.bucketfile import REPLACES_KEY, SITES_KEY, WIDTH_KEY, bucket_bytes
from gradwatch.store.buckets import WIDTHS, BucketRows, join_buckets, merged
from gradwatch.store.budget import Budget
from gradwatch.store.layout import LEVELS, DataFile, kind_of
from gradwatch.store.read import read_file

_LEVEL: Final = LEVELS[-1]
_WIDEST: Final = 2**40


@dataclass(frozen=True, slots=True)
class _Coarse:
    """What the footer of a file of the coarsest level says."""

    path: Path
    width: int
    replaces: int
    sites: str

    def rows(self) -> BucketRows:
        serial = int(self.path.stem.partition("-")[2])
        part = read_file(self.path.parent, DataFile(serial, kind_of(self.path.name), sealed=True))
        return join_buckets([file.load() for file in part.buckets])


def thin(budget: Budget, put: Callable[[Path, bytes], None], drop: Callable[[Path], None]) -> bool:
    """Merges two neighbouring files of L4, of those with the finest windows the oldest; tells whether it could.

    The file that takes both says so before the other one goes: a reader between finds each row once. A single file is
    merged in itself.
    """
    held = [_footer(path) for path in budget.held(_LEVEL)]
    pairs = [
        (max(first.width, second.width), i)
        for i, (first, second) in enumerate(pairwise(held))
        if first.path.parent == second.path.parent
    ]
    if not pairs:
        return len(held) == 1 and _halve(held[0], put)
    finest, at = min(pairs)
    first, second = held[at : at + 2]
    width = min(2 * finest, _WIDEST)
    rows = merged(join_buckets([first.rows(), second.rows()]), width)
    put(second.path, bucket_bytes(rows, second.sites, width=width, replaces=first.replaces))
    drop(first.path)
    return True


def _halve(only: _Coarse, put: Callable[[Path, bytes], None]) -> bool:
    rows, width = only.rows(), min(2 * only.width, _WIDEST)
    fewer = merged(rows, width)
    put(only.path, bucket_bytes(fewer, only.sites, width=width, replaces=only.replaces))
    return len(fewer) < len(rows)


def _footer(path: Path) -> _Coarse:
    try:
        metadata = pq.read_schema(path).metadata or {}
        return _Coarse(
            path,
            int(metadata.get(WIDTH_KEY, WIDTHS[_LEVEL])),
            int(metadata.get(REPLACES_KEY, b"1")),
            metadata.get(SITES_KEY, b"").decode(),
        )
    except (pa.ArrowException, ValueError):
        return _Coarse(path, WIDTHS[_LEVEL], int(path.stem.partition("-")[2]), "")
