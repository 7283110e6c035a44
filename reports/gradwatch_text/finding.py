"""One finding in lines: what and where, evidence, cause, advice, how to check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gradwatch.findings import Finding, printable
from gradwatch.recording import Recording
from gradwatch_text.lines import hang, wrap
from gradwatch_text.paint import Paint
from gradwatch_text.strip import MARKS

INDENT: Final = 2
BODY: Final = 16
"""Columns before a section's name, and before its text."""
MOST_LAYERS: Final = 6


def finding_lines(finding: Finding, recording: Recording, width: int, paint: Paint) -> Iterator[str]:
    """Yields the lines of a finding.

    Args:
        finding: what to write.
        recording: of the run, to tell whether the finding lasts to its end.
        width: columns of a line.
        paint: adds colour.
    """
    mark = MARKS[finding.severity]
    head, *rest = hang(f"{mark} ", printable(finding.title), width)
    yield paint(mark, finding.severity) + paint(head[len(mark) :], "strong")
    yield from (paint(line, "strong") for line in rest)
    for line in wrap(place(finding, recording), width - INDENT):
        yield paint(" " * INDENT + line, "faint")
    yield ""
    for name, texts in _sections(finding, recording):
        for i, (bullet, text) in enumerate(texts):
            label = (" " * INDENT + ("" if i else name)).ljust(BODY) + bullet
            yield from hang(label, printable(text), width)


def place(finding: Finding, recording: Recording) -> str:
    """Returns severity, kind, when, and how sure, in one line."""
    parts = [finding.severity, finding.kind, since(finding, recording)]
    parts += [f"optimizer {printable(finding.optimizer)}"] if finding.optimizer else []
    if finding.confidence != "high":
        reason = f" ({printable(finding.confidence_reason)})" if finding.confidence_reason else ""
        parts.append(f"confidence {finding.confidence}{reason}")
    return " · ".join(parts)


def since(finding: Finding, recording: Recording) -> str:
    """Returns when a finding showed, in words; "since" when it shows as long as what shows it was captured."""
    first, last = finding.first_step, finding.last_step
    if first is None:
        return "during the whole run"
    if last is None or last >= 0.95 * _end(finding, recording):
        return f"since step {first:,}"
    return f"at step {first:,}" if last == first else f"steps {first:,} to {last:,}"


def _end(finding: Finding, recording: Recording) -> int:
    """Returns the last captured step of the signal in which a finding shows, or of the run."""
    signal = finding.figure.signal if finding.figure is not None else None
    captured = [panel.steps for (name, _), panel in recording.panels.items() if name == signal]
    captured = captured or [table.steps for table in recording.step_tables.values()]
    return max((int(steps[-1]) for steps in captured if len(steps)), default=0)


def _sections(finding: Finding, recording: Recording) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yields the name of each section and its paragraphs, each with the bullet before it."""
    numbered = len(finding.advice) > 1
    yield "Layers", [("", _layers(finding.layers))] if finding.layers else []
    yield "Evidence", [("", sentence) for sentence in finding.evidence]
    yield "Likely cause", [("", finding.cause)] if finding.cause else []
    yield "Do this", [(f"{i}. " if numbered else "", text) for i, text in enumerate(finding.advice, 1)]
    yield "How to check", [("", finding.check)] if finding.check else []
    yield (
        "Symptoms",
        [(f"{MARKS[s.severity]} ", f"{s.title} ({s.kind}, {since(s, recording)})") for s in finding.symptoms],
    )


def _layers(layers: tuple[str, ...]) -> str:
    shown = ", ".join(layers[:MOST_LAYERS])
    more = len(layers) - MOST_LAYERS
    return f"{shown} and {more:,} more" if more > 0 else shown
