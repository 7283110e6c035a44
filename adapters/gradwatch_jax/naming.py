"""Names that are unique within a run, where a step differentiates several models or one several times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from jax.tree_util import DictKey, SequenceKey

from gradwatch_jax.names import Parameter, Path

Place = tuple[Sequence[Parameter], Sequence[Path] | None]


def distinct(places: Sequence[Place], arguments: Sequence[str]) -> list[list[Parameter]]:
    """Returns the parameters of each place under unique names.

    Two models with the same names get the name of the step's argument in front (``generator.Dense_0.kernel``); the
    second gradient of the same parameters is numbered (``Dense_0.kernel#2``).

    Args:
        places: parameters, and their paths in ``(args, kwargs)`` where those are known.
        arguments: names of the step's positional arguments.
    """
    origins: dict[str, set[Path | None]] = {}
    for parameters, paths in places:
        for i, parameter in enumerate(parameters):
            origins.setdefault(parameter.name, set()).add(None if paths is None else paths[i])
    ambiguous = any(len(found) > 1 for found in origins.values())
    times: Counter[str] = Counter()
    named = []
    for parameters, paths in places:
        label = _label(paths[0], arguments) if ambiguous and paths else ""
        named.append([_rename(parameter, label, times) for parameter in parameters])
    return named


def _rename(parameter: Parameter, label: str, times: Counter[str]) -> Parameter:
    name, layer = (f"{label}.{part}" if label else part for part in (parameter.name, parameter.layer))
    times[name] += 1
    return replace(parameter, name=name if times[name] == 1 else f"{name}#{times[name]}", layer=layer)


def _label(path: Path, arguments: Sequence[str]) -> str:
    """Returns the name of the argument below which a path lies."""
    key = path[1]
    if isinstance(key, SequenceKey):
        return arguments[key.idx] if key.idx < len(arguments) else f"[{key.idx}]"
    return str(key.key) if isinstance(key, DictKey) else str(key)
