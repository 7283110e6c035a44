"""What was found: findings, the outcome of every rule, and the verdict sentence over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

KINDS: Final = (
    "vanishing",
    "exploding",
    "nonfinite",
    "dead-units",
    "disconnected",
    "frozen",
    "underflow",
    "spike",
    "update-too-large",
    "update-too-small",
    "saturated",
    "oscillating",
    "clipping",
    "plumbing",
)
SEVERITIES: Final = ("critical", "warning", "notice")
STRUCTURAL: Final = frozenset({"nonfinite", "disconnected", "frozen"})
"""Kinds that are facts rather than statistics: they can be judged on a run of a few steps."""

ENOUGH_STEPS: Final = 10
"""Captured steps below which a run without a structural finding is not judged."""

MOST_WORDS: Final = 18
"""Words of the verdict."""

_CONFIDENCES: Final = ("high", "medium", "low")


@dataclass(frozen=True, slots=True)
class Figure:
    """What shows a finding: a statistic of a signal for some layers, over steps or over depth."""

    signal: str
    statistic: str
    axis: str = "step"


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of trouble with one root cause.

    Attributes:
        kind: one of ``KINDS``.
        severity: one of ``SEVERITIES``.
        title: the effect and the place in one short line.
        layer: the culprit, or None for the whole run or the loss itself.
        layers: all affected layers, the culprit first; in order of depth after it.
        first_step: the first step at which it shows, or None when it holds for the whole run.
        last_step: the last captured step at which it shows.
        evidence: sentences with the measured numbers beside the rule's thresholds.
        cause: the likely cause, hedged where it is an inference.
        advice: what to do, most promising first.
        check: how to see that the cure worked.
        confidence: "high", "medium" or "low"; at most "medium" when no loss was logged and the rule wanted one.
        confidence_reason: why it is not "high", or "".
        optimizer: key of the optimizer, "" when the run has one.
        figure: what shows the finding, or None.
        symptoms: findings that follow from this one's cause, merged under it.
    """

    kind: str
    severity: str
    title: str
    layer: str | None
    layers: tuple[str, ...]
    first_step: int | None
    last_step: int | None
    evidence: tuple[str, ...]
    cause: str
    advice: tuple[str, ...]
    check: str
    confidence: str = "high"
    confidence_reason: str = ""
    optimizer: str = ""
    figure: Figure | None = None
    symptoms: tuple[Finding, ...] = ()

    @property
    def summary(self) -> str:
        """The title with kind, severity and onset, in one line."""
        since = "" if self.first_step is None else f", since step {self.first_step:,}"
        return f"{self.title} ({self.kind}, {self.severity}{since})"

    def _repr_html_(self) -> str:
        from gradwatch import notebook  # noqa: PLC0415  only a notebook asks

        place = [self.severity, self.kind, *([self.layer] if self.layer else [])]
        place += [] if self.first_step is None else [f"since step {self.first_step:,}"]
        sure = [f"{self.confidence}: {self.confidence_reason}"] if self.confidence_reason else []
        rows = (
            ("Evidence", self.evidence),
            ("Likely cause", (self.cause,) if self.cause else ()),
            ("Do this", self.advice),
            ("How to check", (self.check,) if self.check else ()),
            ("Confidence", sure),
        )
        return notebook.card(self.title, rows, severity=self.severity, place=" · ".join(place))


@dataclass(frozen=True, slots=True)
class Analysis:
    """The outcome of all rules over a run.

    Attributes:
        findings: worst first.
        passed: kinds that were judged and found nothing.
        not_applied: kinds that could not be judged, each with the reason in one sentence.
        steps: captured steps.
        layers: watched layers: those that own parameters to be trained.
        verdict: one sentence over all findings, at most 18 words.
        silenced: findings that nobody wants to be told (``silences.py``), which count for nothing.
    """

    findings: tuple[Finding, ...] = ()
    passed: tuple[str, ...] = ()
    not_applied: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    steps: int = 0
    layers: int = 0
    verdict: str = "Cannot judge: no step was captured."
    silenced: tuple[Finding, ...] = ()

    @property
    def judged(self) -> bool:
        """Whether there was enough to judge: a structural finding, or ``ENOUGH_STEPS`` captured steps."""
        return self.steps >= ENOUGH_STEPS or any(_structural(finding) for finding in self.findings)

    def at_least(self, severity: str) -> tuple[Finding, ...]:
        """Returns the findings of this severity or worse."""
        limit = SEVERITIES.index(severity)
        return tuple(finding for finding in self.findings if SEVERITIES.index(finding.severity) <= limit)


