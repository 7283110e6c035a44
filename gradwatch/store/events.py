"""Reading the events of a run: findings and notes, one JSON object a line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from gradwatch.store import files, manifest
from gradwatch.store.layout import EVENTS_FILE, MAX_FILE_BYTES, attempts, ranks


def read_events(run: Path, rank: int = 0) -> list[dict[str, Any]]:
    """Returns the events of a rank in the order of its attempts; torn lines are skipped.

    Raises:
        RunError: when the path is not a run.
    """
    manifest.read_run(run)
    events: list[dict[str, Any]] = []
    directories = [path for number, path in ranks(run) if number == rank]
    for number, directory in [found for path in directories for found in attempts(path)]:
        with contextlib.suppress(OSError):
            for line in files.read_plain(directory / EVENTS_FILE, MAX_FILE_BYTES).splitlines():
                with contextlib.suppress(ValueError, RecursionError):
                    event = json.loads(line)
                    if isinstance(event, dict):
                        events.append({**event, "attempt": number})
    return events
