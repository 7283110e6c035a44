"""What the page's script works with: plain data for its JSON island, and packed islands of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from gradwatch.findings import Analysis, Finding
from gradwatch.record import Site
from gradwatch.recording import Recording, Steps
from gradwatch_html.buckets import bucket, time_axis
from gradwatch_html.context import Lane, lanes
from gradwatch_html.curves import default_view, metric_of, view_of
from gradwatch_html.encode import differences, encode, pack
from gradwatch_html.expected import expected_slopes
from gradwatch_html.flow import Flow, flow, slopes
from gradwatch_html.histograms import histogram_pack
from gradwatch_html.layers import LayerRow
from gradwatch_html.look import plot_palettes
from gradwatch_html.metrics import Matrix
from gradwatch_html.series import series_pack
from gradwatch_html.words import STATUS_WORDS, counted, joined, kind_title, middle_ellipsis, power_of_ten

CELL_BUDGET: Final = 700_000
"""Cells of a matrix: about 0.4 MB in the page."""

MAX_COLUMNS, MIN_COLUMNS = 1024, 128
MAX_KEPT_STEPS: Final = 8
MAX_PARAMETERS: Final = 12
MAX_STRETCHES: Final = 12
_BASELINE: Final = (0.08, 0.18)
"""The part of the run whose median is a layer's own start: after warm-up, before most faults."""


def script_data(
    recording: Recording, analysis: Analysis, rows: Sequence[LayerRow], built: Mapping[str, Matrix]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the JSON island's data, and name to packed data of the others."""
    depth = {row.name: row.index for row in rows}
    owners = {row.index for row in rows if row.parameters}
    keep = _kept_steps(analysis.findings)
    steps = captured_steps(recording)
    islands: dict[str, bytes] = {}
    meta: dict[str, Any] = {
        "palettes": plot_palettes(),
        "layers": [_layer(row, recording.sites.optimizers) for row in rows],
        "findings": [_finding(f, built, depth, owners, steps) for f in analysis.findings],
        "metrics": [_metric(matrix, islands) for matrix in built.values()],
        "lanes": [_lane(lane) for lane in lanes(recording)],
        "start": _start(steps, analysis.findings, built),
        "flow": _flow(recording, flow(recording, depth, keep), islands),
        "series": _series(recording, rows, analysis.findings, keep, islands),
        "histograms": _histograms(recording, depth, islands),
    }
    # zlib works without the interpreter's lock.
    with ThreadPoolExecutor(2) as pool:
        return meta, dict(zip(islands, pool.map(pack, islands.values()), strict=True))


def parameter_text(layer: str, site: Site, optimizers: Sequence[str]) -> str:
    """Writes a parameter as ``weight 64 x 128 float32``, with its status where it is not simply trained."""
    short = site.name.removeprefix(f"{layer}.")
    shape = " \N{MULTIPLICATION SIGN} ".join(str(n) for n in site.shape) or "scalar"
    parts = [f"{middle_ellipsis(short, 60)} {shape} {site.dtype}"]
    if site.status != "trained":
        parts.append(STATUS_WORDS.get(site.status, site.status))
    if len(optimizers) > 1 and site.optimizer:
        parts.append(site.optimizer)
    if site.aliases:
        parts.append(f"tied with {joined(middle_ellipsis(alias, 60) for alias in site.aliases)}")
    return ", ".join(parts)


def _kept_steps(findings: Sequence[Finding]) -> list[int]:
    first = [finding.first_step for finding in findings if finding.first_step is not None]
    return list(dict.fromkeys(first))[:MAX_KEPT_STEPS]


def _layer(row: LayerRow, optimizers: Sequence[str]) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "level": row.level,
        "found": list(row.findings),
        "dtype": row.parameters[0].dtype if row.parameters else "",
        "parameters": [parameter_text(row.name, site, optimizers) for site in row.parameters[:MAX_PARAMETERS]],
        "more": max(0, len(row.parameters) - MAX_PARAMETERS),
    }


def _finding(
    finding: Finding, built: Mapping[str, Matrix], depth: Mapping[str, int], owners: Set[int], steps: Steps
) -> dict[str, Any]:
    affected = {depth[name] for name in finding.layers if name in depth}
    return {
        "kind": finding.kind,
        "word": kind_title(finding.kind),
        "severity": finding.severity,
        "title": finding.title,
        "rows": {key: stretches(matrix, affected, owners) for key, matrix in built.items()},
        "culprit": depth.get(finding.layer) if finding.layer is not None else None,
        "first": finding.first_step,
        "last": finding.last_step,
        "metric": metric_of(finding, built),
        "view": view_of(finding, steps),
    }


def stretches(matrix: Matrix, affected: Set[int], owners: Set[int]) -> list[list[int]]:
    """Returns the rows of a matrix that a finding affects, as [first, last], the longest ``MAX_STRETCHES``.

    Layers without parameters between two affected ones belong to the stretch.

    Args:
        matrix: whose rows are meant.
        affected: layer indices of the finding.
        owners: layer indices with parameters.
    """
    found: list[list[int]] = []
    broken = True
    for row, layer in enumerate(matrix.layers.tolist()):
        if layer in affected:
            if broken:
                found.append([row, row])
            found[-1][1] = row
            broken = False
        elif layer in owners or not owners:
            broken = True
    return sorted(sorted(found, key=lambda run: run[0] - run[1])[:MAX_STRETCHES])


