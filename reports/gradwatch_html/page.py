"""Everything the page shows, as plain data; painting adds only form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gradwatch.findings import Analysis, Finding
from gradwatch.recording import Recording
from gradwatch_html import facts
from gradwatch_html.buckets import bucket
from gradwatch_html.cards import Card, cards, counts
from gradwatch_html.context import Lane, lanes
from gradwatch_html.curves import default_view, metric_of
from gradwatch_html.drawing import Cell, strip
from gradwatch_html.encode import encode, pack, pack_codes
from gradwatch_html.flow import Flow, flow
from gradwatch_html.histograms import histogram_pack
from gradwatch_html.layers import LayerRow, layer_rows
from gradwatch_html.metrics import Matrix, matrices
from gradwatch_html.series import series_pack
from gradwatch_html.words import counted, kind_title, power_of_ten

CELL_BUDGET: Final = 700_000
"""Cells of a matrix: about 0.4 MB in the page."""

MAX_COLUMNS, MIN_COLUMNS = 1024, 128
MAX_KEPT_STEPS: Final = 8
MAX_OUTLINED: Final = 24
_BASELINE: Final = (0.08, 0.18)
"""The part of the run whose median is a layer's own start: after warm-up, before most faults."""


@dataclass(frozen=True, slots=True)
class Page:
    """The page as data.

    Attributes:
        name, framework, verdict, summary: of the header and first lines.
        notes: data-quality notes.
        counts: (level, word, count).
        cells: of the health strip.
        cards: findings, worst first.
        passed: kinds that passed, in words.
        not_applied: (kind in words, reason).
        run_facts, signal_facts: rows of two columns.
        judged: whether there was enough to judge.
        calm: what stands in place of the findings when there is none.
        sections: names of the sections that have something to show.
        meta: what the script needs, as JSON data.
        islands: name to packed binary data.
    """

    name: str
    framework: str
    verdict: str
    summary: str
    notes: tuple[str, ...]
    counts: list[tuple[str, str, int]]
    cells: list[Cell]
    cards: list[Card]
    passed: list[str]
    not_applied: list[tuple[str, str]]
    run_facts: list[tuple[str, str]]
    signal_facts: list[tuple[str, str]]
    judged: bool
    calm: str
    sections: frozenset[str]
    meta: dict[str, Any]
    islands: dict[str, str]


def build_page(recording: Recording, analysis: Analysis) -> Page:
    """Builds the page of a run."""
    depth = {name: i for i, name in enumerate(recording.sites.layers)}
    rows = layer_rows(recording, analysis)
    built = {matrix.metric.key: matrix for matrix in matrices(recording, depth)}
    keep = _kept_steps(analysis.findings)
    islands: dict[str, str] = {}
    meta: dict[str, Any] = {
        "layers": [_layer(row) for row in rows],
        "optimizers": list(recording.sites.optimizers),
        "findings": [_finding(f, built, depth) for f in analysis.findings],
        "metrics": [_metric(matrix, islands) for matrix in built.values()],
        "lanes": [_lane(lane) for lane in lanes(recording)],
        "start": _start(recording, analysis.findings, built),
        "flow": _flow(flow(recording, depth, keep), islands),
        "series": _series(recording, rows, analysis.findings, keep, islands),
        "histograms": _histograms(recording, depth, islands),
    }
    return Page(
        recording.name,
        facts.framework(recording),
        analysis.verdict,
        facts.summary(recording, rows),
        recording.quality,
        counts(analysis),
        strip(judged) if len(judged := shown_in_strip(rows)) > 1 else [],
        cards(recording, analysis, built, depth),
        [kind_title(kind) for kind in analysis.passed],
        [(kind_title(kind), reason) for kind, reason in analysis.not_applied.items()],
        facts.run_facts(recording),
        facts.signal_facts(recording),
        analysis.judged,
        _calm(recording, analysis),
        _sections(meta),
        meta,
        islands,
    )


def shown_in_strip(rows: Sequence[LayerRow]) -> list[LayerRow]:
    """Returns the layers with parameters, and others only where something was found in them."""
    return (
        [row for row in rows if row.parameters or row.findings] if any(row.parameters for row in rows) else list(rows)
    )


def _calm(recording: Recording, analysis: Analysis) -> str:
    """Says why there is no finding; never that all is well when something could not be judged."""
    if not any(len(table.steps) for table in recording.step_tables.values()):
        return (
            "No optimizer step was seen. Check that the watched optimizer is the one that steps, and that watching "
            "begins before the training loop and ends after it."
        )
    if not analysis.judged:
        steps = counted(analysis.steps, "captured step")
        return f"Too few for a verdict: {steps}. The checks below say what they need."
    if not analysis.passed:
        return "No check could be applied to this run; the reasons are below."
    if analysis.not_applied:
        return f"Every check that applied passed; {counted(len(analysis.not_applied), 'check')} did not apply."
    return "Every check passed."


def _sections(meta: Mapping[str, Any]) -> frozenset[str]:
    owners = sum(bool(layer["parameters"]) for layer in meta["layers"])
    several_layers = owners > 1 or (owners == 0 and len(meta["layers"]) > 1)
    several_steps = any(len(metric["first"]) > 1 for metric in meta["metrics"])
    shown = {
        "heatmap": several_steps and several_layers,
        "time": bool(meta["findings"] or meta["lanes"]) and several_steps,
        "flow": meta["flow"] is not None,
        "layer": bool(meta["metrics"]),
    }
    return frozenset(name for name, wanted in shown.items() if wanted)


