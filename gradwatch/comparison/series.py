"""One number a layer and captured step: the norm of its gradient, and of its update over its weights'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.recording import Panel, Recording, Steps
from gradwatch.statistics import Float

_MATRICES: Final = ("weight", "embedding")


@dataclass(frozen=True, slots=True)
class LayerSeries:
    """Values of r layers over t steps.

    Attributes:
        steps: captured steps, ascending, shape [t].
        layers: names of the columns, input first.
        values: shape [t, r]; NaN where not captured, infinity where an element was NaN or infinite.
    """

    steps: Steps
    layers: tuple[str, ...]
    values: Float


def gradient_norms(recording: Recording) -> LayerSeries:
    """Returns the l2 norm of each layer's gradient, over those of its parameters that have one."""
    return _joined(recording, [_norms(recording, panel, _all) for panel in _panels(recording, "gradient")])


def update_ratios(recording: Recording) -> LayerSeries:
    """Returns norm of the update / norm of the weight, per layer, where both were captured at the same step.

    Norms are over the layer's matrices where it has one: biases and scales start near zero, so that their ratio says
    nothing. NaN where the weights are all zero.
    """
    parts = []
    for update in _panels(recording, "update"):
        weight = recording.panel("weight", update.optimizer)
        if weight is not None:
            parts.append(_ratio(_norms(recording, update, _heavy), _norms(recording, weight, _heavy)))
    return _joined(recording, parts)


def over_columns(series: LayerSeries, steps: Steps, layers: Sequence[str | None]) -> Float:
    """Returns the values at some captured steps for some layers, shape [len(steps), len(layers)]; NaN for no layer."""
    column = {name: i for i, name in enumerate(series.layers)}
    rows = np.searchsorted(series.steps, steps)
    values = np.full((len(steps), len(layers)), np.nan)
    at = [(k, column[name]) for k, name in enumerate(layers) if name in column]
    if at:
        places, columns = (list(part) for part in zip(*at, strict=True))
        values[:, places] = series.values[np.ix_(rows, columns)]
    return values


def _panels(recording: Recording, signal: str) -> list[Panel]:
    return [panel for (name, _), panel in sorted(recording.panels.items()) if name == signal and len(panel.steps)]


def _all(_: Recording, panel: Panel) -> npt.NDArray[np.bool_]:
    return np.ones(len(panel.sites), dtype=np.bool_)


def _heavy(recording: Recording, panel: Panel) -> npt.NDArray[np.bool_]:
    sites = [recording.sites[int(site)] for site in panel.sites]
    with_matrix = {site.layer for site in sites if site.role in _MATRICES}
    return np.array([site.role in _MATRICES or site.layer not in with_matrix for site in sites], dtype=np.bool_)


def _norms(
    recording: Recording, panel: Panel, chosen: Callable[[Recording, Panel], npt.NDArray[np.bool_]]
) -> LayerSeries:
    """Returns sqrt(sum of l2^2) over the chosen sites of each layer that are known."""
    depth = {name: i for i, name in enumerate(recording.sites.layers)}
    layer_of = np.array([depth[recording.sites[int(site)].layer] for site in panel.sites], dtype=np.intp)
    columns = np.flatnonzero(chosen(recording, panel))
    columns = columns[np.argsort(layer_of[columns], kind="stable")]
    present, starts = np.unique(layer_of[columns], return_index=True)
    layers = tuple(recording.sites.layers[i] for i in present)
    if not layers:
        return LayerSeries(panel.steps[:0], (), np.zeros((0, 0)))
    bad = (panel.nan[:, columns] > 0) | (panel.inf[:, columns] > 0)
    values = np.where(bad, np.inf, panel.l2[:, columns])
    known = np.logical_or.reduceat(~np.isnan(values), starts, axis=1)
    norms = np.hypot.reduceat(np.where(np.isnan(values), 0.0, values), starts, axis=1)
    return LayerSeries(panel.steps, layers, np.where(known, norms, np.nan))


def _ratio(update: LayerSeries, weight: LayerSeries) -> LayerSeries:
    steps = np.intersect1d(update.steps, weight.steps, assume_unique=True)
    above, below = (over_columns(series, steps, update.layers) for series in (update, weight))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(below > 0, above / below, np.nan)
    ratio[(np.isinf(above) | np.isinf(below)) & ~np.isnan(above) & ~np.isnan(below)] = np.inf
    return LayerSeries(steps, update.layers, ratio)


def _joined(recording: Recording, parts: Sequence[LayerSeries]) -> LayerSeries:
    """Joins what several optimizers own; steps at which nothing is known are left out."""
    steps = np.unique(np.concatenate([part.steps for part in parts])) if parts else np.zeros(0, dtype=np.int64)
    owned = {name for part in parts for name in part.layers}
    layers = tuple(name for name in recording.sites.layers if name in owned)
    column = {name: i for i, name in enumerate(layers)}
    values = np.full((len(steps), len(layers)), np.nan)
    for part in parts:
        at = np.ix_(np.searchsorted(steps, part.steps), np.array([column[name] for name in part.layers], dtype=np.intp))
        values[at] = np.fmax(values[at], part.values)
    known = ~np.isnan(values).all(axis=1) if layers else np.zeros(len(steps), dtype=np.bool_)
    return LayerSeries(steps[known], layers, values[known])
