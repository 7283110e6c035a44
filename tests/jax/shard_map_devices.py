"""Steps under ``shard_map`` and ``pmap`` on four devices, for a process of its own.

Prints one JSON object: for each way of writing the step what was captured, beside what the parameters tell was applied.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from gradwatch_jax import compat
from gradwatch_jax.mapped import MappedRegion
from tests.jax.capturing import capture
from tests.jax.programs import norm, same

RATE, STEPS = 0.1, 2
LINE = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
SQUARE = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
SPLIT = {"first": P(None, "model"), "second": P("model", None), "bias": P()}
Step = Any


def parameters() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sizes = {"first": (8, 64), "second": (64, 8), "bias": (8,)}
    return {name: np.asarray(rng.normal(size=size) * 0.3, np.float32) for name, size in sizes.items()}


def loss_fn(p: Any, x: Any, finish: Callable[[Any], Any] = lambda h: h) -> Any:
    return jnp.mean(jnp.square(finish(jnp.tanh(x @ p["first"]) @ p["second"]) + p["bias"] - 1))


def descended(p: Any, gradients: Any) -> Any:
    return jax.tree.map(lambda a, b: a - RATE * b, p, gradients)


def averaged(p: Any, x: Any) -> Any:
    loss, gradients = jax.value_and_grad(loss_fn)(p, x)
    return descended(p, lax.pmean(gradients, "data")), lax.pmean(loss, "data")


def divided(p: Any, x: Any) -> Any:
    """Divides before it sums, in another precision."""
    loss, gradients = jax.value_and_grad(loss_fn)(p, x)
    gradients = jax.tree.map(lambda g: lax.psum((g / 4).astype(jnp.float32), "data"), gradients)
    return descended(p, gradients), lax.pmean(loss, "data")


def tensor_parallel(p: Any, x: Any) -> Any:
    """Sums half products over the model's axis; JAX sums the gradients itself where it checks what varies."""
    loss, gradients = jax.value_and_grad(lambda p: loss_fn(p, x, lambda h: lax.psum(h, "model")))(p)
    return descended(p, lax.pmean(gradients, "data")), lax.pmean(loss, "data")


def gathered(p: Any, x: Any) -> Any:
    """Keeps a part of each matrix on each device and gathers it where it is used."""

    def loss(p: Any) -> Any:
        whole = {n: lax.all_gather(w, "data", tiled=True) if w.ndim > 1 else w for n, w in p.items()}
        return loss_fn(whole, x)

    value, gradients = jax.value_and_grad(loss)(p)
    gradients["bias"] = lax.pmean(gradients["bias"], "data")
    return descended(p, gradients), lax.pmean(value, "data")


def in_a_loop(p: Any, x: Any) -> Any:
    def micro(total: Any, part: Any) -> Any:
        return jax.tree.map(jnp.add, total, jax.grad(loss_fn)(p, part)), None

    total, _ = lax.scan(micro, jax.tree.map(jnp.zeros_like, p), x.reshape(2, -1, 8))
    return descended(p, lax.pmean(total, "data")), lax.pmean(loss_fn(p, x), "data")


def alone(p: Any, x: Any) -> Any:
    """Trains a network of its own on each device."""
    loss, gradients = jax.value_and_grad(loss_fn)(jax.tree.map(lambda a: a[0], p), x)
    return jax.tree.map(lambda a, b: a - RATE * b[None], p, gradients), loss[None]


def mapped(local: Step, specs: Any = None, mesh: Any = LINE, *, check: bool = False) -> Step:
    specs = P() if specs is None else specs
    outs = (specs, P("data") if local is alone else P())
    return jax.shard_map(local, mesh=mesh, in_specs=(specs, P("data")), out_specs=outs, check_vma=check)


def steps_in_a_loop(p: Any, xs: Any) -> Any:
    """Takes several training steps, each under ``shard_map``, in one call."""
    return lax.scan(mapped(averaged), p, xs)


def inside(p: Any, x: Any) -> Any:
    return mapped(averaged, check=True)(p, x)


def nested(p: Any, x: Any) -> Any:
    return jax.jit(mapped(divided))(p, x)


def outside(p: Any, x: Any) -> Any:
    """Maps the loss only, and differentiates the map."""

    def loss(p: Any, x: Any) -> Any:
        return lax.pmean(loss_fn(p, x), "data")

    whole = jax.shard_map(loss, mesh=LINE, in_specs=(P(), P("data")), out_specs=P())
    value, gradients = jax.value_and_grad(whole)(p, x)
    return descended(p, gradients), value


def batches(*lead: int) -> Any:
    return np.random.default_rng(1).normal(size=(STEPS, *lead, 16, 8)).astype(np.float32)


def train(call: Step, p: Any, xs: Any) -> list[Any]:
    """Returns the parameters before and after each step."""
    seen = [p]
    for x in xs:
        p, _ = call(p, x)
        seen.append(p)
    return seen


