"""Keeps a rank's directory within its budget of bytes by unlinking the oldest sealed files, level by level."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch.store import files
from gradwatch.store.layout import LEVELS, PIN, ROWS, STEPS, attempts, data_files, kind_of

SHARES: Final = {STEPS: 0.1, "L1": 0.14, "L2": 0.12, "L3": 0.1, "L4": 0.08, PIN: 0.05}
"""Parts of the budget beyond which the oldest files of a kind go. Of L4 they are merged in pairs instead, so that it
spans the run, and further pins are refused. The rows themselves have what is left: at least a quarter, when the hot
files are full."""

_FINEST_FIRST: Final = (ROWS, *LEVELS[:-1])


@dataclass(frozen=True, slots=True)
class Stored:
    """A sealed file: where, of which kind, how many bytes."""

    path: Path
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class Evicted:
    """A file that was unlinked: its kind, how many rows it held and up to which step."""

    path: Path
    kind: str
    rows: int
    last_step: int

    def add_to(self, known: Mapping[str, Any] | None) -> dict[str, Any]:
        """Returns what an attempt's manifest says of evictions, with this one added.

        ``rows`` and ``last_step`` are of rows of sites, ``last_step_row`` of rows of steps; ``through`` names the last
        evicted file of each attempt and kind, because the oldest always go first.
        """
        known = known or {"files": 0, "rows": 0, "last_step": -1, "last_step_row": -1, "through": {}}
        attempt, stem = self.path.parent.name, self.path.name.partition("-")[0]
        through = {**known["through"], f"{attempt}/{stem}": self.path.name}
        files_gone = {**known, "files": known["files"] + 1, "through": through}
        if self.kind == STEPS:
            return {**files_gone, "last_step_row": max(known["last_step_row"], self.last_step)}
        if self.kind != ROWS:
            return files_gone
        return {
            **files_gone,
            "rows": known["rows"] + self.rows,
            "last_step": max(known["last_step"], self.last_step),
        }


def was_evicted(attempt: str, name: str, evictions: Iterable[object]) -> bool:
    """Tells whether a sealed file of an attempt was evicted, by what the rank's attempts say of evictions."""
    kind = name.partition("-")[0]
    for evicted in evictions:
        through = evicted.get("through") if isinstance(evicted, Mapping) else None
        if isinstance(through, Mapping) and name <= str(through.get(f"{attempt}/{kind}", "")):
            return True
    return False


class Budget:
    """The sealed files of a rank, oldest first, with their sizes."""

    def __init__(self, rank: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._files: dict[str, dict[Path, int]] = {kind: {} for kind in (ROWS, *SHARES)}
        self._rest = 0
        for _, directory in attempts(rank):
            for file in data_files(directory):
                path = directory / file.name
                size = path.stat().st_size
                if file.sealed:
                    self.add(path, size)
                else:
                    self._rest += size

    def add(self, path: Path, size: int) -> None:
        """Counts a sealed file, again when it was replaced."""
        self._files[kind_of(path.name)][path] = size

    def forget(self, path: Path) -> None:
        """Counts a file no more."""
        del self._files[kind_of(path.name)][path]

    def held(self, kind: str) -> list[Path]:
        """Returns the files of a kind, oldest first."""
        return list(self._files[kind])

    def over(self, kind: str, incoming: int = 0) -> bool:
        """Tells whether a kind would take more than its share."""
        return sum(self._files[kind].values()) + incoming > SHARES[kind] * self.max_bytes

    def next_victim(self, incoming: int) -> Stored | None:
        """Returns the file that has to go so that ``incoming`` more bytes fit, or None when they do."""
        for kind in (STEPS, *LEVELS[:-1]):
            if self._files[kind] and self.over(kind):
                return self._oldest(kind)
        if self._total() + incoming > self.max_bytes:
            return next((self._oldest(kind) for kind in _FINEST_FIRST if self._files[kind]), None)
        return None

    def unlink(self, victim: Stored) -> Evicted:
        """Unlinks a file."""
        rows, (_, last) = _rows(victim.path), extent(victim.path)
        files.remove(victim.path)
        self.forget(victim.path)
        return Evicted(victim.path, victim.kind, rows, last)

    def _oldest(self, kind: str) -> Stored:
        path, size = next(iter(self._files[kind].items()))
        return Stored(path, kind, size)

    def _total(self) -> int:
        """Returns the bytes taken; the share of the pins is kept free for them."""
        pins = sum(self._files[PIN].values())
        reserved = max(0, int(SHARES[PIN] * self.max_bytes) - pins)
        return sum(sum(sizes.values()) for sizes in self._files.values()) + reserved + self._rest


def extent(path: Path) -> tuple[int, int]:
    """Returns the first and last step of a sealed file, (0, -1) when it cannot be read."""
    try:
        footer = pq.read_schema(path).metadata or {}
        first, last = footer.get(b"gradwatch.steps", b"").split()
        return int(first), int(last)
    except (OSError, pa.ArrowException, ValueError):
        return 0, -1


def _rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return 0
