"""A comparison as a whole: the runs, each later one beside the first, and what all of them share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from gradwatch import plugins
from gradwatch.comparison.compared import Compared
from gradwatch.comparison.curves import Flow, flow, loss
from gradwatch.comparison.facts import Fact, differing_facts
from gradwatch.comparison.judgement import Judgement, judge
from gradwatch.comparison.layers import LayerMatch, aligned, match_layers
from gradwatch.comparison.ratios import METRICS, Ratio, ratios
from gradwatch.comparison.shared import FindingGroups, group_findings
from gradwatch.errors import GradwatchError
from gradwatch.findings import Analysis
from gradwatch.recording import Recording
from gradwatch.store.files import replace_whole

LABELS: Final = "ABCDEFGH"
"""How runs are called, in their order: as many as can be told apart in a plot."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A later run beside the first one.

    Attributes:
        first, other: the two runs.
        layers: which layer of one is which of the other.
        findings: only in one, only in the other, in both.
        ratios: log10(other / first) of what both captured.
        judgement: whether the other is worse, and why.
    """

    first: Compared
    other: Compared
    layers: LayerMatch
    findings: FindingGroups
    ratios: tuple[Ratio, ...]
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two or more runs side by side; the first is what the others are held against.

    Attributes:
        runs: called A, B, C, ... in the order given.
        pairs: each later run beside the first.
        flow: gradients by depth of all runs at common steps, or None.
        facts: name and value in each run of the facts in which they differ.
    """

    runs: tuple[Compared, ...]
    pairs: tuple[Pair, ...]
    flow: Flow | None
    facts: tuple[Fact, ...]

    def __repr__(self) -> str:
        return f"Comparison({', '.join(run.recording.name for run in self.runs)}: {self.verdict})"

    @property
    def worse(self) -> bool | None:
        """Whether any later run is worse than the first; None when none is known to be and one cannot be told."""
        answers = {pair.judgement.worse for pair in self.pairs}
        return True if True in answers else None if None in answers else False

    @property
    def why(self) -> str:
        """One sentence: why the first run for which ``worse`` holds is worse, is not, or cannot be told."""
        return next(pair.judgement.why for pair in self.pairs if pair.judgement.worse is self.worse)

    @property
    def verdict(self) -> str:
        """One short sentence over all later runs."""
        called = {answer: [p.other.label for p in self.pairs if p.judgement.worse is answer] for answer in _ANSWERS}
        parts = [f"{_listed(names)} {_ANSWERS[answer][len(names) > 1]}" for answer, names in called.items() if names]
        return f"{'; '.join(parts).format(first=self.runs[0].label)}."

    def report(self, path: str | os.PathLike[str], *, reporter: str = "html") -> Path:
        """Writes the comparison as a page (or by another reporter that can) and returns its path.

        Raises:
            GradwatchError: when there is no such reporter, it renders no comparisons, or the file cannot be written.
        """
        target, text = Path(path), reporter_of_comparisons(reporter).render_comparison(self)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_whole(target, text.encode("utf-8", "replace"))
        except OSError as error:
            raise GradwatchError(f"cannot write the comparison to {target}: {error.strerror or error}.") from error
        return target


_ANSWERS: Final[dict[bool | None, tuple[str, str]]] = {
    True: ("is worse than {first}", "are worse than {first}"),
    False: ("is not worse than {first}", "are not worse than {first}"),
    None: ("cannot be compared with {first}", "cannot be compared with {first}"),
}


@runtime_checkable
class ComparisonReporter(Protocol):
    """A reporter that can also render a comparison."""

    def render_comparison(self, comparison: Comparison) -> str:
        """Returns the whole comparison as text."""
        ...


def reporter_of_comparisons(name: str, **options: Any) -> ComparisonReporter:
    """Returns a new reporter by its entry point's name, made with options of its own.

    Raises:
        GradwatchError: when there is none of that name, or it renders no comparisons.
    """
    made = plugins.reporter(name, **options)
    if not isinstance(made, ComparisonReporter):
        raise GradwatchError(f"the reporter {name!r} renders no comparisons; choose html or text.")
    return made


def compare(runs: Sequence[tuple[Recording, Analysis]]) -> Comparison:
    """Compares two runs or more, each with the outcome of the rules; the first is what the others are held against.

    Raises:
        GradwatchError: for fewer than two runs, or more than there are labels.
    """
    if not 2 <= len(runs) <= len(LABELS):
        raise GradwatchError(
            f"{len(runs)} run{'s' if len(runs) != 1 else ''} given; a comparison takes 2 to {len(LABELS)}."
        )
    compared = tuple(
        Compared(label, recording, analysis, loss(recording))
        for label, (recording, analysis) in zip(LABELS, runs, strict=False)
    )
    first, recordings = compared[0], [recording for recording, _ in runs]
    series = [read(first.recording) for _, _, read in METRICS]
    pairs = []
    for other in compared[1:]:
        match = match_layers(first.recording, other.recording)
        groups = group_findings(first.analysis, other.analysis, match)
        found = ratios(series, [read(other.recording) for _, _, read in METRICS], match)
        pairs.append(Pair(first, other, match, groups, found, judge(first, other, groups)))
    rows = aligned([recording.sites.layers for recording in recordings], [pair.layers for pair in pairs])
    return Comparison(compared, tuple(pairs), flow(recordings, rows), differing_facts(runs))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