def _metric(matrix: Matrix, islands: dict[str, bytes]) -> dict[str, Any]:
    columns = int(np.clip(CELL_BUDGET // len(matrix.layers), MIN_COLUMNS, MAX_COLUMNS))
    buckets = bucket(matrix.steps, columns, last=matrix.last, early=True)
    values, state = buckets.maximum(matrix.values), buckets.maximum(matrix.state)
    encoded = encode(values, state, share=matrix.metric.share)
    islands[f"m-{matrix.metric.key}"] = differences(encoded.codes)
    return {
        "key": matrix.metric.key,
        "title": matrix.metric.title,
        "share": matrix.metric.share,
        "layers": matrix.layers.tolist(),
        **time_axis(buckets.first, buckets.last),
        "low": encoded.low,
        "step": encoded.step,
        "start": [None if np.isnan(v) else round(float(v), 3) for v in start_of_rows(matrix)],
        "note": _note(matrix, len(buckets), encoded.clipped, encoded.low),
    }


def start_of_rows(matrix: Matrix) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns log10 of each layer's own start, shape [r]: the median of its positive values at 8 to 18 % of the run.

    Of a short or late-starting series at least its first three values count; NaN where there is none.
    """
    starts = np.full(len(matrix.layers), np.nan)
    span = matrix.last - matrix.steps + 1
    for row in range(len(starts)):
        values = matrix.values[:, row]
        known = values > 0
        values = values[known]
        if len(values):
            passed = np.cumsum(span[known])
            low, high = (int(np.searchsorted(passed, passed[-1] * share, side="right")) for share in _BASELINE)
            starts[row] = np.median(np.log10(values[low : max(high, low + 3)]))
    return starts


def _note(matrix: Matrix, columns: int, clipped: int, low: float) -> str:
    parts = [matrix.metric.note]
    windows = matrix.last > matrix.steps
    t = int(np.count_nonzero(~windows))
    if windows.any():
        wide, end = int((matrix.last - matrix.steps).max()) + 1, int(matrix.last[windows].max()) + 1
        parts.append(f"Before step {end:,} windows of up to {wide:,} steps, each by its largest value; from there on")
    parts.append(
        f"{counted(t, 'captured step')}."
        if columns == len(matrix.steps)
        else f"{counted(t, 'captured step')} in {columns:,} columns; each shows its largest value."
    )
    if clipped:
        parts.append(f"{counted(clipped, 'cell')} below {power_of_ten(round(low))} shown as that.")
    return " ".join(parts)


def _lane(lane: Lane) -> dict[str, Any]:
    return {
        "title": lane.title,
        **time_axis(lane.first, lane.last),
        "low": lane.low.tolist(),
        "high": lane.high.tolist(),
        "bad": list(lane.nonfinite),
        "log": lane.logarithmic,
    }


def captured_steps(recording: Recording) -> Steps:
    """Returns the captured steps of all optimizers, ascending, shape [t]."""
    steps = [recording.steps(optimizer) for optimizer in recording.step_tables]
    return np.unique(np.concatenate(steps)) if steps else np.zeros(0, dtype=np.int64)


def _start(steps: Steps, findings: Sequence[Finding], built: Mapping[str, Matrix]) -> dict[str, Any]:
    """Chooses what the page opens with: the view in which the worst finding shows."""
    worst = findings[0] if findings else None
    metric = metric_of(worst, built) if worst is not None else next(iter(built), None)
    layer = next((name for f in findings for name in (f.layer, *f.layers) if name is not None), None)
    return {
        "metric": metric,
        "view": default_view(findings, steps),
        "layer": layer,
        "steps": [int(steps[0]), int(steps[-1])] if len(steps) else None,
    }


def _flow(recording: Recording, curves: Flow | None, islands: dict[str, bytes]) -> dict[str, Any] | None:
    if curves is None:
        return None
    islands["flow"] = np.stack([curves.median, curves.low, curves.high]).astype("<f4").tobytes()
    return {
        "steps": curves.steps.tolist(),
        "names": list(curves.names),
        "grouped": bool((curves.groups[:, 0] < curves.groups[:, 1]).any()),
        "slopes": slopes(curves),
        "expected": expected_slopes(recording, curves),
    }


def _series(
    recording: Recording,
    rows: Sequence[LayerRow],
    findings: Sequence[Finding],
    keep: Sequence[int],
    islands: dict[str, bytes],
) -> dict[str, Any]:
    depth = {row.name: row.index for row in rows}
    culprits = [depth[f.layer] for f in findings if f.layer in depth]
    named = [row.index for row in rows if row.findings]
    order = list(dict.fromkeys([*culprits, *named, *range(len(rows))]))
    packed = series_pack(recording, order, keep)
    islands["series"] = packed.blob
    return {"times": packed.times, "lines": {str(layer): lines for layer, lines in sorted(packed.lines.items())}}


def _histograms(recording: Recording, depth: Mapping[str, int], islands: dict[str, bytes]) -> dict[str, Any]:
    packed = histogram_pack(recording, depth)
    islands["histograms"] = packed.blob
    return {"times": packed.times, "layers": {str(layer): at for layer, at in sorted(packed.layers.items())}}
