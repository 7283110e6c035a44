"""What the oracle reads from a plain record: progress of the loss, travel of the layers, and the mark of each kind."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tests.zoo.trace import Trace

Floats = NDArray[np.float64]


def start_loss(trace: Trace) -> float:
    """Mean loss of the first three steps."""
    return float(np.mean(trace.losses[:3]))


def end_loss(trace: Trace) -> float:
    """Mean loss of the last quarter; infinite when any of it is not finite."""
    tail = np.asarray(trace.losses[-max(len(trace.losses) // 4, 1) :])
    return float(tail.mean()) if np.isfinite(tail).all() else float("inf")


def travel(trace: Trace, layer: str) -> float:
    """How far the weights of a layer went, relative to their size at the start; the largest over its parameters."""
    return max((trace.travel[name] for name in trace.of_layer(layer)), default=0.0)


def update_ratios(trace: Trace) -> Floats:
    """Median over the weight matrices of the norm of a step over the norm of the weights, by step."""
    names = [name for name, rows in trace.weights.items() if rows[0].n > 1 and "bias" not in name]
    return np.asarray([_median([_ratio(trace, name, t) for name in names]) for t in range(trace.steps)])


def unmoved(trace: Trace, onset: int) -> float:
    """Share of the elements of the weight matrices that a step leaves as they are, median over the steps."""
    tables = [rows for name, rows in trace.updates.items() if rows[0].n > 1 and "bias" not in name]
    steps = [[rows[t] for rows in tables] for t in range(onset, trace.steps)]
    return _median([sum(row.zeros * row.n for row in here) / sum(row.n for row in here) for here in steps])


def gradient_norms(trace: Trace) -> Floats:
    """The norm of the gradient over all parameters, by step; infinite where some of it is not finite."""
    return np.asarray([_norm(trace, t) for t in range(trace.steps)])


def sizes(trace: Trace, t: int) -> Floats:
    """The gradients' sizes at the outputs of the chain at a step, rms, in forward order."""
    known = [layer for layer in trace.chain if len(trace.deltas.get(layer, ())) > t]
    return np.asarray([trace.deltas[layer][t].rms for layer in known])


def flow(trace: Trace, onset: int) -> float:
    """The least share of the gradient at the outputs that arrives anywhere below, median over ten steps."""
    found = []
    for t in range(onset, min(onset + 10, trace.steps)):
        here = sizes(trace, t)
        top = here[-1] if here.size else 0.0
        found.append(min([*here, *_over_time(trace, t)]) / top if top > 0 else 0.0)
    return _median(found)


def growth(trace: Trace, onset: int) -> float:
    """The largest output or gradient at an output within ten steps of the onset; infinite when not finite."""
    largest = 0.0
    for table in (trace.outputs, trace.deltas):
        for rows in table.values():
            for row in rows[onset : onset + 10]:
                largest = max(largest, float("inf") if row.nonfinite else row.rms)
    return largest


def silent(trace: Trace, layer: str) -> float:
    """Share of the units behind a layer that were 0 for all examples of the last quarter of the run."""
    rows = trace.units.get(layer, [])[-max(trace.steps // 4, 8) :]
    return float(np.mean(~np.any([row.active for row in rows], axis=0))) if rows else 0.0


def silent_since(trace: Trace, layer: str) -> int | None:
    """The first step from which on half of the units behind a layer stay silent."""
    rows = trace.units.get(layer, [])
    alive = np.zeros_like(rows[0].active) if rows else np.zeros(0, bool)
    for t in range(len(rows) - 1, -1, -1):
        alive = alive | rows[t].active
        if np.mean(~alive) < 0.5:
            return t + 1 if t + 1 < len(rows) else None
    return 0


def saturation(trace: Trace, layer: str) -> float:
    """Median share of outputs of a nonlinearity at its bound over the last quarter of the run."""
    rows = trace.units.get(layer, [])[-max(trace.steps // 4, 8) :]
    return _median([row.saturated for row in rows])


def flushed(trace: Trace) -> float:
    """Share of gradient elements of the weights that are exactly 0, median over the steps."""
    found = []
    for t in range(trace.steps):
        rows = [rows[t] for name, rows in trace.gradients.items() if "bias" not in name and len(rows) > t]
        known = [row for row in rows if row is not None]
        found.append(sum(row.zeros * row.n for row in known) / max(sum(row.n for row in known), 1))
    return _median(found)


def first_nonfinite(trace: Trace) -> int | None:
    """The first step at which a loss, an output, a gradient or a weight is not finite."""
    bad = [t for t, loss in enumerate(trace.losses) if not np.isfinite(loss)]
    for table in (trace.outputs, trace.deltas, trace.weights, trace.gradients):
        for rows in table.values():
            bad += [t for t, row in enumerate(rows) if row is not None and row.nonfinite][:1]
    return min(bad, default=None)


def without_gradient(trace: Trace, layer: str) -> bool:
    """Whether no parameter of a layer ever had a gradient other than 0."""
    rows = [row for name in trace.of_layer(layer) for row in trace.gradients.get(name, [])]
    return bool(rows) and all(row is None or row.absmax == 0 for row in rows)


def clipped(trace: Trace) -> float:
    """Median factor by which clipping shrank the gradient."""
    return _median(trace.clips)


def swing(trace: Trace) -> float:
    """Median cosine between successive gradients, after the first ten steps."""
    return _median(trace.cosines[10:])


def peak(trace: Trace, onset: int) -> float:
    """The largest loss or gradient norm within three steps of the onset over the median of the ten steps before."""
    norms, losses = gradient_norms(trace), np.abs(np.asarray(trace.losses))
    found = [np.max(series[onset : onset + 3]) / np.median(series[onset - 10 : onset]) for series in (norms, losses)]
    return float(max(found))


def recovered(trace: Trace, onset: int) -> bool:
    """Whether the loss comes back below three times what it was before the onset, within 30 steps."""
    before = float(np.median(trace.losses[onset - 10 : onset]))
    after = np.asarray(trace.losses[onset + 1 : onset + 31])
    return bool(after.size and np.isfinite(after).all() and after[-3:].mean() < 3 * before)


def survived(trace: Trace, onset: int) -> bool:
    """Whether the loss is back within ten steps, to a quarter above what it was before the onset."""
    before = float(np.median(trace.losses[onset - 10 : onset]))
    after = np.asarray(trace.losses[onset + 5 : onset + 15])
    return bool(after.size and float(np.median(after)) < 1.25 * before)


def _over_time(trace: Trace, t: int) -> list[float]:
    return [rows[t].rms for name, rows in trace.deltas.items() if "@" in name and len(rows) > t]


def _ratio(trace: Trace, name: str, t: int) -> float:
    size, step = trace.weights[name][t].rms, trace.updates[name][t]
    return float("inf") if step.nonfinite else step.rms / max(size, 1e-3)


def _norm(trace: Trace, t: int) -> float:
    rows = [rows[t] for rows in trace.gradients.values() if len(rows) > t]
    known = [row for row in rows if row is not None]
    if any(row.nonfinite for row in known):
        return float("inf")
    return float(np.sqrt(sum(row.l2**2 for row in known)))


def _median(values: list[float]) -> float:
    good = [value for value in values if not np.isnan(value)]
    return float(np.median(good)) if good else 0.0


HURT: Final = 0.25
"""Share of the twin's progress that a plant has to cost before it counts as harm to the loss."""
