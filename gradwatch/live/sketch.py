"""A followed run in a few lines: verdict, progress, loss, findings, and the layers that are in trouble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gradwatch.findings import Finding, printable
from gradwatch.recording import Panel, Recording, StepTable
from gradwatch.run import Run
from gradwatch.statistics import Float

MARKS: Final = {"critical": "▲", "warning": "■", "notice": "●"}
BARS: Final = "▁▂▃▄▅▆▇█"
MOST_FINDINGS: Final = 6
MOST_LAYERS: Final = 6
RECENT_STEPS: Final = 50
"""Captured steps over which the speed is taken."""

BAR_COLUMNS: Final = 48


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the view: its text, and a style: ``strong``, ``faint``, a severity, or "" for none."""

    text: str
    style: str = ""


def sketch(run: Run) -> list[Line]:
    """Returns the view of a run; what a terminal would obey is made visible."""
    lines = [Line(run.verdict, "strong"), Line(progress(run.recording), "faint"), *_losses(run.recording)]
    shown = run.findings[:MOST_FINDINGS]
    lines += [Line(f"{MARKS[finding.severity]} {finding.summary}", finding.severity) for finding in shown]
    more = len(run.findings) - len(shown)
    lines += [Line(f"  and {more:,} more", "faint")] if more > 0 else []
    lines += _layers(run)
    return [Line(printable(line.text), line.style) for line in lines]


def progress(recording: Recording) -> str:
    """Returns how far training is and how fast, of the optimizer that is furthest."""
    tables = [table for table in recording.step_tables.values() if len(table.steps)]
    if not tables:
        return f"{recording.name}: no step yet"
    table = max(tables, key=lambda table: int(table.steps[-1]))
    state = "training" if recording.open else "ended"
    parts = [f"{recording.name}: {state}, step {int(table.steps[-1]):,}", f"{len(table.steps):,} captured"]
    return ", ".join([*parts, *_speed(table), *_loss_of(table)])


def sparkline(values: Float, columns: int = BAR_COLUMNS) -> str:
    """Draws the means of equal parts of a series, shape [t], as bars; ``!`` where nothing in a part is finite."""
    parts = np.array_split(values, min(columns, len(values))) if len(values) else []
    means = np.array([part[np.isfinite(part)].mean() if np.isfinite(part).any() else np.nan for part in parts])
    known = means[np.isfinite(means)]
    if not len(known):
        return "!" * len(means)
    low, span = float(known.min()), float(np.ptp(known)) or 1.0
    return "".join("!" if np.isnan(v) else BARS[min(7, int(8 * (v - low) / span))] for v in means.tolist())


def _speed(table: StepTable) -> Iterator[str]:
    last = slice(-RECENT_STEPS, None)
    steps, seconds = np.ptp(table.steps[last]), np.ptp(table.time[last])
    if steps > 0 and seconds > 0:
        yield f"{float(steps / seconds):,.3g} steps/s"


def _loss_of(table: StepTable) -> Iterator[str]:
    values = loss(table)
    if len(values):
        yield f"loss {values[-1]:.4g}"


def loss(table: StepTable) -> Float:
    """Returns the logged loss at the steps that have one, shape [k]; what was not finite is NaN."""
    column = table.logged.get("loss", np.full(len(table.steps), np.nan))
    bad = np.isin(table.steps, [step for step, name, _ in table.nonfinite_logged if name == "loss"])
    kept = bad | ~np.isnan(column)
    return np.where(bad, np.nan, column)[kept]


def _losses(recording: Recording) -> Iterator[Line]:
    for optimizer, table in sorted(recording.step_tables.items()):
        values = loss(table)
        if len(values) > 1:
            name = recording.sites.optimizers[optimizer] if len(recording.step_tables) > 1 else ""
            known = values[np.isfinite(values)]
            ends = f"  {known[0]:.3g} to {known[-1]:.3g}" if len(known) else ""
            yield Line(f"loss {name}{' ' if name else ''}{sparkline(values)}{ends}")


def _layers(run: Run) -> Iterator[Line]:
    """Yields the layers of the findings, the worst first, with their newest gradient and what it was at the start."""
    severity_of = _severities(run.findings)
    if severity_of:
        yield Line("layer: gradient rms now, and over its first steps", "faint")
    wide = max((len(printable(name)) for name in list(severity_of)[:MOST_LAYERS]), default=0)
    for layer, severity in list(severity_of.items())[:MOST_LAYERS]:
        yield Line(f"{MARKS[severity]} {printable(layer):{wide}}  {_gradient(run.recording, layer)}", severity)


def _severities(findings: Sequence[Finding]) -> dict[str, str]:
    found: dict[str, str] = {}
    for finding in findings:
        for layer in finding.layers:
            found.setdefault(layer, finding.severity)
    return found


def _gradient(recording: Recording, layer: str) -> str:
    """Writes a layer's largest rms among its parameters at the newest step, and the median of its first ten."""
    for (signal, _), panel in sorted(recording.panels.items()):
        columns = _columns(recording, panel, layer) if signal == "gradient" else []
        if columns and len(panel.steps):
            rms = np.fmax.reduce(panel.rms()[:, columns], axis=1)
            known = rms[~np.isnan(rms)]
            return f"{known[-1]:.3g} ({np.median(known[:10]):.3g})" if len(known) else "no gradient"
    return "no gradient"


def _columns(recording: Recording, panel: Panel, layer: str) -> list[int]:
    return [i for i, site in enumerate(panel.sites) if recording.sites[int(site)].layer == layer]
