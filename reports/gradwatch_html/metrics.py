"""The metrics of the heatmap: one number a layer and captured step, each with what it means where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import ABSENT, STAGES
from gradwatch.recording import BucketPanel, Panel, Recording
from gradwatch.statistics import NULL, Float

NOTHING, NO_GRADIENT, FINITE, NON_FINITE = 0, 1, 2, 3
"""States of a cell, in order of what wins when cells merge: not captured, the gradient was None, finite (its value may
be exactly zero), some element NaN or infinite."""

State = npt.NDArray[np.uint8]
ROWS_AT_ONCE: Final = 512
"""Steps of a panel that are looked at together, so that what is made on the way takes little room."""
_ABSENT_CODE: Final = STAGES.index(ABSENT)


@dataclass(frozen=True, slots=True)
class Metric:
    """What is drawn: a statistic of a signal, over layers and steps.

    Attributes:
        key: short name, used in links.
        title: as written on the page.
        signal: one of ``record.SIGNALS``.
        statistic: ``rms``, ``absmax``, ``ratio`` (rms of the update over rms of the weight), or a share of the
            elements: ``zeros``, ``nonfinite``, ``silent`` or ``saturated``.
        note: one sentence on what a cell is.
        share: whether values are shares from 0 to 1, drawn linearly; else they are drawn by their logarithm.
    """

    key: str
    title: str
    signal: str
    statistic: str
    note: str
    share: bool = False


METRICS: Final = (
    Metric("gradient", "gradient rms", "gradient", "rms", "Largest rms among the layer's parameters."),
    Metric("absmax", "gradient abs. max", "gradient", "absmax", "Largest absolute element of the layer's gradients."),
    Metric(
        "ratio", "update / weight", "update", "ratio", "Norm of the update over norm of the weight, largest matrix."
    ),
    Metric("zeros", "zeros in gradient", "gradient", "zeros", "Share of exactly zero elements.", share=True),
    Metric(
        "nonfinite", "non-finite in gradient", "gradient", "nonfinite", "Share of NaN or infinite elements.", share=True
    ),
    Metric(
        "delta", "activation gradient rms", "activation_gradient", "rms", "dLoss / d activation, in the backward pass."
    ),
    Metric("activation", "activation rms", "activation", "rms", "Output of the layer in the forward pass."),
    Metric("silent", "silent units", "activation", "silent", "Share of units at 0 for 8 sampled batches.", share=True),
    Metric("saturated", "saturated units", "activation", "saturated", "Share of outputs near their bound.", share=True),
)
OPTIONAL: Final = ("silent", "saturated")
"""Metrics that are offered only when some value is above zero."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A metric over t captured steps and r layers.

    Attributes:
        metric: what it is.
        layers: layer indices of the columns, ascending, shape [r].
        steps: captured steps, ascending, or the first ones of windows of steps, shape [t].
        last: the last steps of the windows; ``steps`` where a row is a single step, shape [t].
        values: over the finite elements, NaN where there is none, shape [t, r].
        state: one of the four states above, shape [t, r].
    """

    metric: Metric
    layers: npt.NDArray[np.intp]
    steps: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    values: Float
    state: State


def site_values(recording: Recording, panel: Panel, statistic: str) -> Float:
    """Returns a statistic of every site of a panel, shape [t, m]; NaN where it was not taken."""
    if statistic == "rms":
        return panel.rms()
    if statistic == "ratio":
        return _ratio(recording, panel)
    if statistic in ("silent", "saturated"):
        return _unit_share(panel, statistic)
    if statistic == "nonfinite":
        return _share(np.where(panel.nan == NULL, NULL, panel.nan + panel.inf), panel.n)
    if statistic == "zeros":
        return _share(panel.zeros, panel.n - np.maximum(panel.nan, 0) - np.maximum(panel.inf, 0))
    values: Float = getattr(panel, statistic)
    return values


def bucket_values(recording: Recording, panel: BucketPanel, statistic: str) -> Float:
    """Returns the largest value that a statistic of every site had in a window, shape [w, m].

    Of a ratio it is the largest update over the rms of the weight in that window.
    """
    if statistic == "ratio":
        return _bucket_ratio(recording, panel)
    if statistic in ("rms", "absmax"):
        return panel.rms_max if statistic == "rms" else panel.absmax
    elements = panel.elements()
    if statistic == "zeros":
        finite = elements - (panel.nan + panel.inf) / np.maximum(panel.samples, 1)
        return _share(panel.zeros_max, finite)
    if statistic == "nonfinite":
        return _share(panel.nonfinite_max, elements)
    if panel.units is None:
        return np.full(panel.n.shape, np.nan)
    units, silent, _, saturated = panel.units
    return _share(silent, units) if statistic == "silent" else _share(saturated, elements)


def bucket_state(panel: BucketPanel) -> State:
    """Returns the state of every window and site, shape [w, m]."""
    state = np.where(panel.samples == 0, NOTHING, FINITE)
    state[(panel.nan > 0) | (panel.inf > 0)] = NON_FINITE
    state[panel.absent()] = NO_GRADIENT
    return state.astype(np.uint8)


def _bucket_ratio(recording: Recording, panel: BucketPanel) -> Float:
    weight = recording.buckets.get(("weight", panel.optimizer))
    ratio = np.full(panel.n.shape, np.nan)
    if weight is None:
        return ratio
    mine, theirs = _same_parameters(recording, panel, weight)
    _, rows, other = np.intersect1d(panel.first, weight.first, assume_unique=True, return_indices=True)
    size = weight.at(other).rms()[:, theirs]
    ratio[np.ix_(rows, mine)] = np.where(size > 0, panel.rms_max[np.ix_(rows, mine)] / size, np.nan)
    return ratio


def site_state(panel: Panel) -> State:
    """Returns the state of every row of a panel, shape [t, m]."""
    state = np.where(panel.n == NULL, NOTHING, FINITE)
    state[(panel.nan > 0) | (panel.inf > 0)] = NON_FINITE
    state[(panel.stage == _ABSENT_CODE) & (panel.n != NULL)] = NO_GRADIENT
    return state.astype(np.uint8)


def matrices(recording: Recording, depth: Mapping[str, int]) -> list[Matrix]:
    """Builds every metric that was captured; a layer's value is the maximum over its sites.

    Args:
        recording: the run.
        depth: layer name to its index.
    """
    built = [matrix for metric in METRICS if (matrix := _matrix(recording, metric, depth)) is not None]
    return [m for m in built if m.metric.key not in OPTIONAL or bool((np.nan_to_num(m.values) > 0).any())]


def _matrix(recording: Recording, metric: Metric, depth: Mapping[str, int]) -> Matrix | None:
    series: list[tuple[tuple[str, int], Panel | BucketPanel]] = [
        *sorted(recording.panels.items(), key=_key),
        *sorted(recording.buckets.items(), key=_key),
    ]
    panels = [panel for (signal, _), panel in series if signal == metric.signal]
    parts = [_over_layers(recording, metric, panel, depth) for panel in panels]
    parts = [part for part in parts if len(part.layers) and len(part.steps)]
    return None if not parts else parts[0] if len(parts) == 1 else _merge(metric, parts)


def _key(item: tuple[tuple[str, int], object]) -> tuple[str, int]:
    return item[0]


def _over_layers(recording: Recording, metric: Metric, panel: Panel | BucketPanel, depth: Mapping[str, int]) -> Matrix:
    columns = _columns(recording, metric, panel, depth)
    layers = np.array([depth[recording.sites[int(panel.sites[i])].layer] for i in columns], dtype=np.intp)
    first, last = (panel.first, panel.last) if isinstance(panel, BucketPanel) else (panel.steps, panel.steps)
    # What was kept around the onsets of findings lies inside windows, which show it already.
    whole = 0 if isinstance(panel, BucketPanel) else recording.whole_from.get(panel.optimizer, 0)
    begin = int(np.searchsorted(first, whole))
    used, starts = np.unique(layers, return_index=True)
    if not len(used):
        return Matrix(metric, used, first[:0], last[:0], np.zeros((0, 0)), np.zeros((0, 0), dtype=np.uint8))
    values = np.empty((len(first) - begin, len(used)))
    state = np.empty(values.shape, dtype=np.uint8)
    for at in range(begin, len(first), ROWS_AT_ONCE):
        rows = slice(at, at + ROWS_AT_ONCE)
        some, states = _of_sites(recording, metric, panel, rows, columns)
        if len(used) != len(layers):
            some, states = np.fmax.reduceat(some, starts, axis=1), np.maximum.reduceat(states, starts, axis=1)
        place = slice(at - begin, at - begin + len(some))
        values[place], state[place] = some, states
    known = (state != NOTHING).any(axis=1)
    if not known.all():
        values, state = values[known], state[known]
    return Matrix(metric, used, first[begin:][known], last[begin:][known], values, state)


def _of_sites(
    recording: Recording, metric: Metric, panel: Panel | BucketPanel, rows: slice, columns: npt.NDArray[np.intp]
) -> tuple[Float, State]:
    """Returns values and states of some rows and columns of a panel."""
    part = panel.at(rows)
    if isinstance(part, BucketPanel):
        values, state = bucket_values(recording, part, metric.statistic), bucket_state(part)
    else:
        values, state = site_values(recording, part, metric.statistic), site_state(part)
    values, state = values[:, columns], state[:, columns]
    return values, np.where((state == FINITE) & np.isnan(values), NOTHING, state).astype(np.uint8)


def _columns(
    recording: Recording, metric: Metric, panel: Panel | BucketPanel, depth: Mapping[str, int]
) -> npt.NDArray[np.intp]:
    """Returns the panel's columns in order of depth; of a ratio, matrices stand for their layer where it has one.

    Biases and scales start near zero, so their ratio says nothing about the layer.
    """
    sites = [recording.sites[int(i)] for i in panel.sites]
    chosen = [i for i, site in enumerate(sites) if site.layer in depth]
    if metric.statistic == "ratio":
        heavy = {sites[i].layer for i in chosen if sites[i].role in ("weight", "embedding")}
        chosen = [i for i in chosen if sites[i].role in ("weight", "embedding") or sites[i].layer not in heavy]
    if metric.signal == "activation":
        chosen = [i for i in chosen if not sites[i].name.endswith(":input")]
    return np.array(sorted(chosen, key=lambda i: (depth[sites[i].layer], i)), dtype=np.intp)


def _merge(metric: Metric, parts: Sequence[Matrix]) -> Matrix:
    """Joins the layers of several optimizers, and windows with single steps, over the union of their steps."""
    steps = np.unique(np.concatenate([part.steps for part in parts]))
    layers = np.unique(np.concatenate([part.layers for part in parts]))
    values = np.full((len(steps), len(layers)), np.nan)
    state = np.zeros(values.shape, dtype=np.uint8)
    last = steps.copy()
    for part in parts:
        at = np.ix_(np.searchsorted(steps, part.steps), np.searchsorted(layers, part.layers))
        row = np.searchsorted(steps, part.steps)
        last[row] = np.maximum(last[row], part.last)
        values[at] = np.fmax(values[at], part.values)
        state[at] = np.maximum(state[at], part.state)
    # Two optimizers may count differently: a window of one ends where the next row of another begins.
    last[:-1] = np.minimum(last[:-1], steps[1:] - 1)
    return Matrix(metric, layers, steps, last, values, state)


def _ratio(recording: Recording, panel: Panel) -> Float:
    """Returns l2(update) / l2(weight) where both were taken at the same step, shape [t, m]."""
    weight = recording.panel("weight", panel.optimizer)
    ratio = np.full(panel.n.shape, np.nan)
    if weight is None:
        return ratio
    mine, theirs = _same_parameters(recording, panel, weight)
    _, rows, other = np.intersect1d(panel.steps, weight.steps, assume_unique=True, return_indices=True)
    size = weight.l2[np.ix_(other, theirs)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio[np.ix_(rows, mine)] = np.where(size > 0, panel.l2[np.ix_(rows, mine)] / size, np.nan)
    return ratio


def _same_parameters(
    recording: Recording, panel: Panel | BucketPanel, other: Panel | BucketPanel
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Returns the columns of two panels that are of the same parameters."""
    column = {recording.sites[int(site)].name: i for i, site in enumerate(other.sites)}
    pairs = [(i, column.get(recording.sites[int(site)].name)) for i, site in enumerate(panel.sites)]
    mine = np.array([i for i, j in pairs if j is not None], dtype=np.intp)
    return mine, np.array([j for _, j in pairs if j is not None], dtype=np.intp)


def _unit_share(panel: Panel, statistic: str) -> Float:
    if panel.units is None:
        return np.full(panel.n.shape, np.nan)
    units, silent, _, saturated = panel.units
    return _share(silent, units) if statistic == "silent" else _share(saturated, panel.n)


def _share(count: npt.NDArray[np.int64], elements: npt.NDArray[Any]) -> Float:
    with np.errstate(divide="ignore", invalid="ignore"):
        known = (count != NULL) & (elements > 0)
        return np.where(known, count / np.maximum(elements, 1), np.nan)