def _kept_steps(findings: Sequence[Finding]) -> list[int]:
    first = [finding.first_step for finding in findings if finding.first_step is not None]
    return list(dict.fromkeys(first))[:MAX_KEPT_STEPS]


def _layer(row: LayerRow) -> dict[str, Any]:
    parameters = [
        [site.name, list(site.shape), site.dtype, site.role, site.status, site.optimizer, list(site.aliases)]
        for site in row.parameters
    ]
    return {
        "name": row.name,
        "kind": row.kind,
        "level": row.level,
        "found": list(row.findings),
        "parameters": parameters,
    }


def _finding(finding: Finding, built: Mapping[str, Matrix], depth: Mapping[str, int]) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "word": kind_title(finding.kind),
        "severity": finding.severity,
        "title": finding.title,
        "layers": ranges({depth[name] for name in finding.layers if name in depth}),
        "culprit": depth.get(finding.layer) if finding.layer is not None else None,
        "first": finding.first_step,
        "last": finding.last_step,
        "metric": metric_of(finding, built),
    }


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Writes whole numbers as ascending [first, last] ranges."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def _metric(matrix: Matrix, islands: dict[str, str]) -> dict[str, Any]:
    columns = int(np.clip(CELL_BUDGET // len(matrix.layers), MIN_COLUMNS, MAX_COLUMNS))
    buckets = bucket(matrix.steps, columns)
    values, state = buckets.maximum(matrix.values), buckets.maximum(matrix.state)
    encoded = encode(values, state, share=matrix.metric.share)
    islands[f"m-{matrix.metric.key}"] = pack_codes(encoded.codes)
    return {
        "key": matrix.metric.key,
        "title": matrix.metric.title,
        "share": matrix.metric.share,
        "layers": matrix.layers.tolist(),
        "first": buckets.first.tolist(),
        "last": buckets.last.tolist(),
        "low": encoded.low,
        "step": encoded.step,
        "start": [None if np.isnan(v) else round(float(v), 4) for v in start_of_rows(matrix)],
        "note": _note(matrix, len(buckets), encoded.clipped, encoded.low),
    }


def start_of_rows(matrix: Matrix) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns log10 of each layer's own start, shape [r]: the median of 8 to 18 % of its positive captured values.

    Of a short or late-starting series at least its first three values count; NaN where there is none.
    """
    starts = np.full(len(matrix.layers), np.nan)
    for row in range(len(starts)):
        values = matrix.values[:, row]
        values = values[values > 0]
        if len(values):
            low, high = (int(len(values) * share) for share in _BASELINE)
            starts[row] = np.median(np.log10(values[low : max(high, low + 3)]))
    return starts


def _note(matrix: Matrix, columns: int, clipped: int, low: float) -> str:
    parts = [matrix.metric.note]
    t = len(matrix.steps)
    parts.append(
        f"{counted(t, 'captured step')}."
        if columns == t
        else f"{counted(t, 'captured step')} in {columns:,} columns; each shows its largest value."
    )
    if clipped:
        parts.append(f"{counted(clipped, 'cell')} below {power_of_ten(round(low))} shown as that.")
    return " ".join(parts)


def _lane(lane: Lane) -> dict[str, Any]:
    return {
        "title": lane.title,
        "first": lane.first.tolist(),
        "last": lane.last.tolist(),
        "low": lane.low.tolist(),
        "high": lane.high.tolist(),
        "bad": list(lane.nonfinite),
        "log": lane.logarithmic,
    }


def _start(recording: Recording, findings: Sequence[Finding], built: Mapping[str, Matrix]) -> dict[str, Any]:
    """Chooses what the page opens with: the view in which the worst finding shows."""
    steps = [recording.steps(optimizer) for optimizer in recording.step_tables]
    every = np.unique(np.concatenate(steps)) if steps else np.zeros(0, dtype=np.int64)
    worst = findings[0] if findings else None
    metric = metric_of(worst, built) if worst is not None else next(iter(built), None)
    layer = next((f.layer for f in findings if f.layer is not None), None)
    return {
        "metric": metric,
        "view": default_view(findings, every),
        "layer": layer,
        "steps": [int(every[0]), int(every[-1])] if len(every) else None,
    }


def _flow(curves: Flow | None, islands: dict[str, str]) -> dict[str, Any] | None:
    if curves is None:
        return None
    islands["flow"] = pack(np.stack([curves.median, curves.low, curves.high]).astype("<f4").tobytes())
    return {"steps": curves.steps.tolist(), "groups": curves.groups.tolist()}


def _series(
    recording: Recording,
    rows: Sequence[LayerRow],
    findings: Sequence[Finding],
    keep: Sequence[int],
    islands: dict[str, str],
) -> dict[str, Any]:
    depth = {row.name: row.index for row in rows}
    culprits = [depth[f.layer] for f in findings if f.layer in depth]
    named = [row.index for row in rows if row.findings]
    order = list(dict.fromkeys([*culprits, *named, *range(len(rows))]))
    packed = series_pack(recording, order, keep)
    islands["series"] = pack(packed.blob)
    return {"times": packed.times, "lines": {str(layer): lines for layer, lines in sorted(packed.lines.items())}}


def _histograms(recording: Recording, depth: Mapping[str, int], islands: dict[str, str]) -> dict[str, Any]:
    packed = histogram_pack(recording, depth)
    islands["histograms"] = pack(packed.blob)
    return {"times": packed.times, "layers": {str(layer): at for layer, at in sorted(packed.layers.items())}}
