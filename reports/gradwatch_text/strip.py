"""The health of all layers as one line of characters, input to output."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from gradwatch.findings import SEVERITIES, Finding
from gradwatch.recording import Recording

MARKS: Final = {"critical": "▲", "warning": "■", "notice": "●", "frozen": "=", "not captured": "?", "healthy": "·"}
"""The state of a layer, worst first, and the character that shows it."""

_STATES: Final = tuple(MARKS)


def layer_states(recording: Recording, findings: Sequence[Finding]) -> list[str]:
    """Returns the state of each layer that owns parameters or was found in trouble, input first."""
    found = _worst(findings)
    measured = {recording.sites[int(i)].layer for panel in recording.panels.values() for i in panel.sites}
    statuses: dict[str, set[str]] = {}
    for site in recording.sites:
        if site.parameter is not None:
            statuses.setdefault(site.layer, set()).add(site.status)
    owners = [layer for layer in recording.sites.layers if layer in statuses or layer in found]
    return [_state(layer, found, statuses.get(layer, set()), measured) for layer in owners or recording.sites.layers]


def condensed(states: Sequence[str], width: int) -> list[str]:
    """Returns at most ``width`` states: of neighbouring layers that share a place the worst."""
    if len(states) <= width:
        return list(states)
    edges = [len(states) * i // width for i in range(width + 1)]
    return [min(states[a:b], key=_STATES.index) for a, b in pairwise(edges)]


def _state(layer: str, found: dict[str, str], statuses: set[str], measured: set[str]) -> str:
    if layer in found:
        return found[layer]
    if statuses == {"frozen"}:
        return "frozen"
    return "healthy" if layer in measured else "not captured"


def _worst(findings: Sequence[Finding]) -> dict[str, str]:
    worst: dict[str, str] = {}
    for finding in findings:
        for layer in finding.layers:
            worst[layer] = min(finding.severity, worst.get(layer, finding.severity), key=SEVERITIES.index)
        for layer, severity in _worst(finding.symptoms).items():
            worst[layer] = min(severity, worst.get(layer, severity), key=SEVERITIES.index)
    return worst
