"""Collects, while a step is traced, the statistics of every gradient that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from gradwatch.guard import Guard
from gradwatch_jax import compat, compat_mapped, equations, naming, pairing, rates, remarks, ring, stacking
from gradwatch_jax.activations import Activations
from gradwatch_jax.captured import Captured, Gradients, Layout, Ring, Trained
from gradwatch_jax.kernel import Rows
from gradwatch_jax.mapped import Leaf, MappedRegion
from gradwatch_jax.measures import compiled_gradient_rows, compiled_parameter_rows, gradient_rows, parameter_rows
from gradwatch_jax.names import Parameter, Path, leaves, natural, parameter, root_name, with_siblings
from gradwatch_jax.places import Memory, Place, Wishes


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
        self._opening = guard.wrap(self._open)
        self._guard = guard
        self._region: MappedRegion | None = None
        self._places: list[Place] = []
        self._remarks: dict[str, None] = {} if memory is None else memory.remarks

    def listen(self, function: Callable[..., Any], primals: tuple[Any, ...]) -> tuple[Callable[..., Any], compat.Done]:
        """Is told before a function is differentiated; see ``compat.Listener``."""
        layers = self._describing(primals)
        observed = self._activations.observed(function, layers) if layers else function
        return observed, lambda value, gradients: self._taking(primals, value, gradients)

    def enter(
        self, args: Sequence[Any], specs: Sequence[PartitionSpec], axes: dict[str, int], checked: bool
    ) -> MappedRegion | None:
        """Is told when a ``shard_map`` is called; see ``compat_mapped.Opener``."""
        region: MappedRegion | None = self._opening(args, specs, axes, checked)
        return region

    def _open(
        self, args: Sequence[Any], specs: Sequence[PartitionSpec], axes: dict[str, int], checked: bool
    ) -> MappedRegion | None:
        if self._region is not None and self._region.inside:
            return None
        kinds = compat.between(compat.current_trace(), self.trace)
        if kinds is None or {"grad", "jvp", "vmap"} & set(kinds):
            return None

        def found(tree: Any, gradients: Sequence[Leaf], value: Any) -> None:
            for shards in sorted({leaf.shards for leaf in gradients}):
                alike = [leaf for leaf in gradients if leaf.shards == shards]
                place = self._describe(tree, [(leaf.path, leaf.parameter, leaf.gradient) for leaf in alike])
                if place is not None:
                    place.mapped, place.shards = True, shards
                    self._record(place, kinds, jnp.mean(value))
                    self._remarks.update({remarks.APART: None} if shards > 1 else {})

        wrap = self._guard.wrap
        return MappedRegion(args, specs, axes, checked=checked, guard=wrap, begun=self._begin, found=found)

    def _begin(self, region: MappedRegion) -> None:
        self._region = region

    def _layers(self, primals: tuple[Any, ...]) -> dict[int, str]:
        """Returns the layers whose activations can be read, by the ids of their arrays."""
        if self._memory is not None or compat.current_trace() is not self.trace or compat.manual_axes():
            return {}
        tree = primals[0] if len(primals) == 1 else primals
        root = root_name(tree)
        found = [(array, parameter(path, array, root).layer) for path, array in pairing.arrays(tree).items()]
        return {id(array): layer for array, layer in found if self._wishes.watches(layer)}

    def _take(self, primals: tuple[Any, ...], value: Any, gradients: Any) -> None:
        tree, cotangents = (primals[0], gradients[0]) if len(primals) == 1 else (primals, gradients)
        mapped = compat.manual_axes()
        around = self._region.trace if mapped and self._region is not None else self.trace
        kinds = compat.between(compat.current_trace(), around)
        if {"grad", "jvp"} & set(kinds or ()):
            return  # a gradient within what is differentiated again is no gradient of the step
        if mapped and kinds == [] and self._region is not None:
            self._region.take(tree, value, cotangents)
            return
        if mapped:
            self._remarks[remarks.MANUAL] = None
            return
        if kinds is None:
            return
        if "vmap" in kinds:
            self._remarks[remarks.PER_EXAMPLE] = None
            return
        pairs = zip(leaves(tree), jax.tree.leaves(cotangents), strict=True)
        place = self._describe(tree, [(path, array, cotangent) for (path, array), cotangent in pairs])
        if place is not None:
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
        paths = [place.inside and [place.inside[row.leaf] for row in place.rows] for place in places]
        named = [(place.described, at) for place, at in zip(places, paths, strict=True)]
        described = naming.distinct(named, self._wishes.arguments)
        gradients = tuple(self._gradients(*pair) for pair in zip(places, described, strict=True))
        if not places and not self._remarks and "gradient" in self._wishes.signals:
            self._remarks[remarks.NO_GRADIENT] = None
        after = pairing.arrays((arguments, result))
        trained = _trained(places, gradients, before, after)
        update, weight = self._parameters(trained, before, after)
        order = [parameter.layer for found in gradients for parameter in found.parameters]
        taps = self._activations.rows()
        layout = Layout(
            gradients,
            None if update is None and weight is None else trained,
            tuple(dict.fromkeys(order)),
            {signal: found for signal, (found, _) in taps.items()},
            tuple(self._remarks),
        )
        activations = {signal: rows for signal, (_, rows) in taps.items()}
        rate = rates.learning_rate(before, after)
        return Captured(layout, tuple(self._read(place) for place in places), update, weight, activations, rate)

    def _describe(self, tree: Any, pairs: Iterable[tuple[Path, Any, Any]]) -> Place | None:
        root = root_name(tree)
        found = [leaf for leaf in pairs if jnp.issubdtype(leaf[2].dtype, jnp.floating) and leaf[2].size]
        known = with_siblings([parameter(path, array, root) for path, array, _ in found])
        arrays = [array for _, array, _ in found]
        used = equations.order_of_use(arrays)
        rest = sorted(set(range(len(found))) - set(used), key=lambda i: natural(known[i].name))
        whole = all(cotangent.shape == array.shape for _, array, cotangent in found)
        stacks = equations.walked(arrays) if self._grouped and whole else []
        rows = stacking.rows(known, [*used, *rest], stacks)
        rows = [row for row in rows if self._wishes.watches(row.parameter.layer)]
        if not rows or "gradient" not in self._wishes.signals:
            return None
        return Place([leaf[:2] for leaf in found], [leaf[2] for leaf in found], rows)

    def _record(self, place: Place, kinds: list[str], value: Any) -> None:
        loss = value.astype(jnp.float32) if jnp.ndim(value) == 0 else None
        place.nested = bool(kinds)
        if place.nested and self._memory is not None and not self._memory.reachable:
            self._remarks[remarks.UNREACHABLE] = None
            return
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
        grouped = self._grouped and not (place.mapped or compat_mapped.constrained())
        gradients = [row.of(place.gradients) for row in place.rows]
        return compute(gradients, plan, always=self._wishes.always, grouped=grouped)

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
            return Gradients(tuple(parameters), place.kept, pooled=place.nested, shards=place.shards)
        assert place.ring is not None
        length = equations.times_written(place.ring.count) if self._memory is None else None
        if length is None:
            self._remarks[remarks.UNKNOWN_LENGTH] = None
        return Gradients(tuple(parameters), place.kept, length or 1, shards=place.shards)

    def _parameters(
        self, trained: Trained | None, before: dict[Path, Any], after: dict[Path, Any]
    ) -> tuple[Rows | None, Rows | None]:
        signals = self._wishes.signals & {"update", "weight"}
        if trained is None or not signals:
            return None, None
        old, new = trained.taken(before, trained.before), trained.taken(after, trained.after)
        if any(compat.is_deleted(array) for array in old):
            return None, None
        compute = parameter_rows if self._memory is None else compiled_parameter_rows
        grouped = self._grouped and self._region is None and not compat_mapped.constrained()
        return compute(old, new, self._plan, signals=signals, grouped=grouped)

    def _read(self, place: Place) -> Ring:
        assert place.ring is not None
        if not place.nested:
            return place.ring
        return ring.freeze(place.ring) if self._memory is None else ring.take(place.ring)


def _trained(
    places: list[Place], gradients: tuple[Gradients, ...], before: dict[Path, Any], after: dict[Path, Any]
) -> Trained | None:
    """Returns the differentiated parameters that come out of the step."""
    excluded = frozenset(id(gradient) for place in places for gradient in place.gradients)
    pairs: dict[tuple[Path, int | None], tuple[Parameter, Path]] = {}
    for place, found in zip(places, gradients, strict=True):
        if place.inside is not None and not place.carried:
            out = pairing.paths_out(place.inside, before, after, excluded) or []
            for row, description in zip(place.rows if out else (), found.parameters, strict=False):
                pairs.setdefault((place.inside[row.leaf], row.index), (description, out[row.leaf]))
    if not pairs:
        return None
    parameters, outside = zip(*pairs.values(), strict=True)
    inside, index = zip(*pairs, strict=True)
    return Trained(parameters, inside, outside, index)
