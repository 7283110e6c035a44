"""Everything the compare page shows, as plain data, and the page itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradwatch.comparison import Compared, Comparison, Pair
from gradwatch.findings import Finding, cannot_judge
from gradwatch_html import facts
from gradwatch_html.cards import Card, cards, counts
from gradwatch_html.compare_data import RUN_LINES, compare_data
from gradwatch_html.drawing import Cell, strip
from gradwatch_html.layers import layer_rows
from gradwatch_html.metrics import matrices
from gradwatch_html.page import shown_in_strip
from gradwatch_html.paint import fill
from gradwatch_html.words import counted, kind_title, short

SCRIPTS = ("page/base.js", "page/plots.js", "page/steps.js", "page/tables.js", "compare.js")
STYLES = ("style.css", "compare.css")


@dataclass(frozen=True, slots=True)
class RunCard:
    """One run at the top of the page.

    Attributes:
        label, name, verdict, summary, framework: in words.
        colour, dash: of its curves.
        loss: where its loss begins and ends, in words, or "".
        counts: (level, word, count).
        cells: of the health strip.
        notes: data-quality notes.
    """

    label: str
    name: str
    verdict: str
    summary: str
    framework: str
    colour: str
    dash: str
    loss: str
    counts: list[tuple[str, str, int]]
    cells: list[Cell]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Findings of a pair: in the other run only, in the first one only, or in both.

    Attributes:
        title: in words.
        empty: what stands there without a finding.
        entries: (label of the run, card) of each finding; of one in both, a card of either run.
    """

    title: str
    empty: str
    entries: list[list[tuple[str, Card]]]


@dataclass(frozen=True, slots=True)
class PairView:
    """A later run beside the first one.

    Attributes:
        labels: of the two runs.
        worse, claim, reason: the judgement.
        groups: the findings.
        layers: (what, names) of layers that are not simply the same.
        common: how many are, in words.
        unequal: checks that applied in one run only, in words.
    """

    labels: tuple[str, str]
    worse: bool | None
    claim: str
    reason: str
    groups: list[Group]
    layers: list[tuple[str, list[str]]]
    common: str
    unequal: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ComparePage:
    """The page as data.

    Attributes:
        title: of the document.
        verdict: one short sentence over all runs.
        runs: a card each.
        pairs: each later run beside the first.
        facts: name, and value in each run.
        sections: names of the sections that have something to draw.
        missing: why a plot is missing, a sentence each.
        meta: what the script needs, as JSON data.
        islands: name to packed binary data.
    """

    title: str
    verdict: str
    runs: list[RunCard]
    pairs: list[PairView]
    facts: Sequence[tuple[str, tuple[str, ...]]]
    sections: frozenset[str]
    missing: list[str]
    meta: dict[str, Any]
    islands: dict[str, str]


def paint_comparison(comparison: Comparison, *, created: str = "") -> str:
    """Returns the compare page as HTML, the same text for the same data."""
    return fill("compare.html.j2", STYLES, SCRIPTS, build_compare_page(comparison), created)


def build_compare_page(comparison: Comparison) -> ComparePage:
    """Builds the page of a comparison."""
    meta, islands = compare_data(comparison)
    shown = {run.label: dict(_cards(run)) for run in comparison.runs}
    drawn = {
        "ratio": bool(meta["metrics"]),
        "flow": meta["flow"] is not None,
        "loss": any(loss is not None for loss in meta["losses"]),
    }
    return ComparePage(
        " and ".join(run.recording.name for run in comparison.runs),
        comparison.verdict,
        [_run(run, i) for i, run in enumerate(comparison.runs)],
        [_pair(pair, shown) for pair in comparison.pairs],
        comparison.facts,
        frozenset(name for name, wanted in drawn.items() if wanted),
        [sentence for name, sentence in _MISSING.items() if not drawn[name]],
        meta,
        islands,
    )


