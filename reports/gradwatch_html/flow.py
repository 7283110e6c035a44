"""Gradient flow by depth: how large the gradients of each layer are at a step, from input to output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.recording import Panel, Recording
from gradwatch.statistics import Float
from gradwatch_html.metrics import NON_FINITE, NOTHING, site_state

COLUMNS: Final = 128
GROUPS: Final = 240


@dataclass(frozen=True, slots=True)
class Flow:
    """Gradient rms by depth at some captured steps.

    Attributes:
        steps: shape [c].
        groups: (first, last) layer index of each group of neighbouring layers, shape [g, 2]; a group is one layer
            up to ``GROUPS`` layers.
        median, low, high: over the parameters of a group, shape [c, g]: NaN where none was captured; a parameter with
            a non-finite element counts as infinity.
    """

    steps: npt.NDArray[np.int64]
    groups: npt.NDArray[np.intp]
    median: Float
    low: Float
    high: Float


def flow(recording: Recording, depth: Mapping[str, int], keep: Sequence[int]) -> Flow | None:
    """Builds the curves of the optimizer that owns most layers, or None without gradients in two layers.

    Args:
        recording: the run.
        depth: layer name to its index.
        keep: steps that must be among the chosen ones where they were captured.
    """
    panels = [p for (signal, _), p in sorted(recording.panels.items()) if signal == "gradient" and len(p.steps)]
    best: tuple[int, Panel, Any] | None = None
    for panel in panels:
        layer_of = np.array([depth.get(recording.sites[int(site)].layer, -1) for site in panel.sites])
        count = len(np.unique(layer_of[layer_of >= 0]))
        if count >= 2 and (best is None or count > best[0]):
            best = (count, panel, layer_of)
    return None if best is None else _curves(best[1], best[2], keep)


def _curves(panel: Panel, layer_of: npt.NDArray[np.int64], keep: Sequence[int]) -> Flow:
    rows = _chosen_rows(panel.steps, keep)
    values, state = panel.rms()[rows], site_state(panel)[rows]
    values = np.where(state == NON_FINITE, np.inf, values)
    values[state == NOTHING] = np.nan
    layers = np.unique(layer_of[layer_of >= 0])
    parts = np.array_split(layers, min(GROUPS, len(layers)))
    curves = [_of_group(values[:, np.isin(layer_of, part)]) for part in parts]
    median, low, high = (np.stack([curve[i] for curve in curves], axis=1) for i in range(3))
    return Flow(panel.steps[rows], np.array([[part[0], part[-1]] for part in parts]), median, low, high)


def _chosen_rows(steps: npt.NDArray[np.int64], keep: Sequence[int]) -> npt.NDArray[np.intp]:
    even = np.unique(np.linspace(0, len(steps) - 1, min(COLUMNS, len(steps))).astype(np.intp))
    wanted = np.flatnonzero(np.isin(steps, np.array(keep, dtype=np.int64)))
    return np.union1d(even, wanted)


def _of_group(values: Float) -> tuple[Float, Float, Float]:
    """Returns the median (geometric mean of the middle two), minimum and maximum of the known, shape [c] each."""
    ordered = np.sort(values, axis=1)
    known = (~np.isnan(values)).sum(axis=1)
    rows = np.arange(len(values))
    below = ordered[rows, np.maximum(known - 1, 0) // 2]
    above = ordered[rows, np.minimum(known // 2, values.shape[1] - 1)]
    median = np.where(np.isinf(above), above, np.sqrt(np.where(np.isinf(below), 1, below)) * np.sqrt(above))
    median, low, high = (
        np.where(known == 0, np.nan, curve)
        for curve in (median, ordered[:, 0], ordered[rows, np.maximum(known - 1, 0)])
    )
    return median, low, high
