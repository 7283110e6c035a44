"""Gradient flow by depth: how large the gradients of each layer are at a step, from input to output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.recording import Panel, Recording
from gradwatch.statistics import Float
from gradwatch_html.metrics import NON_FINITE, site_state

COLUMNS: Final = 128
GROUPS: Final = 240
ALONE: Final = 60
"""Layers up to which each is a point of its own; of more, layers of different kinds in turn would only zigzag."""

MODULES: Final = range(12, 121)
"""Numbers of modules that are few enough to be points of a curve, and enough to show one."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Gradient rms by depth at some captured steps.

    Attributes:
        steps: shape [c].
        groups: (first, last) layer index of each group of neighbouring layers, shape [g, 2]; a group is one layer
            up to ``ALONE`` layers, then a module where these are of a fitting number.
        names: of the groups: the layer, the module, or the first and the last layer.
        median, low, high: over the parameters of a group, shape [c, g]: NaN where none was captured; a parameter with
            a non-finite element counts as infinity.
    """

    steps: npt.NDArray[np.int64]
    groups: npt.NDArray[np.intp]
    names: tuple[str, ...]
    median: Float
    low: Float
    high: Float


def flow(recording: Recording, depth: Mapping[str, int], keep: Sequence[int]) -> Flow | None:
    """Builds the curves, or returns None without gradients in two layers.

    Steps are counted per optimizer: with several, each layer shows the step of this number of its own optimizer.

    Args:
        recording: the run.
        depth: layer name to its index.
        keep: steps that must be among the chosen ones where they were captured.
    """
    panels = [p for (signal, _), p in sorted(recording.panels.items()) if signal == "gradient" and len(p.steps)]
    if not panels:
        return None
    steps = np.unique(np.concatenate([panel.steps for panel in panels]))
    steps = steps[_chosen_rows(steps, keep)]
    layer_of = np.concatenate([_layers_of(recording, panel, depth) for panel in panels])
    layers = np.unique(layer_of[layer_of >= 0])
    if len(layers) < 2:
        return None
    values = np.concatenate([_at_steps(panel, steps) for panel in panels], axis=1)
    parts, names = _groups(layers, recording.sites.layers)
    curves = [_of_group(values[:, np.isin(layer_of, part)]) for part in parts]
    median, low, high = (np.stack([curve[i] for curve in curves], axis=1) for i in range(3))
    return Flow(steps, np.array([[part[0], part[-1]] for part in parts]), names, median, low, high)


def _groups(layers: npt.NDArray[np.int64], names: Sequence[str]) -> tuple[list[npt.NDArray[np.int64]], tuple[str, ...]]:
    """Cuts ascending layer indices into groups: single layers, modules of the deepest fitting level, or equal parts.

    Returns them with their names.
    """
    paths = [names[layer].split(".") for layer in layers.tolist()]
    for level in range(max(map(len, paths)), 0, -1) if len(layers) > ALONE else ():
        starts = [i for i in range(1, len(paths)) if paths[i][:level] != paths[i - 1][:level]]
        if len(starts) + 1 in MODULES and len(starts) + 1 < len(layers):
            parts = np.split(layers, starts)
            modules = [".".join(paths[i][:level]) for i in (0, *starts)]
            return parts, tuple(
                names[part[0]] if len(part) == 1 else name for part, name in zip(parts, modules, strict=True)
            )
    parts = np.array_split(layers, min(GROUPS, len(layers)))
    return parts, tuple(" \N{HORIZONTAL ELLIPSIS} ".join(_ends(part, names)) for part in parts)


def _ends(part: npt.NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """Returns the names of the first and the last layer of a group, or of its only one."""
    return [names[layer] for layer in dict.fromkeys((int(part[0]), int(part[-1])))]


def slopes(curves: Flow) -> list[float | None]:
    """Returns the least-squares slope of log10(median) over the groups, in decades a group, for each step.

    None with fewer than three groups above zero.
    """
    found: list[float | None] = []
    for row in curves.median:
        at = np.flatnonzero(np.isfinite(row) & (row > 0))
        enough = len(at) >= 3
        found.append(round(float(np.polyfit(at, np.log10(row[at]), 1)[0]), 4) if enough else None)
    return found


def _layers_of(recording: Recording, panel: Panel, depth: Mapping[str, int]) -> npt.NDArray[np.int64]:
    return np.array([depth.get(recording.sites[int(site)].layer, -1) for site in panel.sites], dtype=np.int64)


def _at_steps(panel: Panel, steps: npt.NDArray[np.int64]) -> Float:
    """Returns the rms of a panel's sites at some steps, shape [c, m]: infinity for non-finite, NaN for unknown."""
    values = np.full((len(steps), len(panel.sites)), np.nan)
    _, at, rows = np.intersect1d(steps, panel.steps, assume_unique=True, return_indices=True)
    chosen = panel.at(rows)
    values[at] = np.where(site_state(chosen) == NON_FINITE, np.inf, chosen.rms())
    return values


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
