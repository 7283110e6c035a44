"""What a run wants of a step, and the places at which the step takes gradients, while it is traced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gradwatch_jax.captured import Ring
from gradwatch_jax.names import Parameter, Path
from gradwatch_jax.stacking import Row


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a run wants, which does not change from step to step.

    Attributes:
        signals: those of the schedule.
        always: whether the gradient is captured on every step, so that no flag needs to be asked.
        watches: whether a layer is watched.
        arguments: names of the step's positional arguments.
    """

    signals: frozenset[str]
    always: bool
    watches: Callable[[str], bool]
    arguments: tuple[str, ...] = ()


@dataclass(slots=True)
class Place:
    """A place at which the step takes gradients, while it is traced.

    Attributes:
        differentiated: the arrays with their paths in the differentiated tree.
        gradients: theirs, in the same order.
        rows: what is reported of them, in the order of use.
        nested: whether it stands in a loop, a branch or a nested function.
        carried: whether it stands in a loop that carries the parameters: a loop over training steps.
        mapped: whether it stands in a ``shard_map``, so that its gradients may be spread over devices.
        shards: how many gradients of each parameter are pooled; more than 1 where they differ between shards.
        kept, ring: the statistics; see ``captured``.
        inside: paths of the arrays in the step's arguments, once known.
    """

    differentiated: list[tuple[Path, Any]]
    gradients: list[Any]
    rows: list[Row]
    nested: bool = False
    carried: bool = False
    mapped: bool = False
    shards: int = 1
    kept: int = 0
    ring: Ring | None = None
    inside: list[Path] | None = None

    @property
    def described(self) -> list[Parameter]:
        """The parameters of the rows."""
        return [row.parameter for row in self.rows]


@dataclass(slots=True)
class Memory:
    """What functions that are compiled for good write to, in a step that is not compiled as a whole.

    Attributes:
        plan: the plan of the running step, which such functions read anew in every call.
        places: those at which they take gradients, by the names of the parameters.
        remarks: what could not be seen in them.
        reachable: whether they can write to it: a program runs on the devices of its memory, and it lives on one.
    """

    reachable: bool = True
    plan: Any = None
    places: dict[tuple[str, ...], Place] = field(default_factory=dict)
    remarks: dict[str, None] = field(default_factory=dict)
