"""Two or more runs side by side, in lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from gradwatch.comparison import Compared, Comparison, Pair
from gradwatch.comparison.ratios import FINITE, Ratio
from gradwatch.findings import Finding, printable
from gradwatch.recording import Recording
from gradwatch_text.facts import counted, facts
from gradwatch_text.finding import since
from gradwatch_text.lines import hang, wrap
from gradwatch_text.paint import Paint
from gradwatch_text.strip import MARKS

MOST_NAMES: Final = 6
MOST_DIFFERENT: Final = 5
SAME: Final = 0.005
"""Decades, 1 %, within which two numbers are called the same."""

_BULLET: Final = "  - "


def comparison_parts(comparison: Comparison, width: int, paint: Paint) -> Iterator[Iterable[str]]:
    """Yields the parts of a comparison, each as lines of at most ``width`` columns."""
    yield _styled("gradwatch · compare", "faint", width, paint)
    for pair in comparison.pairs:
        yield _styled(pair.judgement.why, "strong", width, paint)
    for run in comparison.runs:
        yield _run(run, width, paint)
    for pair in comparison.pairs:
        yield from _findings(pair, width, paint)
        yield _layers(pair, width)
        yield from (_ratio(ratio, pair, width) for ratio in pair.ratios)
        yield _unequal_checks(pair, width)
    yield _facts(comparison, width)


def _run(run: Compared, width: int, paint: Paint) -> Iterator[str]:
    head = f"{run.label}  "
    yield from (paint(line, "strong") for line in hang(head, printable(run.recording.name), width))
    lines = (*wrap(printable(run.analysis.verdict), width - len(head)), *wrap(_summary(run), width - len(head)))
    yield from (" " * len(head) + line for line in lines)


def _summary(run: Compared) -> str:
    if run.loss is None or not len(run.loss.values):
        return facts(run.recording)
    ends = f"{run.loss.values[0]:.3g} to {run.loss.values[-1]:.3g}"
    return f"{facts(run.recording).removesuffix('.')}; loss {ends}."


def _findings(pair: Pair, width: int, paint: Paint) -> Iterator[Iterable[str]]:
    mine, theirs, groups = pair.first, pair.other, pair.findings
    new = [_line(finding, theirs.recording) for finding in groups.only_other]
    yield _group(f"FINDINGS ONLY IN {theirs.label}", new, width, paint)
    gone = [_line(finding, mine.recording) for finding in groups.only_first]
    yield _group(f"FINDINGS ONLY IN {mine.label}", gone, width, paint)
    both = [(*_line(b, theirs.recording)[:2], _in_both(a, b, pair)) for a, b in groups.both]
    yield _group(f"FINDINGS IN {mine.label} AND {theirs.label}", both, width, paint)


def _line(finding: Finding, recording: Recording) -> tuple[str, str, str]:
    return finding.severity, finding.title, f"{finding.severity} · {finding.kind} · {since(finding, recording)}"


def _in_both(mine: Finding, theirs: Finding, pair: Pair) -> str:
    runs = ((pair.first, mine), (pair.other, theirs))
    told = "; ".join(f"in {run.label} {f.severity}, {since(f, run.recording)}" for run, f in runs)
    return f"{theirs.kind} · {told}"


def _group(title: str, rows: Sequence[tuple[str, str, str]], width: int, paint: Paint) -> Iterator[str]:
    if rows:
        yield from _styled(title, "strong", width, paint)
    for severity, text, place in rows:
        mark = MARKS[severity]
        first, *rest = hang(f"{mark} ", printable(text), width)
        yield paint(mark, severity) + first[len(mark) :]
        yield from rest
        yield from (paint(f"  {line}", "faint") for line in wrap(printable(place), width - 2))


def _layers(pair: Pair, width: int) -> Iterator[str]:
    match, (mine, theirs) = pair.layers, (pair.first.label, pair.other.label)
    counts = f"{counted(len(match.pairs), 'layer')} in {mine} and {theirs}, {len(match.renamed)} of them renamed"
    yield from hang("Layers: ", f"{counts}.", width)
    renamed = [f"{a} is {b}" for a, b in match.renamed]
    for title, names in (
        ("renamed", renamed),
        ("other shapes", match.resized),
        (f"only in {mine}", match.only_first),
        (f"only in {theirs}", match.only_other),
    ):
        if names:
            yield from hang(f"{_BULLET}{title}: ", printable(_shown(names)), width)


def _ratio(ratio: Ratio, pair: Pair, width: int) -> Iterator[str]:
    """Yields the median over the common steps of each layer's ratio: of the middle layer, and of the most different."""
    with_value = (ratio.state == FINITE).any(axis=0)
    if not with_value.any():
        return
    median = np.nanmedian(ratio.values[:, with_value], axis=0)
    names = [pair_ for pair_, known in zip(ratio.layers, with_value, strict=True) if known]
    steps = f"{int(ratio.first[0]):,} to {int(ratio.last[-1]):,}"
    label = f"{pair.other.label} / {pair.first.label}"
    yield from wrap(f"{ratio.title[0].upper()}{ratio.title[1:]}, {label}, medians over steps {steps}:", width)
    if np.abs(median).max() < SAME:
        yield from hang(_BULLET, f"the same in {counted(len(names), 'layer')}", width)
        return
    yield from hang(_BULLET, f"{_times(float(np.median(median)))} in the median layer", width)
    order = np.argsort(-np.abs(median), kind="stable")[:MOST_DIFFERENT]
    for i in order.tolist():
        yield from hang(_BULLET, f"{_times(float(median[i]))} in {printable(names[i][1])}", width)


def _times(log: float) -> str:
    """Writes a ratio given by its log10: ``1.3 times``."""
    return "the same" if abs(log) < SAME else f"{10**log:.2g} times"


def _unequal_checks(pair: Pair, width: int) -> Iterator[str]:
    """Yields the checks that could be made in one of the runs only: their findings cannot be compared."""
    missing = [set(run.analysis.not_applied) for run in (pair.first, pair.other)]
    for run, without in ((pair.first, missing[0] - missing[1]), (pair.other, missing[1] - missing[0])):
        if without:
            yield from hang(f"Did not apply in {run.label} alone: ", ", ".join(sorted(without)), width)


def _facts(comparison: Comparison, width: int) -> Iterator[str]:
    if comparison.facts:
        yield "Facts that differ:"
    for name, values in comparison.facts:
        told = "; ".join(f"{run.label} {value}" for run, value in zip(comparison.runs, values, strict=True))
        yield from hang(f"{_BULLET}{printable(name)}: ", printable(told), width)


def _shown(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _styled(text: str, style: str, width: int, paint: Paint) -> Iterator[str]:
    return (paint(line, style) for line in wrap(printable(text), width))
