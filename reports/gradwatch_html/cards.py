"""The findings as the page shows them: closed as one line, open with evidence, cause, advice and check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradwatch import explain
from gradwatch.findings import SEVERITIES, Analysis, Finding
from gradwatch.recording import Recording
from gradwatch_html.curves import Curve, curve, metric_of
from gradwatch_html.drawing import Drawing, figure, sparkline
from gradwatch_html.metrics import Matrix
from gradwatch_html.words import SEVERITY_SHAPES, counted, kind_title, spelled, whole


@dataclass(frozen=True, slots=True)
class Card:
    """One finding, ready to paint.

    Attributes:
        finding: as the rule gave it.
        shape: its severity as a shape.
        kind: in words.
        more: how many further layers, in words, or "".
        since: when it began and ended, in words.
        metric: key of the metric in which it shows on the heatmap, or None.
        layer: index of the culprit, or None.
        curve: what shows it, or None; drawn as ``spark`` and as ``figure``.
        figure_label: the figure in a sentence.
        symptoms: findings merged under it.
        explained: what its rule says of itself, or None for a kind that no rule of ours finds.
    """

    finding: Finding
    shape: str
    kind: str
    more: str
    since: str
    metric: str | None
    layer: int | None
    curve: Curve | None
    spark: Drawing | None
    figure: Drawing | None
    figure_label: str
    symptoms: tuple[Card, ...]
    explained: explain.Page | None


def cards(
    recording: Recording, analysis: Analysis, built: Mapping[str, Matrix], depth: Mapping[str, int]
) -> list[Card]:
    """Makes a card of every finding, worst first as the analysis gives them."""
    return [_card(recording, finding, built, depth) for finding in analysis.findings]


def counts(analysis: Analysis) -> list[tuple[str, str, int]]:
    """Returns (level, word, count) of each severity and of the checks that passed."""
    rows = []
    for severity in SEVERITIES:
        n = sum(finding.severity == severity for finding in analysis.findings)
        word = severity if severity == "critical" or n == 1 else f"{severity}s"
        rows.append((severity, word, n))
    return [*rows, ("passed", "passed", len(analysis.passed))]


def _card(recording: Recording, finding: Finding, built: Mapping[str, Matrix], depth: Mapping[str, int]) -> Card:
    shown = curve(recording, finding, built, depth)
    key = metric_of(finding, built)
    ends = [int(table.steps[-1]) for table in recording.step_tables.values() if len(table.steps)]
    if key is not None and len(built[key].steps):
        ends.append(int(built[key].steps[-1]))
    return Card(
        finding,
        SEVERITY_SHAPES.get(finding.severity, "●"),
        kind_title(finding.kind),
        _more(finding),
        _since(finding, ends),
        key,
        depth.get(finding.layer) if finding.layer is not None else None,
        shown,
        None if shown is None else sparkline(shown),
        None if shown is None else figure(shown),
        "" if shown is None else _label(finding, shown),
        _symptoms(recording, finding.symptoms, built, depth),
        explain.page(finding.kind) if finding.kind in explain.summaries() else None,
    )


def _symptoms(
    recording: Recording, symptoms: Sequence[Finding], built: Mapping[str, Matrix], depth: Mapping[str, int]
) -> tuple[Card, ...]:
    return tuple(_card(recording, symptom, built, depth) for symptom in symptoms)


def _more(finding: Finding) -> str:
    others = len(set(finding.layers) - {finding.layer})
    if finding.layer is None:
        return counted(others, "layer") if others else "the whole run"
    return f"and {others:,} more" if others else ""


def _since(finding: Finding, ends: Sequence[int]) -> str:
    """Writes when a finding shows; "since" when it lasts to the end of what can show it."""
    first, last = finding.first_step, finding.last_step
    if first is None:
        return "during the whole run"
    if last == first:
        return f"at step {whole(first)}"
    lasts = last is None or any(last >= 0.95 * end for end in ends)
    return f"since step {whole(first)}" if lasts or last is None else spelled(first, last)


def _label(finding: Finding, shown: Curve) -> str:
    whose = f" of {shown.subject}" if shown.subject else ""
    return f"{shown.title}{whose}; the finding spans {_span(shown)}. {finding.title}."


def _span(shown: Curve) -> str:
    first, last = shown.span
    return f"layers {first + 1} to {last + 1}" if shown.by_depth else spelled(first, last)
