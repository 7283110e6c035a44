"""What leaves the compiled step beside its results, and what is known about it when it is traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from gradwatch.schedule import Plan
from gradwatch_jax.kernel import Array, Rows
from gradwatch_jax.names import Parameter, Path


@dataclass(frozen=True, eq=False, slots=True)
class Gradients:
    """The gradients that one place of the step takes.

    Attributes:
        parameters: what was differentiated, in the order of the rows.
        kept: rows of the ring, or 0 for a single row that needs none.
        steps: training steps that one call makes at this place; more than 1 where it stands in a loop over steps.
        pooled: whether all rows belong to one step: micro-batches, or a nested function that was called repeatedly.
        shards: how many gradients of each parameter a row holds; more than 1 where they differ between shards.
    """

    parameters: tuple[Parameter, ...]
    kept: int = 0
    steps: int = 1
    pooled: bool = False
    shards: int = 1


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """The parameters that enter and leave the step.

    Attributes:
        parameters: in the order of the rows.
        before: path of each in ``(args, kwargs)``.
        after: path of each in ``((args, kwargs), result)`` when the step has ended.
        index: of its slice, where layers are stacked; None for a whole array.
    """

    parameters: tuple[Parameter, ...]
    before: tuple[Path, ...]
    after: tuple[Path, ...]
    index: tuple[int | None, ...]

    def taken(self, arrays: Mapping[Path, Any], paths: Sequence[Path]) -> list[Any]:
        """Returns the parameters at these paths."""
        return [arrays[path] if i is None else arrays[path][i] for path, i in zip(paths, self.index, strict=True)]


@dataclass(frozen=True, slots=True)
class Tap:
    """One reading of a layer.

    Attributes:
        name: of the site: the layer, or ``layer:input``.
        layer: dotted path.
        kind: the layer's class.
        size: elements that were read.
    """

    name: str
    layer: str
    kind: str
    size: int


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """What the arrays of a captured step mean; one for each trace.

    Attributes:
        gradients: one for each place at which the step takes gradients.
        trained: None where what goes in cannot be found in what comes out.
        layers: in order of use.
        activations: what was read of layers, in the order of the rows, for each signal.
        remarks: one sentence for each thing that could not be seen.
    """

    gradients: tuple[Gradients, ...] = ()
    trained: Trained | None = None
    layers: tuple[str, ...] = ()
    activations: dict[str, tuple[Tap, ...]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Training steps that one call makes."""
        return max((place.steps for place in self.gradients), default=1)

    @property
    def kept(self) -> int:
        """How many of them, the last ones, it keeps."""
        return min([self.steps, *(place.kept or 1 for place in self.gradients)])


@dataclass(frozen=True, slots=True)
class Ring:
    """The last rows of one place, the values that were differentiated, and how many there were.

    ``rows`` and ``losses`` have a leading axis of length ``kept``, and row i holds the last write w with w % kept = i.
    A place without a ring has no leading axis and no count.
    """

    rows: Rows
    losses: Array | None = None
    count: Array | None = None

    def lean(self) -> Ring:
        """Leaves out counts and histogram."""
        return Ring(Rows(self.rows.floats, self.rows.integers), self.losses, self.count)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, slots=True)
class Captured:
    """The arrays of a captured step; the layout travels with them as static data.

    ``rate`` is the learning rate where it is known, in its first element.
    """

    layout: Layout
    gradients: tuple[Ring, ...] = ()
    update: Rows | None = None
    weight: Rows | None = None
    activations: dict[str, Rows] = field(default_factory=dict)
    rate: Array | None = None

    def tree_flatten(self) -> tuple[tuple[Any, ...], Layout]:
        """Returns the arrays, and the layout as static data."""
        rings = tuple((ring.rows, ring.losses, ring.count) for ring in self.gradients)
        return (rings, self.update, self.weight, self.activations, self.rate), self.layout

    @classmethod
    def tree_unflatten(cls, layout: Layout, children: tuple[Any, ...]) -> Captured:
        """Returns the node of these arrays."""
        rings, *rest = children
        return cls(layout, tuple(Ring(*ring) for ring in rings), *rest)

    def of(self, plan: Plan) -> Captured:
        """Returns what was captured by a plan, which lets go of the rest."""
        rings = self.gradients if plan.histogram else tuple(ring.lean() for ring in self.gradients)
        return replace(
            self,
            gradients=rings if plan.gradient else (),
            update=self.update if plan.update else None,
            weight=self.weight if plan.weight else None,
            activations={signal: rows for signal, rows in self.activations.items() if signal in plan.signals},
        )

    def arrays(self) -> list[Any]:
        """Returns all arrays."""
        return jax.tree.leaves(self)

    def unpacked(self) -> Captured:
        """Returns itself; the arrays may still be on a device."""
        return self
