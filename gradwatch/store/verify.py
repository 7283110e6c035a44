"""Whether the files of a run are whole: every checksum checked, nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradwatch.store import files, manifest, process
from gradwatch.store.attempt import read_meta
from gradwatch.store.budget import was_evicted
from gradwatch.store.layout import EVENTS_FILE, MAX_FILE_BYTES, META_FILE, SITES_PATTERN, attempts, data_files, ranks
from gradwatch.store.read import Part, read_file
from gradwatch.store.sitefile import read_sites


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of a run's files found.

    Attributes:
        problems: what is torn, missing, cut or damaged, a sentence each; empty when all is whole.
        facts: what can be read, a sentence each.
    """

    problems: tuple[str, ...]
    facts: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


def verify(path: Path) -> Verification:
    """Checks every file of a run.

    Raises:
        RunError: when the path is not a run, or its manifest cannot be read.
    """
    path = Path(path)
    content = manifest.read_run(path)
    problems = list(_site_tables(path))
    facts = [f"run {content.get('name')}, schema {content['schema_version']}"]
    for rank, directory_of_rank in ranks(path):
        found_attempts = attempts(directory_of_rank)
        evictions = [read_meta(directory).get("evicted") for _, directory in found_attempts]
        for number, directory in found_attempts:
            label = f"rank {rank} attempt {number}"
            found = _Attempt(label, directory, evictions)
            problems.extend(found.problems)
            facts.append(found.fact())
    return Verification(tuple(problems), tuple(facts))


def _site_tables(run: Path) -> Iterator[str]:
    for path in sorted(run.iterdir()):
        if SITES_PATTERN.fullmatch(path.name):
            try:
                read_sites(run, path.name)
            except (OSError, ValueError) as error:
                yield f"{path.name}: {error}"


class _Attempt:
    """The check of one attempt."""

    def __init__(self, label: str, directory: Path, evictions: list[object]) -> None:
        self.problems: list[str] = []
        self._label = label
        self._state = "damaged"
        self._rows = self._files = 0
        self._steps: list[int] = []
        meta = self._meta(directory)
        names = {file.name for file in data_files(directory)}
        for name in sorted(set(map(str, meta.get("sealed", {}))) - names):
            if not was_evicted(directory.name, name, evictions):
                self.problems.append(f"{label}: {name} is missing.")
        if meta and not SITES_PATTERN.fullmatch(str(meta.get("sites", ""))) and names:
            self.problems.append(f"{label}: its manifest names no site table.")
        elif names and meta and not (directory.parent.parent / str(meta["sites"])).exists():
            self.problems.append(f"{label}: the site table {meta['sites']} is missing.")
        for file in data_files(directory):
            try:
                self._add(read_file(directory, file, meta.get("sealed", {}).get(file.name)))
            except FileNotFoundError:
                continue
        self._events(directory / EVENTS_FILE)

    def fact(self) -> str:
        """Says what can be read of the attempt."""
        steps = f", steps {min(self._steps)} to {max(self._steps)}" if self._steps else ""
        return f"{self._label} ({self._state}): {self._rows} rows in {self._files} files{steps}"

    def _meta(self, directory: Path) -> dict[str, Any]:
        try:
            meta = manifest.read(directory / META_FILE)
        except (OSError, ValueError) as error:
            self.problems.append(f"{self._label}: {META_FILE} cannot be read ({error}).")
            return {}
        alive = process.alive(meta, directory / META_FILE)
        self._state = "closed" if meta.get("closed") else "open" if alive else "killed"
        if meta.get("status") not in (None, "ok"):
            self.problems.append(f"{self._label}: {meta['status']}.")
        return meta

    def _add(self, part: Part) -> None:
        self._files += 1
        self.problems.extend(f"{self._label}: {problem}." for problem in part.problems)
        if part.torn and self._state != "open":
            self.problems.append(f"{self._label}: {part.file.name} ends in {part.torn} torn bytes.")
        self._rows += sum(file.rows for file in part.buckets)
        for chunk in part.chunks:
            self._rows += len(chunk)
            self._steps += [chunk.first, chunk.last] if len(chunk) else []

    def _events(self, path: Path) -> None:
        if path.exists():
            try:
                lines = files.read_plain(path, MAX_FILE_BYTES).splitlines()
            except OSError as error:
                self.problems.append(f"{self._label}: {path.name} cannot be read ({error}).")
                return
            torn = sum(not _is_json(line) for line in lines)
            if torn:
                self.problems.append(f"{self._label}: {torn} lines of {path.name} are torn.")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
