"""Facts in which runs differ: what their manifests tell, and their sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gradwatch.findings import Analysis
from gradwatch.recording import Recording

Fact = tuple[str, tuple[str, ...]]

LONGEST: Final = 200
"""Characters of a value that are kept."""

NOT_GIVEN: Final = "not given"


def differing_facts(runs: Sequence[tuple[Recording, Analysis]]) -> tuple[Fact, ...]:
    """Returns the name of each fact in which the runs differ, and its value in every run; sizes first."""
    told = [dict(_facts(recording, analysis)) for recording, analysis in runs]
    names = dict.fromkeys(name for facts in told for name in facts)
    rows = ((name, tuple(facts.get(name, NOT_GIVEN) for facts in told)) for name in names)
    return tuple((name, values) for name, values in rows if len(set(values)) > 1)


def _facts(recording: Recording, analysis: Analysis) -> Iterator[tuple[str, str]]:
    yield "run", recording.name
    yield "captured steps", f"{analysis.steps:,}"
    ends = [int(table.steps[-1]) for table in recording.step_tables.values() if len(table.steps)]
    yield "last step", f"{max(ends):,}" if ends else "none"
    sizes = {site.name: site.numel for site in recording.sites if site.parameter is not None}
    layers = {site.layer for site in recording.sites if site.parameter is not None}
    yield "layers with parameters", f"{len(layers):,}"
    yield "parameters", f"{sum(sizes.values()):,} in {len(sizes):,} arrays"
    yield "element types", ", ".join(sorted({site.dtype for site in recording.sites if site.parameter is not None}))
    yield "checks that did not apply", ", ".join(analysis.not_applied) or "none"
    yield "data quality", f"{len(recording.quality)} notes" if recording.quality else "no note"
    for name, value in recording.facts.items():
        yield from _flat(str(name), value)


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for inner, item in value.items():
            yield from _flat(f"{name} {inner}", item)
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        yield name.replace("_", " "), text[:LONGEST] or "none"
