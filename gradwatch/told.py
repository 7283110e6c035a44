"""What was found while a run was written, kept in its events: for runs whose early steps were evicted since.

The rules that ran while it trained saw every step; a later analysis sees only what is still there in full. So of a run
whose last attempt was closed, and is its only one, the outcome told at its close stands. Otherwise the findings told
are joined to those of the later analysis, where the earlier onset of the two holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from types import MappingProxyType
from typing import Any, Final

from gradwatch.findings import KINDS, SEVERITIES, Analysis, Figure, Finding
from gradwatch.recording import Recording

_TEXTS: Final = ("kind", "severity", "title", "cause", "check", "confidence", "confidence_reason", "optimizer")
_LISTS: Final = ("layers", "evidence", "advice")
_STEPS: Final = ("first_step", "last_step")
_DEPTH: Final = 3


def finding_event(finding: Finding) -> dict[str, Any]:
    """Returns a finding as an event."""
    return {"finding": asdict(finding)}


def analysis_event(analysis: Analysis) -> dict[str, Any]:
    """Returns the outcome of all rules as an event."""
    return {
        "analysis": {
            "findings": [asdict(finding) for finding in analysis.findings],
            "silenced": [asdict(finding) for finding in analysis.silenced],
            "passed": list(analysis.passed),
            "not_applied": dict(analysis.not_applied),
            "steps": analysis.steps,
            "layers": analysis.layers,
            "verdict": analysis.verdict,
        }
    }


def whole(recording: Recording) -> Analysis | None:
    """Returns the outcome told at the close of a run's only attempt, or None when there is no such outcome."""
    told = [event["analysis"] for event in recording.told if isinstance(event.get("analysis"), Mapping)]
    if recording.open or recording.facts.get("attempts") != 1 or not told:
        return None
    last = told[-1]
    try:
        return Analysis(
            findings=tuple(_findings(last["findings"])),
            silenced=tuple(_findings(last["silenced"])),
            passed=tuple(kind for kind in last["passed"] if kind in KINDS),
            not_applied=MappingProxyType({str(kind): str(why) for kind, why in last["not_applied"].items()}),
            steps=int(last["steps"]),
            layers=int(last["layers"]),
            verdict=str(last["verdict"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def joined(recording: Recording, found: Iterable[Finding]) -> list[Finding]:
    """Joins what was told of a run, by every attempt, to the findings of the steps that are left."""
    findings = list(found)
    for event in recording.told:
        last = event.get("analysis")
        held = last.get("findings") if isinstance(last, Mapping) else [event.get("finding")]
        for finding in _findings(held):
            _join(findings, finding)
    return findings


def _join(findings: list[Finding], told: Finding) -> None:
    for i, known in enumerate(findings):
        for part in (known, *known.symptoms):
            if (part.kind, part.layer, part.optimizer) == (told.kind, told.layer, told.optimizer):
                findings[i] = _earlier(known, told) if part is known else known
                return
    findings.append(told)


def _earlier(known: Finding, told: Finding) -> Finding:
    if told.first_step is None or known.first_step is None:
        return replace(known, first_step=None)
    return replace(known, first_step=min(known.first_step, told.first_step))


def _findings(values: object) -> Iterable[Finding]:
    for value in values if isinstance(values, list | tuple) else ():
        finding = _finding(value, _DEPTH)
        if finding is not None:
            yield finding


def _finding(value: object, depth: int) -> Finding | None:
    """Returns a finding out of a file, or None when it is none; a value of a wrong type makes it none."""
    if not isinstance(value, Mapping) or depth == 0 or value.get("kind") not in KINDS:
        return None
    if value.get("severity") not in SEVERITIES or not all(isinstance(value.get(name), str) for name in _TEXTS):
        return None
    steps: dict[str, Any] = {name: value.get(name) for name in _STEPS}
    lists = {name: value.get(name) for name in _LISTS}
    layer = value.get("layer")
    if not all(step is None or isinstance(step, int) for step in steps.values()) or not isinstance(layer, str | None):
        return None
    if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists.values()):
        return None
    symptoms = value.get("symptoms")
    parts = [_finding(part, depth - 1) for part in symptoms] if isinstance(symptoms, list) else []
    plain: dict[str, Any] = {name: value[name] for name in _TEXTS}
    plain |= {name: tuple(texts) for name, texts in lists.items() if isinstance(texts, list)}
    return Finding(
        **plain,
        **steps,
        layer=layer,
        figure=_figure(value.get("figure")),
        symptoms=tuple(part for part in parts if part is not None),
    )


def _figure(value: object) -> Figure | None:
    names = [field.name for field in fields(Figure)]
    if isinstance(value, Mapping) and all(isinstance(value.get(name), str) for name in names):
        return Figure(**{name: value[name] for name in names})
    return None
