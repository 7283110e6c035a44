"""Everything the page shows, as plain data; painting adds only form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradwatch.findings import Analysis
from gradwatch.recording import Recording
from gradwatch_html import facts
from gradwatch_html.cards import Card, cards, counts
from gradwatch_html.drawing import Cell, strip
from gradwatch_html.layers import LEVELS, LayerRow, layer_rows
from gradwatch_html.metrics import matrices
from gradwatch_html.script_data import script_data
from gradwatch_html.words import counted, joined, kind_title


@dataclass(frozen=True, slots=True)
class Page:
    """The page as data.

    Attributes:
        name, framework, verdict, summary: of the header and first lines.
        notes: data-quality notes.
        counts: (level, word, count).
        cells, strip_label: of the health strip, and what it shows in a sentence.
        cards: findings, worst first.
        passed: kinds that passed, in words.
        not_applied: (kind in words, reason).
        silenced: (kind in words, title) of findings that nobody wants to be told.
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
    strip_label: str
    cards: list[Card]
    passed: list[str]
    not_applied: list[tuple[str, str]]
    silenced: list[tuple[str, str]]
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
    meta, islands = script_data(recording, analysis, rows, built)
    return Page(
        recording.name,
        facts.framework(recording),
        analysis.verdict,
        facts.summary(recording, rows),
        recording.quality,
        counts(analysis),
        strip(judged) if len(judged := shown_in_strip(rows)) > 1 else [],
        _strip_label(judged),
        cards(recording, analysis, built, depth),
        [kind_title(kind) for kind in analysis.passed],
        [(kind_title(kind), reason) for kind, reason in analysis.not_applied.items()],
        [(kind_title(finding.kind), finding.title) for finding in analysis.silenced],
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


def _strip_label(rows: Sequence[LayerRow]) -> str:
    words = {"unseen": "not judged"}
    level_of = [row.level for row in rows]
    found = [f"{level_of.count(level):,} {words.get(level, level)}" for level in LEVELS if level in level_of]
    return f"{counted(len(rows), 'layer')} from input to output: {joined(found)}."


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
    if analysis.silenced:
        return f"Nothing else was found; {counted(len(analysis.silenced), 'finding')} silenced."
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
