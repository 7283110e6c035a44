"""Which process of which launch this is, and how its run is called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gradwatch.errors import GradwatchError


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a training job: this process's rank, the number of processes, and the launcher's id ("" if none)."""

    rank: int = 0
    world_size: int = 1
    id: str = ""
    restart: int = 0


def from_environment(world: tuple[int, int] | None = None) -> Launch:
    """Reads the variables that torchrun and launchers compatible with it set.

    Args:
        world: rank and world size as the framework knows them; they win over the environment's.
    """
    rank, world_size = world or (_number("RANK", 0), _number("WORLD_SIZE", 1))
    launch_id = os.environ.get("TORCHELASTIC_RUN_ID", "")
    launch_id = "" if launch_id == "none" else launch_id
    return Launch(rank, max(world_size, rank + 1), launch_id, _number("TORCHELASTIC_RESTART_COUNT", 0))


def run_directory(run: str | os.PathLike[str] | None, launch: Launch) -> Path:
    """Returns where the run's files go: ``run``, or ``runs/`` and a name of the launcher's id or the time.

    Raises:
        GradwatchError: when several processes would need to agree on a name and nothing tells them one.
    """
    if run is not None:
        return Path(run)
    if launch.id:
        return Path("runs") / _file_name(launch.id)
    if launch.world_size > 1:
        raise GradwatchError(
            f"rank {launch.rank} of {launch.world_size} cannot name the run: the launcher gave no id; pass run=..., "
            "the same on all ranks."
        )
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"


def _number(name: str, default: int) -> int:
    try:
        return max(0, int(os.environ.get(name, default)))
    except ValueError:
        return default


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text).lstrip(".") or "run"
