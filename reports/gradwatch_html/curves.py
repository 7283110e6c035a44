"""The curve that shows a finding: its layers beside the rest of the network, from the finding's own statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.findings import Figure, Finding
from gradwatch.recording import Recording
from gradwatch.statistics import Float
from gradwatch_html.buckets import Buckets, bucket, joins
from gradwatch_html.metrics import NON_FINITE, Matrix
from gradwatch_html.words import spelled

COLUMNS: Final = 160
DEPTHS: Final = 72
"""Points of a curve by depth: of more layers neighbours share one, the largest shows."""

SHORT_RUN: Final = 20
"""Captured steps below which a run has no start of its own."""

_METRIC_OF_KIND: Final = {
    "dead-units": ("silent",),
    "saturated": ("saturated",),
    "update-too-large": ("ratio",),
    "update-too-small": ("ratio",),
    "frozen": ("ratio",),
    "underflow": ("zeros",),
}
_SAME_AS: Final = {"l2": "rms", "nan": "nonfinite", "inf": "nonfinite", "silent_units": "silent"}
"""Statistics of which the page draws a relative."""

_TITLES: Final = {"total_norm": "total gradient norm before clipping", "loss": "loss"}


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve over steps or over depth.

    Attributes:
        title: what the values are.
        x: steps, or layer indices, ascending, shape [p].
        joined: which points follow their predecessor without a hole, shape [p].
        y: values of the culprit, NaN where there is none, shape [p].
        bad: where the culprit is non-finite, shape [p].
        rest: median of the layers without the finding, NaN where unknown, shape [p]; None when there are no such.
        span: x from which to which the finding shows.
        logarithmic: whether to draw by logarithm.
        subject: whose curve it is.
        rest_subject: whose the other curve is.
        by_depth: whether x counts layers.
        share: whether y is a share, written in percent.
    """

    title: str
    x: npt.NDArray[np.int64]
    joined: npt.NDArray[np.bool_]
    y: Float
    bad: npt.NDArray[np.bool_]
    rest: Float | None
    span: tuple[int, int]
    logarithmic: bool
    subject: str
    rest_subject: str = ""
    by_depth: bool = False
    share: bool = False


def metric_of(finding: Finding, built: Mapping[str, Matrix]) -> str | None:
    """Returns the key of the metric in which a finding shows, or None when nothing was captured of it."""
    wanted: list[str] = ["gradient"] if finding.kind == "nonfinite" else []
    if finding.figure is not None:
        wanted += [key for key, m in built.items() if _is_of(finding.figure, m)]
        wanted += _METRIC_OF_KIND.get(finding.kind, ())
        wanted += [key for key, m in built.items() if m.metric.signal == finding.figure.signal]
    wanted += [*_METRIC_OF_KIND.get(finding.kind, ()), "gradient", "delta", "activation"]
    return next((key for key in wanted if key in built), None)


def curve(
    recording: Recording, finding: Finding, built: Mapping[str, Matrix], depth: Mapping[str, int]
) -> Curve | None:
    """Returns what shows a finding, or None when nothing of it was captured."""
    scalar = _scalar_curve(recording, finding)
    if scalar is not None:
        return scalar
    key = "nonfinite" if finding.kind == "nonfinite" and "nonfinite" in built else metric_of(finding, built)
    if key is None or not len(built[key].steps):
        return None
    affected = np.array(sorted({depth[name] for name in finding.layers if name in depth}), dtype=np.intp)
    if finding.figure is not None and finding.figure.axis == "depth" and len(built[key].layers) > 1:
        return _depth_curve(built[key], finding, affected)
    return _step_curve(built[key], finding, affected, depth)


def _is_of(figure: Figure, matrix: Matrix) -> bool:
    statistic = _SAME_AS.get(figure.statistic, figure.statistic)
    return statistic == matrix.metric.statistic and figure.signal == matrix.metric.signal


def _step_curve(matrix: Matrix, finding: Finding, affected: npt.NDArray[np.intp], depth: Mapping[str, int]) -> Curve:
    culprit = depth.get(finding.layer or "", -1)
    mine = np.flatnonzero(matrix.layers == culprit)
    subject = finding.layer or ""
    if not len(mine):
        mine = np.flatnonzero(np.isin(matrix.layers, affected)) if len(affected) else np.arange(len(matrix.layers))
        subject = "largest of the affected layers" if len(affected) else "largest of all layers"
    if not len(mine):
        mine, subject = np.arange(len(matrix.layers)), "largest of all layers"
    others = np.setdiff1d(np.flatnonzero(~np.isin(matrix.layers, affected)), mine)
    keep = [] if finding.first_step is None else [finding.first_step]
    buckets = bucket(matrix.steps, COLUMNS, last=matrix.last, keep=keep, around=4)
    y, bad = _merged(matrix, mine, buckets)
    rest = buckets.maximum(_median(matrix.values[:, others])) if len(others) else None
    first = int(matrix.steps[0]) if finding.first_step is None else finding.first_step
    last = int(matrix.steps[-1]) if finding.last_step is None else finding.last_step
    title = matrix.metric.title
    curves = (_places(buckets), joins(buckets.first, buckets.last), y, bad, rest)
    return Curve(
        title,
        *curves,
        (first, last),
        not matrix.metric.share,
        subject,
        "median of the other layers",
        False,
        matrix.metric.share,
    )


