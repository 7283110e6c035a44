"""A measurement in a process of its own, whose memory is that of the work alone."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

MEGABYTE: Final = 1e6


def held() -> float:
    """Returns the bytes that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def measured(module: str, path: Path) -> dict[str, float]:
    """Returns what ``python -m module --measure path`` prints, in a process of its own."""
    command = [sys.executable, "-m", module, "--measure", str(path)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found