_MISSING = {
    "ratio": "No layer was captured in two of the runs at a common step, so there is no ratio to show.",
    "flow": "The runs have no common step at which gradients were captured, so their flow cannot be laid over.",
    "loss": "None of the runs logged a loss.",
}


def _run(run: Compared, index: int) -> RunCard:
    rows = layer_rows(run.recording, run.analysis)
    judged = shown_in_strip(rows)
    colour, dash = RUN_LINES[index]
    return RunCard(
        run.label,
        run.recording.name,
        run.analysis.verdict,
        facts.summary(run.recording, rows),
        facts.framework(run.recording),
        colour,
        dash,
        _loss(run),
        counts(run.analysis),
        strip(judged) if len(judged) > 1 else [],
        run.recording.quality,
    )


def _loss(run: Compared) -> str:
    if run.loss is None:
        return ""
    if not len(run.loss.values):
        return "loss never finite"
    broken = f", not finite at step {run.loss.nonfinite[0]:,}" if run.loss.nonfinite else ""
    return f"loss {short(float(run.loss.values[0]))} to {short(float(run.loss.values[-1]))}{broken}"


def _cards(run: Compared) -> Iterator[tuple[int, Card]]:
    """Yields the card of every finding and symptom, by the finding's identity."""
    depth = {name: i for i, name in enumerate(run.recording.sites.layers)}
    built = {matrix.metric.key: matrix for matrix in matrices(run.recording, depth)}
    waiting = cards(run.recording, run.analysis, built, depth)
    while waiting:
        card = waiting.pop()
        waiting.extend(card.symptoms)
        yield id(card.finding), card


def _pair(pair: Pair, shown: Mapping[str, Mapping[int, Card]]) -> PairView:
    mine, theirs, groups, match = pair.first.label, pair.other.label, pair.findings, pair.layers

    def entry(label: str, finding: Finding) -> tuple[str, Card]:
        return label, shown[label][id(finding)]

    missing = [set(run.analysis.not_applied) for run in (pair.first, pair.other)]
    unequal = [(mine, missing[0] - missing[1]), (theirs, missing[1] - missing[0])]
    layers = [
        (f"Renamed, by shape, kind and order: {mine} → {theirs}", [f"{a} → {b}" for a, b in match.renamed]),
        ("Of the same name with other shapes", list(match.resized)),
        (f"Only in {mine}", list(match.only_first)),
        (f"Only in {theirs}", list(match.only_other)),
    ]
    return PairView(
        (mine, theirs),
        pair.judgement.worse,
        pair.judgement.claim,
        pair.judgement.reason,
        [
            Group(
                f"Only in {theirs}", _nothing(pair.other, pair.first), [[entry(theirs, f)] for f in groups.only_other]
            ),
            Group(f"Only in {mine}", _nothing(pair.first, pair.other), [[entry(mine, f)] for f in groups.only_first]),
            Group(
                f"In {mine} and {theirs}",
                "No finding in both.",
                [[entry(mine, a), entry(theirs, b)] for a, b in groups.both],
            ),
        ],
        [(f"{what} ({len(names):,})", names) for what, names in layers if names],
        _matched(len(match.pairs), len(match.renamed), f"{mine} and {theirs}"),
        [(label, ", ".join(map(kind_title, sorted(kinds)))) for label, kinds in unequal if kinds],
    )


def _matched(layers: int, renamed: int, runs: str) -> str:
    """Says how many layers two runs have in common."""
    how = f"{renamed:,} of them by another name" if renamed else "by their names"
    return f"{counted(layers, 'layer')} of {runs} matched, {how}"


def _nothing(run: Compared, than: Compared) -> str:
    """Says that a run has no finding of its own; never that all is well when it could not be judged."""
    unjudged = cannot_judge(run.analysis)
    return f"{run.label} cannot be judged: {unjudged}." if unjudged else f"Nothing that {than.label} has not."
