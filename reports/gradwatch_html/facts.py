"""What the page says about the run itself: framework, schedule, steps, what was not captured, how numbers are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from gradwatch.record import ABSENT, SIGNALS, STAGES
from gradwatch.recording import Panel, Recording
from gradwatch_html.layers import LayerRow
from gradwatch_html.words import counted, joined, whole

Row = tuple[str, str]

_SIGNAL_WORDS: Final = {
    "gradient": "gradients of parameters",
    "update": "updates of parameters",
    "weight": "weights",
    "activation": "activations",
    "activation_gradient": "activation gradients",
}
_READ: Final = {
    "gradient": "read at the optimizer step",
    "update": "what the optimizer applied: the weights after the step minus those before it",
    "weight": "read after the optimizer step",
    "activation": "outputs and inputs of layers in the forward pass",
    "activation_gradient": "dLoss / d activation, read in the backward pass",
}
_MAX_VALUE: Final = 400


def framework(recording: Recording) -> str:
    """Returns one short line: framework, version, processes."""
    facts = recording.facts
    name = str(facts.get("framework", ""))
    version = str(facts.get("version", facts.get("framework_version", "")))
    world = facts.get("world_size", 1)
    parts = [" ".join(p for p in (name, version) if p)]
    if isinstance(world, int) and world > 1:
        parts.append(f"{world} ranks")
    return " · ".join(part for part in parts if part)


def schedule(recording: Recording) -> str:
    """Returns the cadence in words, or "" when the manifest does not tell it."""
    plan = recording.facts.get("schedule")
    if not isinstance(plan, Mapping):
        return ""
    every = plan.get("every")
    if every is None:
        return "default schedule: gradients at every step, other signals sampled"
    return "every step captured" if every == 1 else f"one step in {every} captured"


def summary(recording: Recording, rows: list[LayerRow]) -> str:
    """Returns the grey line under the verdict."""
    owners, parameters = sum(bool(row.parameters) for row in rows), sum(len(row.parameters) for row in rows)
    others = f" and {whole(len(rows) - owners)} without any" if owners < len(rows) else ""
    size = f"{counted(owners, 'layer')} with {counted(parameters, 'parameter')}{others}"
    spans = [_span(recording, optimizer) for optimizer in sorted(recording.step_tables)]
    several = f" in {len(spans)} optimizers" if len(spans) > 1 else ""
    parts = [size + several, joined(spans) or "no step captured", schedule(recording), _loss(recording)]
    return "; ".join(part for part in parts if part) + "."


def run_facts(recording: Recording) -> list[Row]:
    """Lists the run's facts: what the manifest tells, then the steps."""
    rows = [("run", recording.name)]
    rows += [row for key, value in recording.facts.items() if key != "schedule" for row in _flat(key, value)]
    rows.append(("schedule", schedule(recording) or "unknown"))
    for optimizer, table in sorted(recording.step_tables.items()):
        key = recording.sites.optimizers[optimizer] or "optimizer"
        skipped = int(table.skipped.sum())
        more = f", {whole(skipped)} skipped by the loss scaler" if skipped else ""
        rows.append((f"steps of {key}", f"{_span(recording, optimizer)}{more}"))
        if len(table.time) > 1:
            rows.append((f"time of {key}", f"{float(table.time[-1] - table.time[0]):,.1f} s"))
    if recording.open:
        rows.append(("state", "still being written: load it again for its newest steps"))
    return rows


def signal_facts(recording: Recording) -> list[Row]:
    """Lists each signal: how its numbers were read and at how many steps, or that it was not captured."""
    rows = []
    for signal in SIGNALS:
        panels = [panel for (name, _), panel in sorted(recording.panels.items()) if name == signal and len(panel.steps)]
        if not panels:
            rows.append((_SIGNAL_WORDS[signal], _missing(recording, signal)))
            continue
        steps = sum(len(panel.steps) for panel in panels)
        stages = sorted({stage for panel in panels for stage in _stages(panel)})
        how = f" ({joined(stages)})" if stages else ""
        rows.append((_SIGNAL_WORDS[signal], f"{counted(steps, 'step')}; {_READ[signal]}{how}"))
    return rows


def _missing(recording: Recording, signal: str) -> str:
    plan = recording.facts.get("schedule")
    chosen = plan.get("signals") if isinstance(plan, Mapping) else None
    if isinstance(chosen, list) and signal not in chosen:
        return "not captured: not among the chosen signals"
    return "not captured" if recording.step_tables else "not captured: no step was"


def _stages(panel: Panel) -> set[str]:
    codes = np.unique(panel.stage[panel.n >= 0])
    return {STAGES[int(code)] for code in codes} - {"unknown", ABSENT}


def _span(recording: Recording, optimizer: int) -> str:
    steps = recording.steps(optimizer)
    if not len(steps):
        return "no step captured"
    if len(steps) == 1:
        return f"1 captured step ({whole(int(steps[0]))})"
    return f"{counted(len(steps), 'captured step')} ({whole(int(steps[0]))} to {whole(int(steps[-1]))})"


def _loss(recording: Recording) -> str:
    tables = recording.step_tables.values()
    if not tables or any("loss" in t.logged or any(n == "loss" for _, n, _ in t.nonfinite_logged) for t in tables):
        return ""
    return "no loss logged"


def _flat(key: str, value: Any) -> Iterator[Row]:
    if isinstance(value, Mapping):
        for inner, item in value.items():
            yield from _flat(f"{key} {inner}", item)
    elif isinstance(value, list | tuple):
        yield key.replace("_", " "), ", ".join(str(item) for item in value)[:_MAX_VALUE] or "none"
    else:
        yield key.replace("_", " "), str(value)[:_MAX_VALUE]
