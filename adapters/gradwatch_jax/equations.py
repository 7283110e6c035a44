"""What a program's operations tell: in which order arrays are used, which ones a loop walks along, how often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from gradwatch_jax import compat

_CASTS: Final = frozenset({"convert_element_type", "copy", "copy_p"})
"""Operations behind which an array is still the same one: a tree that is cast as a whole is not used in that order."""


def order_of_use(arrays: Sequence[Any]) -> list[int]:
    """Returns the positions of the arrays in the order in which the current trace's operations first use them."""
    used: dict[int, None] = {}
    _collect_uses(compat.equations(), _positions(arrays), used)
    return list(used)


def walked(arrays: Sequence[Any]) -> list[list[int]]:
    """Returns the positions of the arrays that each scan takes apart along their first axis, scan by scan."""
    found: list[list[int]] = []
    _collect_walks(compat.equations(), _positions(arrays), found)
    return found


def times_written(ref: Any) -> int | None:
    """Returns how often the current trace writes to a ref made in it; None for a loop of unknown length or a branch."""
    return _times_written(compat.equations(), compat.variable(ref))


def _positions(arrays: Sequence[Any]) -> dict[int, int]:
    """Returns the positions of arrays by the ids of their variables."""
    return {id(variable): i for i, array in enumerate(arrays) if (variable := compat.variable(array)) is not None}


def _uses(equations: Sequence[Any], position: dict[int, int]) -> Iterator[tuple[Any, list[tuple[int, int]]]]:
    """Yields the operations that take arrays, with (place among the operands, position of the array)."""
    position = dict(position)
    for equation in equations:
        given = [(i, position[id(var)]) for i, var in enumerate(equation.invars) if id(var) in position]
        if given and equation.primitive.name in _CASTS:
            position[id(equation.outvars[0])] = given[0][1]
        elif given:
            yield equation, given


def _entered(equation: Any, given: list[tuple[int, int]]) -> tuple[Sequence[Any], dict[int, int]] | None:
    """Returns the operations within one that takes arrays, and the positions there; None for an elementary one."""
    inner = next(_inner(equation), None)
    if inner is None or len(inner.invars) != len(equation.invars):
        return None
    return inner.eqns, {id(inner.invars[i]): at for i, at in given}


def _collect_uses(equations: Sequence[Any], position: dict[int, int], used: dict[int, None]) -> None:
    for equation, given in _uses(equations, position):
        within = _entered(equation, given)
        if within is not None:
            _collect_uses(*within, used)
        used.update(dict.fromkeys(at for _, at in given))


def _collect_walks(equations: Sequence[Any], position: dict[int, int], found: list[list[int]]) -> None:
    for equation, given in _uses(equations, position):
        first = len(equation.invars)
        if equation.primitive.name == "scan":
            first = equation.params["num_consts"] + equation.params["num_carry"]
            found.extend([walks] if (walks := [at for i, at in given if i >= first]) else [])
        within = _entered(equation, [(i, at) for i, at in given if i < first])
        if within is not None:
            _collect_walks(*within, found)


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