def watched(step: Step, p: Any = None, xs: Any = None, **options: Any) -> dict[str, Any]:
    """Trains with and without the watch."""
    options = options or {"signals": frozenset({"gradient"})}
    p, xs = parameters() if p is None else p, batches() if xs is None else xs
    bare = train(step, p, xs)
    with capture(step, **options) as captured:
        found = train(captured.step, p, xs)
    pairs = itertools.pairwise(found)
    applied = [{n: norm(np.asarray(a[n], float) - np.asarray(b[n], float)) / RATE for n in a} for a, b in pairs]
    blocks = [block for record in captured.records for block in record.blocks if block.signal == "gradient"]
    return {
        "same": same(bare, found),
        "notes": captured.notes,
        "applied": applied,
        "l2": {n: captured.series("gradient", n, "l2") for n in captured.names},
        "n": {n: captured.series("gradient", n, "n") for n in captured.names},
        "histogram": [int(b.statistics.histogram.sum()) for b in blocks if b.statistics.histogram is not None],
        "updates": {n: captured.series("update", n, "l2") for n in captured.names if updates(captured, n)},
        "losses": [record.logged.get("loss") for record in captured.records],
        "stages": sorted({block.stage for block in blocks}),
        "shapes": {site.name: site.shape for site in captured.session.sites if site.signal == "gradient"},
    }


def updates(captured: Any, name: str) -> bool:
    return captured.session.sites.find("update", name) is not None and captured.recording.panel("update", 0) is not None


def gathers(step: Any) -> list[int]:
    """Returns the sizes of what the watched step's program gathers, with and without the watch."""
    made: list[Any] = []
    real: Any = compat.jax_jit
    compat.jax_jit = lambda function, **options: made.append(real(function, **options)) or made[-1]  # type: ignore[func-returns-value]
    arguments = parameters(), batches()[0]
    try:
        with capture(step) as captured:
            captured.step(*arguments)
    finally:
        compat.jax_jit = real
    return [elements(step.lower(*arguments)), elements(made[0].lower(np.int32(63), *arguments))]


def elements(lowered: Any) -> int:
    shapes = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather", lowered.compile().as_text())
    return sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)


def broken(step: Step) -> dict[str, Any]:
    """Trains when what shall leave the shard_map cannot."""
    real = MappedRegion._place
    os.environ["GRADWATCH_STRICT"] = "0"

    def wrong(self: Any, *args: Any) -> Any:
        place = real(self, *args)
        place.gradients[0] = (place.gradients[0][0], P("data", None, "data"))
        return place

    MappedRegion._place = wrong  # type: ignore[method-assign, assignment]
    try:
        bare = train(step, parameters(), batches())
        with capture(step) as captured:
            found = train(captured.step, parameters(), batches())
        return {"same": same(bare, found), "failures": captured.session.recorder.guard.failures}
    finally:
        MappedRegion._place = real  # type: ignore[method-assign]


def pmapped() -> dict[str, Any]:
    copies = jax.tree.map(lambda a: np.stack([a] * 4), parameters())
    step = functools.partial(jax.pmap, axis_name="data", donate_argnums=0)(averaged)
    xs = batches(4)
    bare = train(step, copies, xs)
    with capture(step) as captured:
        found = train(captured.step, copies, xs)
    gone = [leaf.is_deleted() for tree in found[1:-1] for leaf in jax.tree.leaves(tree)]
    return {"same": same(bare[-1], found[-1]), "notes": captured.notes, "donated": all(gone), "names": captured.names}


def plain() -> dict[str, Any]:
    """Returns what is captured of steps over one axis."""
    before = mapped(averaged)  # made before anything is watched
    apart = jax.tree.map(lambda a: np.stack([a, a * 2, a * 3, a * 4]), parameters())
    return {
        "before": watched(jax.jit(before), budget=None),
        "inside": watched(jax.jit(inside)),
        "nested jit": watched(jax.jit(nested)),
        "steps in a loop": watched(jax.jit(steps_in_a_loop), xs=batches(2)),
        "differentiated outside": watched(jax.jit(outside)),
        "alone": watched(jax.jit(mapped(alone, P("data"))), apart),
        "loop inside": watched(jax.jit(mapped(in_a_loop))),
        "compiled function in a plain step": watched(nested),
        "broken": broken(jax.jit(before)),
        "pmap": pmapped(),
    }


def spread() -> dict[str, Any]:
    """Returns what is captured of spread parameters, and of a step that is not compiled."""
    rows = {"first": P("data"), "second": P("data"), "bias": P()}
    two = jax.jit(mapped(tensor_parallel, SPLIT, SQUARE, check=True))
    return {
        "tensor parallel, checked": watched(two),
        "tensor parallel": watched(jax.jit(mapped(tensor_parallel, SPLIT, SQUARE))),
        "gathered": watched(jax.jit(mapped(gathered, rows))),
        "not compiled": watched(mapped(averaged, check=True)),
        "gathers": gathers(two),
    }


if __name__ == "__main__":
    print(json.dumps({"plain": plain, "spread": spread}[sys.argv[1]]()))
