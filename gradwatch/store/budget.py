"""Keeps a rank's directory within its budget of bytes by unlinking the oldest sealed files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch.store import files
from gradwatch.store.layout import attempts, data_files

STEPS_SHARE: Final = 0.1
"""Part of the budget that rows of steps may take before the oldest of them go: they are small and span the run."""


@dataclass(frozen=True, slots=True)
class Evicted:
    """A file that was unlinked: how many rows it held and up to which step."""

    path: Path
    rows: int
    last_step: int

    def add_to(self, known: Mapping[str, Any] | None) -> dict[str, Any]:
        """Returns what an attempt's manifest says of evictions, with this one added.

        ``rows`` and ``last_step`` are of rows of sites, ``last_step_row`` of rows of steps; ``through`` names the last
        evicted file of each attempt and kind, because the oldest always go first.
        """
        known = known or {"files": 0, "rows": 0, "last_step": -1, "last_step_row": -1, "through": {}}
        attempt, kind = self.path.parent.name, self.path.name.partition("-")[0]
        through = {**known["through"], f"{attempt}/{kind}": self.path.name}
        files_gone = {**known, "files": known["files"] + 1, "through": through}
        if kind == "steps":
            return {**files_gone, "last_step_row": max(known["last_step_row"], self.last_step)}
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
        self._rows: dict[Path, int] = {}
        self._steps: dict[Path, int] = {}
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
        """Counts a sealed file."""
        (self._rows if path.name.startswith("L0") else self._steps)[path] = size

    def evict(self, incoming: int) -> Iterator[Evicted]:
        """Unlinks the oldest files until ``incoming`` more bytes fit."""
        while sum(self._steps.values()) > STEPS_SHARE * self.max_bytes:
            yield _unlink(self._steps)
        while self._rows and self._total() + incoming > self.max_bytes:
            yield _unlink(self._rows)

    def _total(self) -> int:
        return sum(self._rows.values()) + sum(self._steps.values()) + self._rest


def _unlink(known: dict[Path, int]) -> Evicted:
    path = next(iter(known))
    rows, last = _extent(path)
    files.remove(path)
    del known[path]
    return Evicted(path, rows, last)


def _extent(path: Path) -> tuple[int, int]:
    try:
        footer = pq.read_schema(path).metadata or {}
        steps = footer.get(b"gradwatch.steps", b"").split()
        return pq.read_metadata(path).num_rows, int(steps[1])
    except (OSError, pa.ArrowException, ValueError, IndexError):
        return 0, -1
