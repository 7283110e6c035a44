"""Merges findings that follow from one root cause under it: one fault, one finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from gradwatch.findings import SEVERITIES, Finding

FOLLOWS: Final[dict[str, frozenset[str]]] = {
    "underflow": frozenset({"disconnected", "frozen", "vanishing", "update-too-small", "update-too-large", "plumbing"}),
    "exploding": frozenset(
        {
            "nonfinite",
            "update-too-large",
            "update-too-small",
            "vanishing",
            "spike",
            "dead-units",
            "saturated",
            "oscillating",
            "clipping",
        }
    ),
    "oscillating": frozenset(
        {"update-too-large", "exploding", "nonfinite", "spike", "clipping", "saturated", "dead-units"}
    ),
    "update-too-large": frozenset(
        {
            "exploding",
            "nonfinite",
            "update-too-small",
            "vanishing",
            "spike",
            "dead-units",
            "saturated",
            "oscillating",
            "clipping",
        }
    ),
    "dead-units": frozenset({"disconnected", "exploding", "vanishing", "update-too-small"}),
    "saturated": frozenset({"exploding", "vanishing", "update-too-small", "spike"}),
    "disconnected": frozenset({"vanishing", "update-too-small", "frozen", "plumbing"}),
    "frozen": frozenset({"update-too-small", "plumbing"}),
    "vanishing": frozenset({"update-too-small", "frozen", "dead-units"}),
    "clipping": frozenset({"update-too-small"}),
    "nonfinite": frozenset({"exploding", "update-too-large", "vanishing", "spike", "dead-units", "update-too-small"}),
}
"""What each kind can bring about, roots first. Order decides when two could explain a third."""

DAMAGE: Final = frozenset(
    {
        "exploding",
        "oscillating",
        "update-too-large",
        "dead-units",
        "saturated",
        "vanishing",
        "update-too-small",
        "nonfinite",
        "spike",
    }
)
"""What mistakes of the training loop bring about."""

_LASTING: Final = frozenset({"exploding", "update-too-large"})
"""Kinds that count as passed by the loss alone: damage that lasts shows that they did not pass."""

_LOCAL: Final = frozenset({"disconnected", "frozen", "dead-units", "saturated"})
"""Kinds that explain only what happens in their own layers: half of the symptom's layers at least."""

_ENDS: Final = {"dead-units": 0, "saturated": 4}
"""Kinds at which the growth of a layer's values ends, because nothing flows back and what lies above sees no more of
it; with the steps by which they may show later: gradients that stop are seen at once, bounds at the next sample."""

SLACK: Final = 2
"""Steps by which a symptom may show before its root does: their statistics need different numbers of samples."""


def merge(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Puts every finding that another one explains under it, as a symptom of its root.

    A finding explains another of the same optimizer when its kind can bring the other's about (``FOLLOWS``) and it did
    not begin later. An explosion is a root of too large updates when it came first, else their symptom.
    The root takes the worst severity of its symptoms, whose own symptoms become its own. A mistake of the loop beside
    damage that it can do (``DAMAGE``) is the damage's cause, and a notice of its own.
    """
    parent: dict[int, int] = {}
    ranked = sorted(range(len(findings)), key=lambda i: _precedence(findings[i], findings))
    for place, symptom in enumerate(ranked):
        for root in ranked[:place]:
            if root not in parent and _explains(findings[root], findings[symptom]):
                parent[symptom] = root
                break
    merged = [
        _with_symptoms(finding, [findings[i] for i, root in parent.items() if root == at])
        for at, finding in enumerate(findings)
        if at not in parent
    ]
    return tuple(_with_facts(finding, merged) for finding in merged)


def _precedence(finding: Finding, findings: Sequence[Finding]) -> int:
    order = list(FOLLOWS)
    if finding.kind == "exploding" and _swallowed(finding, findings):
        return 2 * order.index("saturated") + 1
    if finding.kind == "dead-units" and _starved(finding, findings):
        return 2 * order.index("vanishing") + 1
    if finding.kind == "exploding" and not _has_origin(finding, findings):
        return 2 * order.index("update-too-large") + 1
    return 2 * order.index(finding.kind) if finding.kind in order else 2 * len(order)


def _swallowed(explosion: Finding, findings: Sequence[Finding]) -> bool:
    """Tells whether the growth of a layer's values ends at its nonlinearity, whose units it kills or saturates."""
    ends = [finding for finding in findings if finding.kind in _ENDS and finding.layer == explosion.layer]
    return any((end.first_step or 0) <= (explosion.first_step or 0) + _ENDS[end.kind] for end in ends)


def _starved(dead: Finding, findings: Sequence[Finding]) -> bool:
    """Tells whether the signal vanishes elsewhere: what is left of it no longer switches units, their biases do."""
    return any(
        finding.kind == "vanishing" and finding.severity != "notice" and finding.layer not in dead.layers
        for finding in findings
    )


def _has_origin(explosion: Finding, findings: Sequence[Finding]) -> bool:
    """Tells whether it exploded by itself: a layer from the start on, or growth well before updates were too large."""
    lead = 0 if explosion.layer is not None else SLACK + 1
    updates = [finding for finding in findings if finding.kind == "update-too-large"]
    return all((explosion.first_step or 0) + lead <= (finding.first_step or 0) for finding in updates)


def _explains(root: Finding, symptom: Finding) -> bool:
    if root.optimizer != symptom.optimizer or symptom.kind not in FOLLOWS.get(root.kind, frozenset()):
        return False
    if root.severity == "notice" and symptom.severity != "notice" and root.kind not in _LASTING:
        return False
    if root.kind in _ENDS and symptom.kind == "exploding":
        return root.layer == symptom.layer
    if root.kind in _LOCAL and 2 * len(set(root.layers) & set(symptom.layers)) < len(symptom.layers):
        return False
    if root.first_step is None or symptom.first_step is None:
        return True
    # Growth without a culprit shows in the norm before it shows in the updates that cause it.
    growth = root.kind == "update-too-large" and symptom.kind == "exploding" and symptom.layer is None
    return growth or root.first_step <= symptom.first_step + SLACK


def _with_symptoms(root: Finding, symptoms: Sequence[Finding]) -> Finding:
    if not symptoms:
        return root
    flat = [part for symptom in symptoms for part in (replace(symptom, symptoms=()), *symptom.symptoms)]
    severity = min((root.severity, *(part.severity for part in flat)), key=SEVERITIES.index)
    return replace(root, severity=severity, symptoms=(*root.symptoms, *flat))


def _with_facts(finding: Finding, merged: Sequence[Finding]) -> Finding:
    """Gives damage the mistake of the loop beside it as its cause, and makes that mistake a notice."""
    near = [other for other in merged if other.optimizer == finding.optimizer and other is not finding]
    if finding.kind == "plumbing":
        damaged = any(_damages(finding, other) for other in near)
        return replace(finding, severity="notice") if damaged and not finding.symptoms else finding
    causes = [other.cause for other in near if other.kind == "plumbing" and _damages(other, finding)]
    return replace(finding, cause=" ".join([*causes, finding.cause])) if causes else finding


def _damages(mistake: Finding, other: Finding) -> bool:
    if other.kind not in DAMAGE or other.severity == "notice":
        return False
    return (mistake.first_step or 0) <= (other.first_step or 0) + SLACK
