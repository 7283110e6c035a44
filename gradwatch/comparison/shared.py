"""Which findings two runs share: the same kind in layers that overlap, whatever the layers are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gradwatch.comparison.layers import LayerMatch
from gradwatch.findings import SEVERITIES, Analysis, Finding


@dataclass(frozen=True, slots=True)
class FindingGroups:
    """The findings of two runs, each group worst first.

    Attributes:
        only_first: that the other run has not.
        only_other: that the first run has not.
        both: (finding of the first run, finding of the other); one of the two may be a symptom of another finding.
    """

    only_first: tuple[Finding, ...]
    only_other: tuple[Finding, ...]
    both: tuple[tuple[Finding, Finding], ...]

    def gained(self) -> tuple[Finding, ...]:
        """Returns what the other run has and the first has not, or less gravely; worst first."""
        graver = [theirs for mine, theirs in self.both if rank(theirs) < rank(mine)]
        return tuple(sorted((*self.only_other, *graver), key=rank))

    def lost(self) -> tuple[Finding, ...]:
        """Returns what the first run has and the other has not, or less gravely; worst first."""
        graver = [mine for mine, theirs in self.both if rank(mine) < rank(theirs)]
        return tuple(sorted((*self.only_first, *graver), key=rank))


def rank(finding: Finding) -> int:
    """Returns the place of a finding's severity, 0 for the gravest."""
    return SEVERITIES.index(finding.severity)


def group_findings(first: Analysis, other: Analysis, match: LayerMatch) -> FindingGroups:
    """Groups the findings of two runs.

    Two findings are the same when their kinds are and when they have a layer in common, under its name in either run;
    a finding without layers is one of the whole run and overlaps any. Symptoms count as well: what was told under
    another cause is not new when that cause is gone. Of several, the one with the most layers in common is shown.
    """
    theirs_of = dict(match.pairs)
    mine, theirs = list(_flat(first.findings)), list(_flat(other.findings))
    both: list[tuple[Finding, Finding]] = []
    only_other = []
    for finding in other.findings:
        same = max(mine, key=lambda candidate: _overlap(candidate, finding, theirs_of), default=None)
        if same is not None and _overlap(same, finding, theirs_of):
            both.append((same, finding))
        else:
            only_other.append(finding)
    only_first = []
    shown = {id(pair[0]) for pair in both}
    for finding in first.findings:
        same = max(theirs, key=lambda candidate: _overlap(finding, candidate, theirs_of), default=None)
        if same is None or not _overlap(finding, same, theirs_of):
            only_first.append(finding)
        elif id(finding) not in shown:
            both.append((finding, same))
    return FindingGroups(tuple(only_first), tuple(only_other), tuple(both))


def _flat(findings: tuple[Finding, ...]) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        yield from _flat(finding.symptoms)


def _overlap(mine: Finding, theirs: Finding, theirs_of: Mapping[str, str]) -> int:
    """Counts the layers in common, 0 for another kind."""
    if mine.kind != theirs.kind:
        return 0
    if not mine.layers or not theirs.layers:
        return 1
    return len({theirs_of.get(layer) for layer in mine.layers} & set(theirs.layers))
