"""What the report says about the run itself, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gradwatch.recording import Recording


def counted(number: int, noun: str) -> str:
    """Writes a count and its noun: ``1 layer``, ``1,200 layers``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def facts(recording: Recording) -> str:
    """Returns the run's size, its captured steps, framework, schedule, and whether a loss was logged."""
    return "; ".join(part for part in _parts(recording) if part) + "."


def _parts(recording: Recording) -> Iterator[str]:
    parameters = {site.name: site.layer for site in recording.sites if site.parameter is not None}
    layers = len(set(parameters.values()))
    if parameters:
        yield f"{counted(layers, 'layer')} with {counted(len(parameters), 'parameter')}"
    yield _steps(recording)
    yield _framework(recording.facts)
    yield _schedule(recording.facts)
    if recording.step_tables and not _loss_logged(recording):
        yield "no loss logged"
    if recording.open:
        yield "still being written"


def _steps(recording: Recording) -> str:
    spans = []
    for optimizer, table in sorted(recording.step_tables.items()):
        if len(table.steps):
            name = recording.sites.optimizers[optimizer] if len(recording.step_tables) > 1 else ""
            span = f"{int(table.steps[0]):,} to {int(table.steps[-1]):,}"
            spans.append(f"{counted(len(table.steps), 'captured step')} ({span}){f' of {name}' if name else ''}")
    return ", ".join(spans) or "no step captured"


def _framework(facts: Mapping[str, object]) -> str:
    name, version, world = (facts.get(key) for key in ("framework", "framework_version", "world_size"))
    ranks = f"{counted(world, 'rank')}" if isinstance(world, int) and world > 1 else ""
    named = " ".join(str(part) for part in (name, version) if part)
    return ", ".join(part for part in (named, ranks) if part)


def _schedule(facts: Mapping[str, object]) -> str:
    plan = facts.get("schedule")
    if not isinstance(plan, Mapping):
        return ""
    every = plan.get("every")
    return "default schedule" if every is None else f"all signals every {counted(every, 'step')}"


def _loss_logged(recording: Recording) -> bool:
    return any(
        "loss" in table.logged or any(name == "loss" for _, name, _ in table.nonfinite_logged)
        for table in recording.step_tables.values()
    )