def _depth_curve(matrix: Matrix, finding: Finding, affected: npt.NDArray[np.intp]) -> Curve:
    """Draws the layers side by side: medians over the steps of the finding, and over the first steps as the rest."""
    steps = matrix.steps
    first = int(steps[0]) if finding.first_step is None else finding.first_step
    last = int(steps[-1]) if finding.last_step is None else finding.last_step
    during = (steps >= first) & (steps <= last)
    if not during.any():
        during[np.abs(steps - first).argmin()] = True
    before = steps < first
    y = _median(matrix.values[during].T)
    bad = (matrix.state[during] == NON_FINITE).any(axis=0)
    rest = _median(matrix.values[before].T) if before.sum() >= 3 else None
    shown = affected if len(affected) else matrix.layers
    span = (int(shown[0]), int(shown[-1]))
    title = f"{matrix.metric.title} by depth"
    along = bucket(matrix.layers.astype(np.int64), DEPTHS)
    y, bad = along.maximum(y), along.maximum(bad)
    rest = None if rest is None else along.maximum(rest)
    curves = (along.first, joins(along.first, along.last), y, bad, rest)
    return Curve(
        title,
        *curves,
        span,
        not matrix.metric.share,
        f"median of {spelled(first, last)}",
        "median of the steps before",
        True,
        matrix.metric.share,
    )


def _scalar_curve(recording: Recording, finding: Finding) -> Curve | None:
    """Draws a scalar of the run where the figure names one, or where the finding is about the loss itself."""
    name = finding.figure.statistic if finding.figure is not None else "loss" if finding.layer is None else ""
    for optimizer, table in sorted(recording.step_tables.items()):
        if finding.optimizer and recording.sites.optimizers[optimizer] != finding.optimizer:
            continue
        column = table.facts.get(name, table.logged.get(name))
        wrong = [step for step, key, _ in table.nonfinite_logged if key == name]
        if column is None or (np.isnan(column).all() and not wrong):
            continue
        buckets = bucket(table.steps, COLUMNS)
        bad = buckets.maximum(np.isin(table.steps, wrong))
        values = column[~np.isnan(column)]
        positive = bool(len(values)) and float(values.min()) > 0 and float(values.max() / values.min()) > 30
        first = int(table.steps[0]) if finding.first_step is None else finding.first_step
        last = int(table.steps[-1]) if finding.last_step is None else finding.last_step
        title = _TITLES.get(name, name.replace("_", " "))
        curves = (_places(buckets), joins(buckets.first, buckets.last), buckets.maximum(column), bad, None)
        return Curve(title, *curves, (first, last), positive, "")
    return None


def _places(buckets: Buckets) -> npt.NDArray[np.int64]:
    """Returns where buckets are drawn: at their first step, the last one at its last step."""
    places = buckets.first.copy()
    places[-1:] = buckets.last[-1:]
    return places


def _merged(matrix: Matrix, columns: npt.NDArray[np.intp], buckets: Buckets) -> tuple[Float, npt.NDArray[np.bool_]]:
    values = np.fmax.reduce(matrix.values[:, columns], axis=1)
    bad = (matrix.state[:, columns] == NON_FINITE).any(axis=1)
    if matrix.metric.statistic == "nonfinite":
        bad = np.zeros(len(bad), dtype=np.bool_)
    return buckets.maximum(values), buckets.maximum(bad)


def _median(values: Float) -> Float:
    """Returns the median over axis 1 of what is known, shape [n]; NaN where nothing is."""
    ordered = np.sort(values, axis=1)
    known = (~np.isnan(values)).sum(axis=1)
    middle = np.maximum(known - 1, 0) // 2
    return np.where(known > 0, ordered[np.arange(len(values)), middle], np.nan)


def view_of(finding: Finding, steps: npt.NDArray[np.int64]) -> str:
    """Returns "change" (from each layer's own start), or "value" when that start may itself be faulty.

    A finding that holds for the whole run or begins in its first tenth leaves no healthy start to compare with.
    """
    early = int(steps[0]) + 0.1 * int(steps[-1] - steps[0]) if len(steps) else 0
    return "value" if finding.first_step is None or finding.first_step <= early else "change"


def default_view(findings: Sequence[Finding], steps: npt.NDArray[np.int64]) -> str:
    """Returns the view with which the heatmap opens: values when the run is short or a grave finding begins early."""
    grave = [finding for finding in findings if finding.severity != "notice"]
    early = any(view_of(finding, steps) == "value" for finding in grave)
    return "value" if len(steps) < SHORT_RUN or early else "change"
