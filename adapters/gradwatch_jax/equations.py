"""What a program's operations tell: in which order arrays are used, and how often a loop runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gradwatch_jax import compat


def order_of_use(arrays: Sequence[Any]) -> list[int]:
    """Returns the positions of the arrays in the order in which the current trace's operations first use them."""
    position = {id(variable): i for i, array in enumerate(arrays) if (variable := compat.variable(array)) is not None}
    used: dict[int, None] = {}
    _collect_uses(compat.equations(), position, used)
    return list(used)


def times_written(ref: Any) -> int | None:
    """Returns how often the current trace writes to a ref made in it; None for a loop of unknown length or a branch."""
    return _times_written(compat.equations(), compat.variable(ref))


def _collect_uses(equations: Sequence[Any], position: dict[int, int], used: dict[int, None]) -> None:
    for equation in equations:
        given = [(i, position[id(var)]) for i, var in enumerate(equation.invars) if id(var) in position]
        if not given:
            continue
        inner = next(_inner(equation), None)
        if inner is not None and len(inner.invars) == len(equation.invars):
            _collect_uses(inner.eqns, {id(inner.invars[i]): at for i, at in given}, used)
        used.update(dict.fromkeys(at for _, at in given))


def _times_written(equations: Sequence[Any], variable: Any) -> int | None:
    times = [_times(equation, variable) for equation in equations if any(v is variable for v in equation.invars)]
    known = [count for count in times if count is not None]
    return sum(known) if len(known) == len(times) else None


def _times(equation: Any, variable: Any) -> int | None:
    """Returns how often one operation writes to a ref that it is given."""
    name, inner = equation.primitive.name, next(_inner(equation), None)
    if inner is None:
        return int(name not in ("get", "freeze"))
    if name in ("while", "cond"):
        return None
    at = next(i for i, v in enumerate(equation.invars) if v is variable)
    within = _times_written(inner.eqns, inner.invars[at + len(inner.invars) - len(equation.invars)])
    return None if within is None else within * int(equation.params.get("length", 1))


def _inner(equation: Any) -> Iterator[Any]:
    """Yields the programs within an operation."""
    for value in equation.params.values():
        jaxpr = getattr(value, "jaxpr", value)
        if hasattr(jaxpr, "eqns"):
            yield jaxpr
