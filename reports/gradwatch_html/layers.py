"""The layers of a run as the page lists them, each with its parameters, its worst severity and its findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gradwatch.findings import SEVERITIES, Analysis, Finding
from gradwatch.record import PARAMETER_SIGNALS, Site
from gradwatch.recording import Recording

HEALTHY: Final = "healthy"
FROZEN: Final = "frozen"
UNSEEN: Final = "unseen"
LEVELS: Final = (*SEVERITIES, FROZEN, UNSEEN, HEALTHY)
"""The levels of a layer, worst first: a finding's severity, frozen on purpose, not judged, or healthy."""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer, input first.

    Attributes:
        index: position in order of depth.
        name: dotted path.
        kind: class name of the module where an activation told it, else "".
        parameters: one site a parameter.
        level: one of ``LEVELS``.
        findings: positions in ``Analysis.findings``, worst first.
    """

    index: int
    name: str
    kind: str
    parameters: tuple[Site, ...]
    level: str
    findings: tuple[int, ...]


def layer_rows(recording: Recording, analysis: Analysis) -> list[LayerRow]:
    """Lists every layer of the run in order of depth; without a judgement no layer is called healthy."""
    sites_of: dict[str, list[Site]] = {}
    for site in recording.sites:
        sites_of.setdefault(site.layer, []).append(site)
    found = _findings_by_layer(analysis.findings)
    seen = _measured_layers(recording) if analysis.judged else set()
    rows = []
    for index, name in enumerate(recording.sites.layers):
        sites = sites_of.get(name, [])
        parameters = tuple({site.name: site for site in sites if site.signal in PARAMETER_SIGNALS}.values())
        hits = found.get(name, [])
        level = _level(parameters, [severity for severity, _ in hits], seen=name in seen)
        rows.append(
            LayerRow(index, name, _kind(name, sites), parameters, level, tuple(dict.fromkeys(i for _, i in hits)))
        )
    return rows


def family(finding: Finding) -> Iterator[Finding]:
    """Yields a finding and all symptoms under it."""
    yield finding
    for symptom in finding.symptoms:
        yield from family(symptom)


def _findings_by_layer(findings: Sequence[Finding]) -> dict[str, list[tuple[str, int]]]:
    found: dict[str, list[tuple[str, int]]] = {}
    for position, finding in enumerate(findings):
        for member in family(finding):
            for layer in dict.fromkeys((member.layer, *member.layers)):
                if layer is not None:
                    found.setdefault(layer, []).append((member.severity, position))
    return found


def _measured_layers(recording: Recording) -> set[str]:
    return {recording.sites[int(site)].layer for panel in recording.panels.values() for site in panel.sites}


def _kind(name: str, sites: Sequence[Site]) -> str:
    return next((site.role for site in sites if site.signal not in PARAMETER_SIGNALS and site.name == name), "")


def _level(parameters: Sequence[Site], severities: Sequence[str], *, seen: bool) -> str:
    if severities:
        return min(severities, key=SEVERITIES.index)
    if parameters and all(site.status == "frozen" for site in parameters):
        return FROZEN
    return HEALTHY if seen else UNSEEN
