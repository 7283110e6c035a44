"""Which arrays of a ``shard_map`` are sums over the mesh of which others."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gradwatch_jax import compat, compat_mapped

_SUMS: Final = frozenset({"psum", "psum_invariant"})
_Step = tuple[Any, int, frozenset[str]]
"""An operation, the position of a result, and the axes that it summed over."""


class Reductions:
    """The sums among the operations of a trace."""

    def __init__(self, operations: Sequence[Any], axes: Mapping[str, int]) -> None:
        """Reads the operations of a trace; ``axes`` are the sizes of the mesh's axes."""
        self._axes = axes
        self._users: dict[int, list[tuple[Any, int]]] = defaultdict(list)
        for operation in operations:
            if operation.primitive.name in _SUMS or operation.primitive.name in ("div", "convert_element_type"):
                for i, tracer in enumerate(operation.in_tracers):
                    self._users[id(compat.variable(tracer))].append((operation, i))

    def of(self, array: Any) -> tuple[Any, frozenset[str]]:
        """Returns the sum, or mean, that is taken of an array over the mesh, and the axes it goes over.

        A sum divided by the number of its summands is followed to the mean, whichever of the two comes first. The array
        itself and no axis where no sum is taken.
        """
        found = self._follow(compat.variable(array), frozenset())
        if found is None:
            return array, frozenset()
        operation, position, axes = found
        return compat_mapped.result(array, operation, position), axes

    def _follow(self, variable: Any, axes: frozenset[str]) -> _Step | None:
        for operation, position, more in self._steps(variable):
            summed = axes | more
            further = self._follow(operation.outvars[position], summed)
            if further is not None:
                return further
            if more or (axes and operation.primitive.name == "div"):
                return operation, position, summed
        return None

    def _steps(self, variable: Any) -> Iterator[_Step]:
        """Yields what is made of a variable, sums first."""
        users = self._users.get(id(variable), ())
        for operation, position in users:
            if operation.primitive.name in _SUMS and operation.params.get("axis_index_groups") is None:
                yield operation, position, frozenset(operation.params["axes"]) & frozenset(self._axes)
        for operation, position in users:
            name = operation.primitive.name
            if name == "convert_element_type" or (name == "div" and position == 0 and self._counts(operation)):
                yield operation, 0, frozenset()

    def _counts(self, division: Any) -> bool:
        """Tells whether a division is one by a number of shards, as in a mean."""
        by = compat_mapped.literal(division.in_tracers[1])
        sizes = [1]
        for size in self._axes.values():
            sizes += [math.prod((size, known)) for known in sizes]
        return by is not None and by > 1 and by in sizes
