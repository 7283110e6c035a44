"""The arithmetic of the bench: from CPU seconds of each process to ratios, their spread, and what is noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

Outcome = Mapping[str, Any]
"""What a worker measured; see ``clock.run_phases``."""

Round = Mapping[str, Outcome]
"""Outcomes by row, of processes that ran one after another."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """Watched / bare of the pairs of one row and one phase."""

    pairs: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the pairs."""
        return mean(self.pairs)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.pairs)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.pairs)


def per_step(outcome: Outcome, phase: str) -> float:
    """Returns the CPU seconds of one step of a phase, "first" or "steady"."""
    first, steady = outcome["steps"]
    return float(outcome[phase]) / int(steady if phase == "steady" else first - 1)


def bare_step(done: Round) -> float:
    """Returns the CPU seconds of a bare step of a round: of both bare runs, between which the others stand."""
    return mean(per_step(done[row], "steady") for row in ("bare", "noise"))


def ratios(rounds: Sequence[Round], row: str, phase: str = "steady") -> Ratios | None:
    """Returns a row's ratios to bare steps in the steady state; for "noise", of one bare run to the other.

    None when the row was not run, or has no first steps that stand for themselves.
    """
    done = [one for one in rounds if row in one]
    if not done or (phase == "first" and done[0][row]["steps"][0] < 100):
        return None
    if row == "noise":
        return Ratios(tuple(per_step(one["noise"], phase) / per_step(one["bare"], phase) for one in done))
    return Ratios(tuple(per_step(one[row], phase) / bare_step(one) for one in done))


def spread(noise: Ratios) -> float:
    """Returns how far one bare run was from another, at most: smaller differences say nothing."""
    return max(abs(ratio - 1) for ratio in noise.pairs)


def is_noise(found: Ratios, noise: Ratios) -> bool:
    """Tells whether a row's mean differs from 1 by less than bare runs differ from each other."""
    return abs(found.mean - 1) < spread(noise)


def start_seconds(rounds: Sequence[Round], row: str) -> float:
    """Returns the CPU seconds that are spent once: attaching and the first step, less a bare step."""
    return mean(float(one[row]["start"]) - bare_step(one) for one in rounds if row in one)


def added_bytes(rounds: Sequence[Round], row: str) -> float:
    """Returns by how much the peak memory of the process is above that of bare training."""
    return mean(float(one[row]["peak_bytes"] - one["bare"]["peak_bytes"]) for one in rounds if row in one)
