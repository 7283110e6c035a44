"""One run of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from gradwatch.comparison.curves import Loss
from gradwatch.findings import Analysis
from gradwatch.recording import Recording


@dataclass(frozen=True, slots=True)
class Compared:
    """How a run is called in its comparison, and what is known of it.

    Attributes:
        label: a letter, A for the first run.
        recording: the run.
        analysis: the outcome of all rules over it.
        loss: what it logged as its loss, or None.
    """

    label: str
    recording: Recording
    analysis: Analysis
    loss: Loss | None = None
