"""Collects, while a step is traced, the statistics of every gradient that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from gradwatch.guard import Guard
from gradwatch_jax import compat, equations, naming, pairing, remarks, ring
from gradwatch_jax.activations import Activations
from gradwatch_jax.captured import Captured, Gradients, Layout, Ring, Tap, Trained
from gradwatch_jax.kernel import Rows
from gradwatch_jax.measures import compiled_gradient_rows, compiled_parameter_rows, gradient_rows, parameter_rows
from gradwatch_jax.names import Parameter, Path, leaves, natural, parameter, root_name


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
        described: their names.
        order: positions in the order of use.
        nested: whether it stands in a loop, a branch or a nested function.
        carried: whether it stands in a loop that carries the parameters: a loop over training steps.
        kept, ring: the statistics; see ``captured``.
        inside: paths of the arrays in the step's arguments, once known.
    """

    differentiated: list[tuple[Path, Any]]
    gradients: list[Any]
    described: list[Parameter]
    order: list[int]
    nested: bool = False
    carried: bool = False
    kept: int = 0
    ring: Ring | None = None
    inside: list[Path] | None = None


@dataclass(slots=True)
class Memory:
    """What functions that are compiled for good write to, in a step that is not compiled as a whole.

    Attributes:
        plan: the plan of the running step, which such functions read anew in every call.
        places: those at which they take gradients, by the names of the parameters.
    """

    plan: Any = None
    places: dict[tuple[str, ...], Place] = field(default_factory=dict)


