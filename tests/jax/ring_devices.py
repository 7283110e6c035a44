"""Rings on four devices; run by a test in a process of its own, because the number of devices is fixed at start.

Prints one JSON object: for each way of using several devices what the ring held, beside the gradient of one device.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from gradwatch_jax.optax_drain import drain
from gradwatch_jax.optax_transform import optax_ring

STEPS = 2
MESH = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


def network() -> Any:
    rng = np.random.default_rng(0)
    return {f"Dense_{i}": {"kernel": jnp.asarray(rng.normal(size=(16, 16)), jnp.float32)} for i in range(2)}


def loss_fn(params: Any, x: Any) -> Any:
    return jnp.mean((jnp.tanh(x @ params["Dense_0"]["kernel"]) @ params["Dense_1"]["kernel"]) ** 2)


def optimizer(*, ring: bool = True) -> Any:
    parts = [optax.clip_by_global_norm(0.5), optax.sgd(0.1)]
    return optax.chain(optax_ring(4, stage="before clipping"), *parts, optax_ring(4)) if ring else optax.chain(*parts)


def step_of(tx: Any, *, mean: bool) -> Any:
    def step(params: Any, opt_state: Any, x: Any) -> tuple[Any, Any]:
        gradient = jax.grad(loss_fn)(params, x)
        gradient = jax.lax.pmean(gradient, "data") if mean else gradient
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return step


def train(step: Any, params: Any, opt_state: Any, place: Any = lambda x: x) -> tuple[Any, Any]:
    xs = np.random.default_rng(1).normal(size=(STEPS, 8, 16)).astype(np.float32)
    for x in xs:
        params, opt_state = step(params, opt_state, place(x))
    return params, opt_state


def rings(opt_state: Any) -> Any:
    return [
        {"stage": d.stage, "signal": d.signal, "l2": [s.l2.tolist() for s in d.steps], "n": d.steps[0].n.tolist()}
        for d in drain(opt_state)
    ]


def by_hand() -> Any:
    """Returns the norms of the whole batch's gradient on one device, each step."""
    params, norms = network(), []
    gradient_of = jax.jit(jax.grad(loss_fn))
    for x in np.random.default_rng(1).normal(size=(STEPS, 8, 16)).astype(np.float32):
        gradient = jax.tree.map(lambda g: np.asarray(g, np.float64), gradient_of(params, x))
        norms.append([float(np.linalg.norm(g)) for g in jax.tree.leaves(gradient)])
        rate = 0.1 * min(1.0, 0.5 / float(np.linalg.norm(norms[-1])))
        params = jax.tree.map(lambda p, g: np.asarray(p - rate * g, np.float32), params, gradient)  # noqa: B023
    return norms


def apart() -> Any:
    """Returns a ring that saw another gradient on each device."""
    ring = optax_ring(4)
    gradients = {"Dense_0": jnp.arange(64.0).reshape(4, 4, 4)}
    return jax.pmap(lambda g: ring.update(g, ring.init(g))[1])(gradients)


def mapped(tx: Any) -> Any:
    """Trains under pmap."""
    params = network()
    spread = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 4), (params, tx.init(params)))
    params, opt_state = spread
    return train(jax.pmap(step_of(tx, mean=True), "data"), params, opt_state, lambda x: x.reshape(4, 2, 16))


def sharded(tx: Any) -> Any:
    """Trains under shard_map, data parallel."""
    step = step_of(tx, mean=True)
    inside = jax.shard_map(step, mesh=MESH, check_vma=False, in_specs=(P(), P(), P("data")), out_specs=(P(), P()))
    params = network()
    return train(jax.jit(inside), params, tx.init(params))


def named(tx: Any) -> tuple[Any, Any]:
    """Returns a jitted step over kernels that are split over devices, and its arguments."""
    split = NamedSharding(MESH, P("data", None))
    params = jax.tree.map(lambda x: jax.device_put(x, split), network())
    return jax.jit(step_of(tx, mean=False)), (params, tx.init(params))


def gathered(tx: Any) -> int:
    """Counts the elements that all-gathers of the compiled step return."""
    step, arguments = named(tx)
    program = step.lower(*arguments, np.zeros((8, 16), np.float32)).compile().as_text()
    shapes = re.findall(r"= \w+\[([\d,]*)\][^=]* all-gather\(", program)
    return sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)


def same(first: Any, second: Any) -> bool:
    return all(bool(np.array_equal(a, b)) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


def main() -> None:
    tx, plain = optimizer(), optimizer(ring=False)
    step, arguments = named(tx)
    bare, bare_arguments = named(plain)
    split = train(step, *arguments)
    report = {
        "devices": jax.device_count(),
        "expected": by_hand(),
        "pmap": rings(mapped(tx)[1]),
        "pmap before the mean": rings(apart()),
        "shard_map": rings(sharded(tx)[1]),
        "NamedSharding": rings(split[1]),
        "gathered": [gathered(plain), gathered(tx)],
        "bitwise": {
            "pmap": same(mapped(tx)[0], mapped(plain)[0]),
            "shard_map": same(sharded(tx)[0], sharded(plain)[0]),
            "NamedSharding": same(split[0], train(bare, *bare_arguments)[0]),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
