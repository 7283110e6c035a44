"""Whether the process that writes an attempt still lives."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

HEARTBEAT_SECONDS: Final = 30.0
SILENT_SECONDS: Final = 300.0
"""A process on another host, whose manifest was not touched for so long, counts as dead: ten missed heartbeats."""


def identity() -> dict[str, Any]:
    """Returns what tells this process from every other one, also from a later one with the same number."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "process_started": _started(os.getpid())}


def alive(meta: Mapping[str, Any], manifest: Path) -> bool:
    """Tells whether the process of an attempt's manifest lives and has not closed it.

    On this host by its number and start; elsewhere by the time at which the manifest was last touched.
    """
    if meta.get("closed"):
        return False
    pid, host = meta.get("pid"), meta.get("host")
    if host != socket.gethostname() or not isinstance(pid, int) or pid <= 0 or os.name != "posix":
        return _touched_lately(manifest)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    started = _started(pid)
    return started is None or started == meta.get("process_started")


def _touched_lately(manifest: Path) -> bool:
    try:
        return abs(time.time() - manifest.stat().st_mtime) < SILENT_SECONDS
    except OSError:
        return False


def _started(pid: int) -> str | None:
    """Returns the boot and the clock tick at which a process began, or None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    # Field 22 of stat(5); the fields after the name begin with number 3. A zombie has ended.
    return "ended" if after_name[0] == "Z" else f"{boot}:{after_name[19]}"
