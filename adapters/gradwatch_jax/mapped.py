"""Gradients that are taken inside ``shard_map``: they leave it as further results and are measured outside.

Outside, each is an ordinary array over the mesh: spread as its parameter is, one number a layer. A gradient that is
summed over the mesh afterwards (``psum``, ``pmean``) is followed to that sum, which is what the optimizer applies. One
that differs between the shards of one parameter is kept once a shard, and is labelled as a micro-batch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from gradwatch_jax import compat, compat_mapped
from gradwatch_jax.names import Path, leaves
from gradwatch_jax.reductions import Reductions


@dataclass(frozen=True, slots=True)
class Leaf:
    """A gradient outside.

    Attributes:
        path: in the differentiated tree.
        parameter: the array that was differentiated, or one of its shape and dtype.
        gradient: behind a leading axis over the shards where ``shards`` is more than 1.
        shards: how many different gradients of the parameter there are.
    """

    path: Path
    parameter: Any
    gradient: Any
    shards: int


Found = Callable[[Any, Sequence[Leaf], Any], None]
"""Takes the differentiated tree, its gradients and the value that was differentiated, one element a shard."""


class MappedRegion:
    """The inside of one ``shard_map``; see ``compat_mapped.Region``."""

    def __init__(
        self,
        args: Sequence[Any],
        specs: Sequence[PartitionSpec],
        axes: dict[str, int],
        *,
        checked: bool,
        guard: Callable[..., Any],
        begun: Callable[[MappedRegion], None],
        found: Found,
    ) -> None:
        """Begins outside.

        Args:
            args: the arguments outside.
            specs: how each is spread.
            axes: sizes of the axes that are mapped over.
            checked: whether JAX knows what varies over them.
            guard: wraps a function so that its failure stays with us.
            begun: is told when the inside begins.
            found: is told each gradient when it is outside.
        """
        self._args, self._specs, self._axes, self._checked = args, specs, axes, checked
        self._begun, self._found = begun, found
        self._sources: dict[int, tuple[Any, PartitionSpec]] = {}
        self._taken: list[tuple[Any, Any, list[tuple[Path, Any]], list[Any]]] = []
        self._leaving: list[_Place] = []
        self.trace: Any = None
        self.inside = False
        self.leaving = guard(self._leave, default=())
        self.left = guard(self._arrive)
        self.failed = guard(self._raise)

    def entered(self, shards: Sequence[Any]) -> None:
        """See ``compat_mapped.Region``."""
        self.trace, self.inside = compat.current_trace(), True
        self._sources = {id(x): pair for x, pair in zip(shards, zip(self._args, self._specs, strict=True), strict=True)}
        self._shards = shards  # keeps the ids theirs
        self._taken.clear()
        self._begun(self)

    def take(self, tree: Any, value: Any, gradients: Any) -> None:
        """Keeps the gradients of a tree, all of them arrays of this region."""
        # A step may put other arrays into the same dict.
        self._taken.append((tree, value, leaves(tree), jax.tree.leaves(gradients)))

    def _leave(self) -> list[tuple[Any, PartitionSpec]]:
        self.inside = False
        reductions = Reductions(compat_mapped.operations(), self._axes)
        self._leaving = [self._place(*taken, reductions) for taken in self._taken]
        self._taken.clear()
        return [pair for place in self._leaving for pair in (*place.gradients, place.value)]

    def _arrive(self, arrays: Sequence[Any]) -> None:
        left = iter(arrays)
        for place in self._leaving:
            found = [
                Leaf(path, _outside(source, gradient, shards), gradient, shards)
                for (path, source, shards), gradient in zip(place.leaves, left, strict=False)
            ]
            self._found(place.tree, found, next(left))

    def _raise(self, error: Exception) -> None:
        raise error

    def _place(
        self, tree: Any, value: Any, arrays: list[tuple[Path, Any]], gradients: list[Any], reductions: Reductions
    ) -> _Place:
        described, spread = [], []
        for (path, array), gradient in zip(arrays, gradients, strict=True):
            if jnp.issubdtype(gradient.dtype, jnp.floating) and gradient.size:
                source, spec = self._sources.get(id(array), (None, PartitionSpec()))
                applied, apart = self._applied(gradient, _names(spec), reductions)
                shards = math.prod(self._axes[name] for name in apart)
                described.append((path, source, shards))
                spread.append((applied, spec) if shards == 1 else (applied[None], PartitionSpec(apart, *spec)))
        over = tuple(name for name in self._axes if name in self._varying(value))
        return _Place(tree, described, spread, (jnp.reshape(value, 1), PartitionSpec(over)))

    def _applied(self, gradient: Any, own: frozenset[str], reductions: Reductions) -> tuple[Any, tuple[str, ...]]:
        """Returns the gradient as far as it is summed, and the axes over which it still differs for one parameter."""
        if not self._varying(gradient) - own:
            return gradient, ()
        summed, over = reductions.of(gradient)
        if over and not self._checked:
            return summed, ()  # what is not summed over has to be the same: the user's out_specs say so
        apart = self._varying(summed) - own - over
        return summed, tuple(name for name in self._axes if name in apart)

    def _varying(self, array: Any) -> frozenset[str]:
        return compat_mapped.varying(array, frozenset(self._axes), checked=self._checked)


@dataclass(frozen=True, slots=True)
class _Place:
    tree: Any
    leaves: list[tuple[Path, Any, int]]
    gradients: list[tuple[Any, PartitionSpec]]
    value: tuple[Any, PartitionSpec]


def _outside(source: Any, gradient: Any, shards: int) -> Any:
    if source is not None:
        return source
    return jax.ShapeDtypeStruct(gradient.shape[1:] if shards > 1 else gradient.shape, gradient.dtype)


def _names(spec: PartitionSpec) -> frozenset[str]:
    parts = [part if isinstance(part, tuple) else (part,) for part in spec if part is not None]
    return frozenset(name for part in parts for name in part)