def ranked(findings: Sequence[Finding], size_of: Mapping[str, int], last_step: Mapping[str, int]) -> list[Finding]:
    """Sorts findings, worst first.

    By severity, then share of parameters affected, still active at the end, earliest onset, confidence.

    Args:
        findings: any order.
        size_of: elements of the parameters of each layer.
        last_step: the last captured step of each optimizer's key.
    """

    def key(finding: Finding) -> tuple[int, int, bool, int, int]:
        affected = sum(size_of.get(layer, 0) for layer in finding.layers) or sum(size_of.values())
        ended = finding.last_step is not None and finding.last_step < 0.9 * last_step.get(finding.optimizer, 0)
        onset = -1 if finding.first_step is None else finding.first_step
        return SEVERITIES.index(finding.severity), -affected, ended, onset, _CONFIDENCES.index(finding.confidence)

    return sorted(findings, key=key)


def verdict(analysis: Analysis) -> str:
    """Returns one sentence of at most ``MOST_WORDS`` words over an analysis: the worst finding, or that all is well.

    A title and the step since which it holds; without a finding of warning or above, what was judged and how much.
    It calls nothing healthy while such a finding is silenced.
    """
    serious = analysis.at_least("warning")
    if serious:
        return _sentence(serious[0])
    if analysis.steps == 0:
        return "Cannot judge: no step was captured."
    if not analysis.judged:
        return f"Too little data to judge: {_count(analysis.steps, 'captured step')}."
    if not analysis.passed:
        return f"Cannot judge: none of the checks applies to what was captured in {_count(analysis.steps, 'step')}."
    notices = [_count(len(analysis.findings), "notice")] if analysis.findings else []
    missing = len(analysis.not_applied)
    notices += [f"{_count(missing, 'check')} did not apply"] if missing else []
    notices += [f"{len(analysis.silenced)} silenced"] if analysis.silenced else []
    tail = f"; {', '.join(notices)}" if notices else ""
    layers = "its one layer" if analysis.layers == 1 else f"all {analysis.layers} layers"
    quiet = any(finding.severity in SEVERITIES[: SEVERITIES.index("notice")] for finding in analysis.silenced)
    well = "Nothing else was found" if quiet else "Gradients look healthy"
    return f"{well} in {layers} over {_count(analysis.steps, 'step')}{tail}."


def _sentence(finding: Finding) -> str:
    since = ""
    if finding.first_step is not None:
        since = ", from the first step on" if finding.first_step == 0 else f", since step {finding.first_step:,}"
    sentence = f"{finding.title}{since}."
    if len(sentence.split()) <= MOST_WORDS:
        return sentence
    return " ".join(finding.title.split()[:MOST_WORDS]) + "."


def cannot_judge(analysis: Analysis) -> str:
    """Returns why a run cannot be judged, as a clause, or "" when it can."""
    if analysis.steps == 0:
        return "no step was captured"
    if not analysis.judged:
        return f"it has {_count(analysis.steps, 'captured step')}, and a verdict takes {ENOUGH_STEPS}"
    if not analysis.passed and not analysis.findings:
        return f"none of the checks applies to what was captured in {_count(analysis.steps, 'step')}"
    return ""


def _structural(finding: Finding) -> bool:
    return finding.kind in STRUCTURAL or any(_structural(symptom) for symptom in finding.symptoms)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def printable(text: str) -> str:
    r"""Returns a text that a terminal can only show: what it would obey stands as an escape such as ``\x1b``.

    That is control characters, line breaks, marks that turn the direction of writing, and unpaired surrogates. Names
    of layers come from models and files of others, so everything printed passes through here.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
