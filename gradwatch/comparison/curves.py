"""The curves that are laid over one another: gradients by depth at common steps, and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np

from gradwatch.recording import Panel, Recording, Steps
from gradwatch.statistics import Float

FLOW_STEPS: Final = 64


@dataclass(frozen=True, slots=True)
class Flow:
    """Gradients by depth of n runs, at c steps that all of them captured, over r rows of layers.

    Attributes:
        steps: shape [c].
        rows: a layer's name in each run, input first; None where the run has no such layer.
        values: median over the layer's parameters of the rms of their gradients, shape [n, c, r]; NaN where there is
            none, infinity where the median parameter has a non-finite element.
    """

    steps: Steps
    rows: tuple[tuple[str | None, ...], ...]
    values: Float


@dataclass(frozen=True, slots=True)
class Loss:
    """What a run logged as its loss.

    Attributes:
        steps: at which a finite loss was logged, ascending, shape [t].
        values: shape [t].
        nonfinite: steps at which it was NaN or infinite, ascending.
    """

    steps: Steps
    values: Float
    nonfinite: tuple[int, ...] = ()


def flow(recordings: Sequence[Recording], rows: Sequence[tuple[str | None, ...]]) -> Flow | None:
    """Returns the curves of all runs, or None when they share no captured step, or no two layers have a gradient."""
    panels = [
        [panel for (signal, _), panel in sorted(recording.panels.items()) if signal == "gradient"]
        for recording in recordings
    ]
    captured = [np.unique(np.concatenate([np.zeros(0, np.int64), *(p.steps for p in own)])) for own in panels]
    common = reduce(np.intersect1d, captured)
    if not len(common):
        return None
    steps = common[np.unique(np.linspace(0, len(common) - 1, min(FLOW_STEPS, len(common))).astype(np.intp))]
    medians = [_medians(recording, own, steps) for recording, own in zip(recordings, panels, strict=True)]
    shown = tuple(
        row
        for row in rows
        if any(name in median for name, median in zip(row, medians, strict=True) if name is not None)
    )
    if len(shown) < 2:
        return None
    nothing = np.full(len(steps), np.nan)
    values = [
        [nothing if row[run] is None else median.get(row[run] or "", nothing) for row in shown]
        for run, median in enumerate(medians)
    ]
    return Flow(steps, shown, np.array(values).transpose(0, 2, 1))


def loss(recording: Recording) -> Loss | None:
    """Returns the loss of the first optimizer for which one was logged, or None."""
    for _, table in sorted(recording.step_tables.items()):
        bad = tuple(sorted({step for step, name, _ in table.nonfinite_logged if name == "loss"}))
        column = table.logged.get("loss", np.full(len(table.steps), np.nan))
        known = np.isfinite(column)
        if known.any() or bad:
            return Loss(table.steps[known], column[known], bad)
    return None


def _medians(recording: Recording, panels: Sequence[Panel], steps: Steps) -> dict[str, Float]:
    """Returns the curve over steps of each layer that has a gradient, shape [c]."""
    columns: dict[str, list[Float]] = {}
    for panel in panels:
        _, at, rows = np.intersect1d(steps, panel.steps, assume_unique=True, return_indices=True)
        values = np.full((len(steps), len(panel.sites)), np.nan)
        values[at] = np.where((panel.nan[rows] > 0) | (panel.inf[rows] > 0), np.inf, panel.rms()[rows])
        for column, site in enumerate(panel.sites):
            if not np.isnan(values[:, column]).all():
                columns.setdefault(recording.sites[int(site)].layer, []).append(values[:, column])
    return {layer: _median(np.stack(parts, axis=1)) for layer, parts in columns.items()}


def _median(values: Float) -> Float:
    """Returns the median of what is known over axis 1, shape [c]; of two middle ones the lower."""
    ordered = np.sort(values, axis=1)
    known = (~np.isnan(values)).sum(axis=1)
    middle = ordered[np.arange(len(values)), np.maximum(known - 1, 0) // 2]
    return np.where(known > 0, middle, np.nan)
