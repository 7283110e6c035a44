"""The reporter: a run as text of a given width."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from gradwatch.comparison import Comparison
from gradwatch.errors import GradwatchError
from gradwatch.findings import SEVERITIES, Analysis, printable
from gradwatch.recording import Recording
from gradwatch_text.comparison import comparison_parts
from gradwatch_text.facts import counted, facts
from gradwatch_text.finding import finding_lines
from gradwatch_text.lines import hang, wrap
from gradwatch_text.paint import Paint
from gradwatch_text.strip import MARKS, condensed, layer_states

NARROWEST: Final = 40
_BULLET: Final = "  - "


class TextReporter:
    """Renders a run as text, without any control character but line breaks unless colour is asked for.

    Args:
        color: show severities by ANSI colours as well.
        width: columns of a line, 40 or more; every line is wrapped to it.

    Raises:
        GradwatchError: for a width below 40.
    """

    suffix = ".txt"

    def __init__(self, *, color: bool = False, width: int = 80) -> None:
        if width < NARROWEST:
            raise GradwatchError(f"width={width} is too narrow for a report; give at least {NARROWEST} columns.")
        self.width = width
        self._paint = Paint(color=color)

    def render(self, recording: Recording, analysis: Analysis) -> str:
        """Returns the whole report, ending in a newline."""
        parts = [
            self._head(recording, analysis),
            self._strip(recording, analysis),
            *self._findings(recording, analysis),
            self._passed(analysis),
            self._listed("Checks that did not apply", map(": ".join, analysis.not_applied.items())),
            self._listed("Silenced", (finding.summary for finding in analysis.silenced)),
            self._listed("Data quality", recording.quality),
        ]
        return _joined(parts)

    def render_comparison(self, comparison: Comparison) -> str:
        """Returns two or more runs side by side, ending in a newline."""
        return _joined(comparison_parts(comparison, self.width, self._paint))

    def _head(self, recording: Recording, analysis: Analysis) -> Iterator[str]:
        yield from self._styled(f"gradwatch · {recording.name}", "faint")
        yield ""
        yield from self._styled(analysis.verdict, "strong")
        yield ""
        yield from wrap(_counts(analysis), self.width)
        yield from self._styled(facts(recording), "faint")

    def _strip(self, recording: Recording, analysis: Analysis) -> Iterator[str]:
        """Yields the health strip and its legend, for more than one layer."""
        states = layer_states(recording, analysis.findings)
        if len(states) < 2:
            return
        shown = condensed(states, self.width - len("input  output"))
        runs = (self._paint(MARKS[state] * len(list(run)), state) for state, run in groupby(shown))
        yield f"input {''.join(runs)} output"
        legend = [f"{mark} {state}" for state, mark in MARKS.items() if state in shown]
        each = "one mark a layer" if len(shown) == len(states) else f"{counted(len(states), 'layer')}, the worst shown"
        yield from self._styled(f"{'  '.join(legend)}  ({each})", "faint")

    def _findings(self, recording: Recording, analysis: Analysis) -> Iterator[Iterable[str]]:
        if analysis.findings:
            yield self._styled("FINDINGS, worst first", "strong")
        for finding in analysis.findings:
            yield finding_lines(finding, recording, self.width, self._paint)

    def _passed(self, analysis: Analysis) -> Iterator[str]:
        if analysis.passed:
            yield from hang("Checks passed: ", ", ".join(analysis.passed), self.width)

    def _listed(self, title: str, entries: Iterable[str]) -> Iterator[str]:
        for i, entry in enumerate(entries):
            if i == 0:
                yield f"{title}:"
            yield from hang(_BULLET, printable(entry), self.width)

    def _styled(self, text: str, style: str) -> Iterator[str]:
        return (self._paint(line, style) for line in wrap(printable(text), self.width))


def _joined(parts: Iterable[Iterable[str]]) -> str:
    """Joins the lines of each part, and the parts by an empty line; a part without lines is left out."""
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part))) + "\n"


def _counts(analysis: Analysis) -> str:
    numbers = [(severity, sum(f.severity == severity for f in analysis.findings)) for severity in SEVERITIES]
    found = [f"{n} {_plural(severity, n)}" for severity, n in numbers]
    judged = f"{counted(len(analysis.passed), 'check')} passed, {len(analysis.not_applied)} did not apply"
    return f"{', '.join(found)}; {judged}."


def _plural(severity: str, number: int) -> str:
    return severity if severity == "critical" or number == 1 else f"{severity}s"
