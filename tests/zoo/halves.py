"""The two halves: the seeds from which they are drawn, and their slots."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from gradwatch.findings import KINDS
from tests.zoo.case import Slot

ROOT: Final = Path(__file__).parents[2]
DEVELOPMENT: Final = "development"
"""The seed of the half on which rules may be tuned."""
PER_KIND: Final = 10
"""Faulty slots of each kind in a half, in rounds over the kinds."""
HEALTHY: Final = 88
"""Healthy slots of a half; each runs with several seeds."""


def seed_of(half: str) -> str:
    """Returns the seed of ``dev`` or ``test``.

    The test half's is the git tree hash of ``gradwatch/rules``: a changed rule is judged on cases it has never met.

    Raises:
        RuntimeError: for the test half, when there is no git checkout or the rules are not committed.
    """
    if half == "dev":
        return DEVELOPMENT
    if _git("status", "--porcelain", "--", "gradwatch/rules"):
        raise RuntimeError("gradwatch/rules has changes that are not committed; the test half is drawn from its hash.")
    return _git("rev-parse", "HEAD:gradwatch/rules")


def slots(half: str) -> list[Slot]:
    """Returns the slots of a half: rounds over the kinds, then healthy ones.

    Every twentieth of it has seven kinds once and four or five healthy slots of different families.
    """
    turns = [(kind, turn) for turn in range(PER_KIND) for kind in KINDS] + [("", turn) for turn in range(HEALTHY)]
    seed = seed_of(half)
    return [Slot(seed, number, kind, turn) for number, (kind, turn) in enumerate(turns)]


def part(whole: list[Slot], index: int, count: int) -> list[Slot]:
    """Returns the index-th of count parts of a half, counted from 1."""
    return whole[index - 1 :: count]


def commit() -> str:
    """Returns the checked-out commit, with a plus when gradwatch differs from it; "unknown" without git."""
    try:
        changed = _git("status", "--porcelain", "--", "gradwatch", "adapters")
        return _git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (RuntimeError, FileNotFoundError):
        return "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"git {' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout.strip()
