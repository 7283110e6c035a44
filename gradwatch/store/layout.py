"""Names, limits and the version of the run's files. File names never come from user text.

<run>/run.json                              the manifest, written once
      sites-<hash8>.parquet                 a site table, named by its content
      rank0000/a0001/meta.json              the attempt: process, site table in force, checksums, status; replaced whole
                     events.jsonl           findings and notes, one a line
                     hot-000001.arrows      rows of sites, an Arrow IPC stream that grows
                     hotsteps-000001.arrows rows of steps, sealed together with it
                     L0-000001.parquet      sealed rows of sites, sorted by site and step
                     steps-000001.parquet   sealed rows of steps
                     L1-000001.parquet      roll-ups of sites over windows of 8 steps; L2 of 64, L3 of 512, L4 of 4,096
                     pin-000001.parquet     rows of sites around the onsets of findings, out of files that were evicted
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SCHEMA_VERSION: Final = 1
RUN_FORMAT: Final = "gradwatch run"
ATTEMPT_FORMAT: Final = "gradwatch attempt"

RUN_FILE: Final = "run.json"
META_FILE: Final = "meta.json"
EVENTS_FILE: Final = "events.jsonl"
TEMPORARY: Final = ".tmp"

FLUSH_STEPS: Final = 64
FLUSH_SECONDS: Final = 0.5
HOT_BYTES: Final = 16 * 2**20
HOT_ROWS: Final = 2_000_000
HOT_SECONDS: Final = 600.0
GROUP_ROWS: Final = 131_072
LATEST: Final = 2
"""Times its limit at which a hot file is sealed even while a queue is drained; before that only a tick seals it, so
that sealing does not hold up the drain at close."""

MAX_JSON_BYTES: Final = 16 * 2**20
MAX_FILE_BYTES: Final = 2**30
MAX_FILE_ROWS: Final = 16_000_000
MAX_SITES: Final = 1_000_000
MAX_NAME: Final = 4096

ROWS: Final = "rows"
STEPS: Final = "steps"
_HOT: Final = {ROWS: "hot", STEPS: "hotsteps"}
PIN: Final = "pin"
LEVELS: Final = ("L1", "L2", "L3", "L4")
_SEALED: Final = {ROWS: "L0", STEPS: "steps", PIN: PIN, **{level: level for level in LEVELS}}
_KINDS: Final = {stem: kind for kind, stem in (*_HOT.items(), *_SEALED.items())}
_PATTERN: Final = re.compile(rf"(?P<stem>{'|'.join(_KINDS)})-(?P<serial>\d{{6}})\.(?P<suffix>arrows|parquet)")
_RANK: Final = re.compile(r"rank(\d{4,})")
_ATTEMPT: Final = re.compile(r"a(\d{4,})")
SITES_PATTERN: Final = re.compile(r"sites-[0-9a-f]{8}\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class DataFile:
    """A data file of an attempt: its serial, the kind of its rows, and whether it is sealed."""

    serial: int
    kind: str
    sealed: bool

    @property
    def name(self) -> str:
        """The file's name."""
        return sealed_name(self.kind, self.serial) if self.sealed else hot_name(self.kind, self.serial)


def hot_name(kind: str, serial: int) -> str:
    """Returns the name of a hot file."""
    return f"{_HOT[kind]}-{serial:06d}.arrows"


def sealed_name(kind: str, serial: int) -> str:
    """Returns the name of a sealed file."""
    return f"{_SEALED[kind]}-{serial:06d}.parquet"


def kind_of(name: str) -> str:
    """Returns the kind of a data file by its name."""
    return _KINDS[name.partition("-")[0]]


def rank_name(rank: int) -> str:
    """Returns the name of a rank's directory."""
    return f"rank{rank:04d}"


def attempt_name(number: int) -> str:
    """Returns the name of an attempt's directory."""
    return f"a{number:04d}"


def data_files(directory: Path) -> list[DataFile]:
    """Lists the data files of an attempt by serial; where a serial is both hot and sealed, the sealed file stands."""
    found = [file for file in (_parse(path.name) for path in directory.iterdir()) if file is not None]
    sealed = {(file.serial, file.kind) for file in found if file.sealed}
    return sorted(file for file in found if file.sealed or (file.serial, file.kind) not in sealed)


def ranks(run: Path) -> list[tuple[int, Path]]:
    """Lists the ranks of a run and their directories."""
    return _numbered(run, _RANK)


def attempts(rank: Path) -> list[tuple[int, Path]]:
    """Lists the attempts of a rank and their directories, the first first."""
    return _numbered(rank, _ATTEMPT)


def _numbered(directory: Path, pattern: re.Pattern[str]) -> list[tuple[int, Path]]:
    if not directory.is_dir():
        return []
    matches = ((pattern.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match and path.is_dir() and not path.is_symlink())


def _parse(name: str) -> DataFile | None:
    match = _PATTERN.fullmatch(name)
    if match is None or (match["stem"] in _HOT.values()) != (match["suffix"] == "arrows"):
        return None
    return DataFile(int(match["serial"]), _KINDS[match["stem"]], match["suffix"] == "parquet")
