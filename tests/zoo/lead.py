"""How long before the loss stops being finite an explosion is told, in steps and, to those who listen, in seconds.

Cases are draws of the zoo's explosions that the oracle confirms, and whose loss stays finite for ``EARLY`` steps and
more after its onset: what is lost sooner nobody can act upon.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

import gradwatch
from gradwatch.analyze import Stream
from gradwatch.findings import Finding
from gradwatch.recording import Recording
from tests.zoo.case import ATTEMPTS
from tests.zoo.draw import faulty, generator
from tests.zoo.faults import FAULTS
from tests.zoo.oracle import rule
from tests.zoo.program import build
from tests.zoo.recipe import Recipe
from tests.zoo.recording import record as plain_record
from tests.zoo.score import Rate
from tests.zoo.table import shown
from tests.zoo.tools import Log, train_watched

EARLY: Final = 10
KIND: Final = "exploding"


@dataclass(frozen=True, slots=True)
class Lead:
    """What was told of one run.

    Attributes:
        id: of the draw.
        onset: the oracle's.
        lost: the first step whose loss is not finite, or None.
        told: the step of whose record the first finding of warning and above was told, or None.
        kind: of that finding, or "".
        seconds: from the moment at which ``on_finding`` told it, on another thread, until the first loss that was not
            finite came out of its step; negative when that was sooner, None without either.
    """

    id: str
    onset: int
    lost: int | None
    told: int | None
    kind: str
    seconds: float | None

    @property
    def in_time(self) -> bool:
        """Whether it was told, and before the loss was lost."""
        return self.told is not None and (self.lost is None or self.told < self.lost)


class Listener(Log):
    """Logs the loss, and notes when something was told and when the loss was lost."""

    def __init__(self) -> None:
        self.lost: int | None = None
        self._told_at: float | None = None
        self._lost_at = 0.0

    def finding(self, _: Finding) -> None:
        """Takes a finding, on the thread that tells it."""
        self._told_at = time.monotonic() if self._told_at is None else self._told_at

    def end(self, step: int, loss: Any, *, task: float, accuracy: float, clip: float) -> None:
        """Takes the loss of a step."""
        super().end(step, loss, task=task, accuracy=accuracy, clip=clip)
        if self.lost is None and not math.isfinite(float(loss)):
            self.lost, self._lost_at = step, time.monotonic()

    def seconds(self) -> float | None:
        """Returns how long before the loss was lost something was told."""
        return None if self._told_at is None or self.lost is None else self._lost_at - self._told_at


def listen(recipe: Recipe, name: str, onset: int) -> Lead:
    """Trains a recipe under watch, and listens."""
    listener = Listener()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        train_watched(build(recipe), directory, listener, listener.finding)
        step, kind = told_at(gradwatch.load(directory).recording)
    return Lead(name, onset, listener.lost, step, kind, listener.seconds())


def told_at(recording: Recording) -> tuple[int | None, str]:
    """Returns the step of whose record the stream tells its first finding, and the kind; the same at any speed."""
    told: list[tuple[int, str]] = []
    now = -1
    stream = Stream(recording.sites, on_finding=lambda finding: told.append((now, finding.kind)))
    for optimizer in sorted(recording.step_tables):
        for record in recording.records(optimizer):
            now = record.step
            stream(record)
    stream.close()
    return told[0] if told else (None, "")


def cases(seed: str, slots: int) -> list[tuple[str, Recipe, int]]:
    """Returns id, recipe and onset of the confirmed explosions that leave time to act."""
    found = []
    for slot in range(slots):
        for attempt in range(ATTEMPTS):
            draw = faulty(KIND, generator(seed, slot, KIND, attempt), slot + attempt // 2)
            planted = FAULTS[draw.fault].plant(draw.base, generator(draw))
            sick = plain_record(planted.sick)
            ruling = rule(KIND, planted, sick, plain_record(planted.twin))
            if not ruling.confirmed:
                continue
            if np.isfinite(sick.losses[ruling.onset : ruling.onset + EARLY]).all():
                found.append((str(draw), planted.sick, ruling.onset))
            break
    return found


def summary(leads: Sequence[Lead]) -> str:
    """Returns the share told in time with its interval, and the leads where the loss was lost."""
    lost = [lead for lead in leads if lead.lost is not None and lead.told is not None]
    steps = [lead.lost - lead.told for lead in lost if lead.lost is not None and lead.told is not None]
    seconds = [lead.seconds for lead in lost if lead.seconds is not None]
    lines = [f"told before the loss stops being finite: {shown(Rate(sum(x.in_time for x in leads), len(leads)))}"]
    if steps:
        lines.append(
            f"where it does, in {len(steps)} runs: {np.median(steps):.0f} steps before (median; the least is "
            f"{min(steps)}), and {np.median(seconds):.2f} s ({min(seconds):.2f})"
        )
    late = [str(asdict(lead)) for lead in leads if not lead.in_time]
    return "\n".join([*lines, *late])
