"""Runs a program of several devices in a process of its own, because the number of devices is fixed at start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def environment(devices: int = 4) -> dict[str, str]:
    """Returns the environment of a process with virtual devices."""
    return os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(str(path) for path in (ROOT, ROOT / "adapters", ROOT / "reports")),
    }


def run(*arguments: str, devices: int = 4) -> Any:
    """Runs Python and returns the JSON that its last line prints."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment(devices), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