class Collector:
    """Listens to the gradients of one trace of the step."""

    def __init__(self, wishes: Wishes, plan: Any, guard: Guard, *, grouped: bool, memory: Memory | None = None) -> None:
        """Begins at the current trace, whose operations become the step's program.

        Args:
            wishes: what the run wants.
            plan: the encoded plan, an array that enters the program.
            guard: keeps our failures out of the step.
            grouped: whether small arrays may be stacked.
            memory: given for a step that is not compiled as a whole.
        """
        self.trace = compat.current_trace()
        self._wishes, self._plan, self._grouped, self._memory = wishes, plan, grouped, memory
        self._activations = Activations(wishes.signals, plan, self.trace, guard.wrap, grouped=grouped)
        self._describing = guard.wrap(self._layers, "activations", {})
        self._taking = guard.wrap(self._take)
        self._places: list[Place] = []
        self._remarks: dict[str, None] = {}

    def listen(self, function: Callable[..., Any], primals: tuple[Any, ...]) -> tuple[Callable[..., Any], compat.Done]:
        """Is told before a function is differentiated; see ``compat.Listener``."""
        layers = self._describing(primals)
        observed = self._activations.observed(function, layers) if layers else function
        return observed, lambda value, gradients: self._taking(primals, value, gradients)

    def _layers(self, primals: tuple[Any, ...]) -> dict[int, str]:
        """Returns the layers whose activations can be read, by the ids of their arrays."""
        if self._memory is not None or compat.current_trace() is not self.trace or compat.manual_axes():
            return {}
        tree = primals[0] if len(primals) == 1 else primals
        root = root_name(tree)
        found = [(array, parameter(path, array, root).layer) for path, array in pairing.arrays(tree).items()]
        return {id(array): layer for array, layer in found if self._wishes.watches(layer)}

    def _take(self, primals: tuple[Any, ...], value: Any, gradients: Any) -> None:
        kinds = compat.between(compat.current_trace(), self.trace)
        if compat.manual_axes():
            self._remarks[remarks.MANUAL] = None
            return
        if kinds is None or {"grad", "jvp"} & set(kinds):
            return  # a gradient within what is differentiated again is no gradient of the step
        if "vmap" in kinds:
            self._remarks[remarks.PER_EXAMPLE] = None
            return
        place = self._describe(primals, gradients)
        if place is not None and "gradient" in self._wishes.signals:
            self._record(place, kinds, value)

    def finish(self, before: dict[Path, Any], arguments: Any, result: Any) -> Captured:
        """Returns what the step captured.

        Args:
            before: the arrays of ``(args, kwargs)`` when the step began.
            arguments: ``(args, kwargs)`` when it ended.
            result: what it returns.
        """
        places = [*self._places, *(self._memory.places.values() if self._memory else ())]
        for place in places:
            place.inside = pairing.paths_in(place.differentiated, before)
        described = naming.distinct([(place.described, place.inside) for place in places], self._wishes.arguments)
        gradients = tuple(self._gradients(*pair) for pair in zip(places, described, strict=True))
        if not places and not self._remarks and "gradient" in self._wishes.signals:
            self._remarks[remarks.NO_GRADIENT] = None
        after = pairing.arrays((arguments, result))
        trained = _trained(places, gradients, before, after)
        update, weight = self._parameters(trained, before, after)
        order = [found.parameters[i].layer for place, found in zip(places, gradients, strict=True) for i in place.order]
        layout = Layout(
            gradients,
            None if update is None and weight is None else trained,
            tuple(dict.fromkeys(order)),
            {signal: tuple(tap for tap, _ in found) for signal, found in self._activations.rows().items()},
            tuple(self._remarks),
        )
        activations = {signal: _joined(found) for signal, found in self._activations.rows().items()}
        return Captured(layout, tuple(self._read(place) for place in places), update, weight, activations)

    def _describe(self, primals: tuple[Any, ...], gradients: Any) -> Place | None:
        tree, cotangents = (primals[0], gradients[0]) if len(primals) == 1 else (primals, gradients)
        root = root_name(tree)
        found = [
            (path, array, cotangent, parameter(path, array, root))
            for (path, array), cotangent in zip(leaves(tree), jax.tree.leaves(cotangents), strict=True)
            if jnp.issubdtype(cotangent.dtype, jnp.floating) and cotangent.size
        ]
        found = [leaf for leaf in found if self._wishes.watches(leaf[3].layer)]
        if not found:
            return None
        used = equations.order_of_use([leaf[1] for leaf in found])
        rest = sorted(set(range(len(found))) - set(used), key=lambda i: natural(found[i][3].name))
        arrays = [(path, array) for path, array, _, _ in found]
        return Place(arrays, [leaf[2] for leaf in found], [leaf[3] for leaf in found], [*used, *rest])

    def _record(self, place: Place, kinds: list[str], value: Any) -> None:
        loss = value.astype(jnp.float32) if jnp.ndim(value) == 0 else None
        place.nested = bool(kinds)
        rows = self._rows(place)
        if not kinds:
            place.ring = Ring(rows, loss)
            self._places.append(place)
            return
        loop = bool(compat.LOOPS & set(kinds))
        place.carried = loop and compat.carried(place.differentiated[0][1], self.trace)
        place.kept = ring.LOOP if loop else ring.NESTED
        place.ring = self._ring(place, rows, loss)
        ring.write(place.ring, rows, loss, place.kept)

    def _ring(self, place: Place, rows: Rows, loss: Any) -> Ring:
        key = tuple(p.name for p in place.described)
        if self._memory is not None and key in self._memory.places:
            known = self._memory.places[key].ring
            assert known is not None
            return known
        with compat.in_trace(self.trace):
            made = ring.new_ring(rows, loss, place.kept)
        if self._memory is None:
            self._places.append(place)
        else:
            self._memory.places[key] = place
        return made

    def _rows(self, place: Place) -> Rows:
        compute = gradient_rows if self._memory is None or place.nested else compiled_gradient_rows
        plan = self._nested_plan() if place.nested else self._plan
        return compute(place.gradients, plan, always=self._wishes.always, grouped=self._grouped)

    def _nested_plan(self) -> Any:
        if self._memory is None:
            return self._plan
        if self._memory.plan is None:
            with compat.in_trace(self.trace):
                self._memory.plan = jax.new_ref(jnp.asarray(self._plan))
        return self._memory.plan[...]

    def _gradients(self, place: Place, parameters: list[Parameter]) -> Gradients:
        """Tells how many steps one call makes at a place: several in a loop that carries the parameters."""
        if not place.carried:
            return Gradients(tuple(parameters), place.kept, pooled=place.nested)
        assert place.ring is not None
        length = equations.times_written(place.ring.count) if self._memory is None else None
        if length is None:
            self._remarks[remarks.UNKNOWN_LENGTH] = None
        return Gradients(tuple(parameters), place.kept, length or 1)

    def _parameters(
        self, trained: Trained | None, before: dict[Path, Any], after: dict[Path, Any]
    ) -> tuple[Rows | None, Rows | None]:
        signals = self._wishes.signals & {"update", "weight"}
        if trained is None or not signals:
            return None, None
        old, new = [before[path] for path in trained.before], [after[path] for path in trained.after]
        if any(compat.is_deleted(array) for array in old):
            return None, None
        compute = parameter_rows if self._memory is None else compiled_parameter_rows
        return compute(old, new, self._plan, signals=signals, grouped=self._grouped)

    def _read(self, place: Place) -> Ring:
        assert place.ring is not None
        if not place.nested:
            return place.ring
        return ring.freeze(place.ring) if self._memory is None else ring.take(place.ring)


def _joined(found: list[tuple[Tap, Rows]]) -> Rows:
    rows: Rows = jax.tree.map(lambda *parts: jnp.concatenate(parts), *(rows for _, rows in found))
    return rows


def _trained(
    places: list[Place], gradients: tuple[Gradients, ...], before: dict[Path, Any], after: dict[Path, Any]
) -> Trained | None:
    """Returns the differentiated parameters that come out of the step."""
    excluded = frozenset(id(gradient) for place in places for gradient in place.gradients)
    pairs: dict[Path, tuple[Parameter, Path]] = {}
    for place, found in zip(places, gradients, strict=True):
        if place.inside is not None and not place.carried:
            outside = pairing.paths_out(place.inside, before, after, excluded) or ()
            for at, out, description in zip(place.inside, outside, found.parameters, strict=False):
                pairs.setdefault(at, (description, out))
    if not pairs:
        return None
    return Trained(tuple(d for d, _ in pairs.values()), tuple(pairs), tuple(out for _, out in pairs.values()))
