"""A cheap look at a run's files that tells whether they have changed and whether somebody writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from gradwatch.store import manifest, process
from gradwatch.store.layout import META_FILE, RUN_FILE, attempts, ranks

_LOOKS: Final = 5


class Trace(NamedTuple):
    """What a look saw; two equal ones mean that nothing happened between them.

    Attributes:
        files: (path, bytes, nanoseconds of its last change) of the data files and events, and (manifest, checksum,
            0) of each attempt, whose heartbeat touches it without a change.
        writers: attempts that are being written.
    """

    files: tuple[tuple[str, int, int], ...]
    writers: int


def trace(run: Path) -> Trace | None:
    """Looks at a run's directory; None where there is no run yet. Opens only the small manifests of the attempts."""
    for _ in range(_LOOKS):
        try:
            return _look(run) if (run / RUN_FILE).exists() else None
        except FileNotFoundError:
            # A file was sealed or evicted between the listing and the look.
            continue
    return Trace((), 0)


def _look(run: Path) -> Trace:
    seen, writers = [], 0
    for _, rank in ranks(run):
        for _, attempt in attempts(rank):
            for path in sorted(attempt.iterdir()):
                if path.name != META_FILE:
                    state = path.stat()
                    seen.append((str(path), state.st_size, state.st_mtime_ns))
            checksum, alive = _manifest(attempt / META_FILE)
            seen.append((str(attempt), checksum, 0))
            writers += alive
    return Trace(tuple(seen), writers)


def _manifest(path: Path) -> tuple[int, bool]:
    """Returns a number of an attempt's manifest that changes with its content, and whether its writer lives."""
    try:
        content = manifest.read(path)
    except (OSError, ValueError):
        return 0, False
    return hash(repr(content)), process.alive(content, path)
