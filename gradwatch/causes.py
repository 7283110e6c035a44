"""Merges findings that follow from one root cause under it: one fault, one finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gradwatch.findings import SEVERITIES, Finding

FOLLOWS: Final[dict[str, frozenset[str]]] = {
    "disconnected": frozenset({"vanishing", "update-too-small", "frozen", "dead-units", "underflow", "plumbing"}),
    "frozen": frozenset({"update-too-small", "plumbing"}),
    "exploding": frozenset(
        {"nonfinite", "update-too-large", "vanishing", "spike", "dead-units", "saturated", "oscillating", "clipping"}
    ),
    "update-too-large": frozenset(
        {"exploding", "nonfinite", "vanishing", "spike", "dead-units", "saturated", "oscillating", "clipping"}
    ),
    "dead-units": frozenset({"vanishing", "update-too-small"}),
    "saturated": frozenset({"vanishing", "update-too-small"}),
    "vanishing": frozenset({"update-too-small", "frozen", "underflow"}),
    "nonfinite": frozenset({"exploding", "update-too-large", "vanishing", "spike", "dead-units", "update-too-small"}),
}
"""What each kind can bring about, roots first. Order decides when two could explain a third."""

SLACK: Final = 2
"""Steps by which a symptom may show before its root does: their statistics need different numbers of samples."""


def merge(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Puts every finding that another one explains under it, as a symptom of its root.

    A finding explains another of the same optimizer when its kind can bring the other's about (``FOLLOWS``) and it did
    not begin later. An explosion with a culprit layer is a root of too large updates; without one it is their symptom.
    The root takes the worst severity of its symptoms, whose own symptoms become its own.
    """
    parent: dict[int, int] = {}
    ranked = sorted(range(len(findings)), key=lambda i: _precedence(findings[i]))
    for place, symptom in enumerate(ranked):
        for root in ranked[:place]:
            if root not in parent and _explains(findings[root], findings[symptom]):
                parent[symptom] = root
                break
    return tuple(
        _with_symptoms(finding, [findings[i] for i, root in parent.items() if root == at])
        for at, finding in enumerate(findings)
        if at not in parent
    )


def _precedence(finding: Finding) -> int:
    order = list(FOLLOWS)
    if finding.kind == "exploding" and finding.layer is None:
        return 2 * order.index("update-too-large") + 1
    return 2 * order.index(finding.kind) if finding.kind in order else 2 * len(order)


def _explains(root: Finding, symptom: Finding) -> bool:
    if root.optimizer != symptom.optimizer or symptom.kind not in FOLLOWS.get(root.kind, frozenset()):
        return False
    if root.severity == "notice" and symptom.severity != "notice":
        return False
    if root.first_step is None or symptom.first_step is None:
        return True
    return root.first_step <= symptom.first_step + SLACK


def _with_symptoms(root: Finding, symptoms: Sequence[Finding]) -> Finding:
    if not symptoms:
        return root
    flat = [part for symptom in symptoms for part in (replace(symptom, symptoms=()), *symptom.symptoms)]
    severity = min((root.severity, *(part.severity for part in flat)), key=SEVERITIES.index)
    return replace(root, severity=severity, symptoms=(*root.symptoms, *flat))
