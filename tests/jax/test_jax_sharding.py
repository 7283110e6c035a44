"""Several devices: one true number a layer, and no sharded gradient gathered. In a process of four virtual devices."""

from __future__ import annotations

from typing import Any

import pytest

from tests.jax.processes import run

SCRIPT = """
import functools, json, re, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from gradwatch_jax import compat
from tests.jax.capturing import capture
from tests.jax.programs import norm, same

mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
place = lambda spec: NamedSharding(mesh, spec)
specs = {"first": P(None, "model"), "second": P("model", None), "bias": P()}
shapes = {"first": (64, 512), "second": (512, 64), "bias": (64,)}
keys = jax.random.split(jax.random.key(0), 3)
def parameters():
    return {n: jax.device_put(jax.random.normal(k, shapes[n]) * 0.1, place(specs[n])) for n, k in zip(specs, keys)}
def loss_fn(p, x):
    return jnp.mean(jnp.square(jnp.tanh(x @ p["first"]) @ p["second"] + p["bias"] - 1))
def train_step(p, x):
    loss, g = jax.value_and_grad(loss_fn)(p, x)
    return jax.tree.map(lambda a, b: a - 0.1 * b, p, g), loss
def batch(i):
    return jax.device_put(jax.random.normal(jax.random.key(i), (32, 64)), place(P("data")))
shardings = {n: place(s) for n, s in specs.items()}
options = {"in_shardings": (shardings, place(P("data"))), "out_shardings": (shardings, None), "donate_argnums": 0}
step = jax.jit(train_step, **options)
def train(call):
    p = parameters()
    for i in range(20):
        given = p
        p, loss = call(p, batch(i))
    return p, all(x.is_deleted() for x in given.values())
made, real = [], compat.jax_jit
compat.jax_jit = lambda f, **o: made.append(real(f, **o)) or made[-1]
with capture(step) as captured:
    watched, donated = train(captured.step)
bare, _ = train(step)
first = jax.grad(loss_fn)(jax.device_get(parameters()), jax.device_get(batch(0)))
def gathered(program, *args):
    text = program.lower(*args).compile().as_text()
    shapes = re.findall(r"= \\w+\\[([\\d,]*)\\]\\S* all-gather", text)
    return [int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes]
print(json.dumps({
    "same": same(watched, bare), "donated": donated, "notes": captured.notes,
    "shardings": [watched[n].sharding == shardings[n] for n in specs],
    "found": {n: captured.series("gradient", n, "l2")[0] for n in specs},
    "expected": {n: norm(first[n]) for n in specs},
    "updates": len(captured.series("update", "first", "l2")),
    "bins": int(captured.records[0].block("gradient").statistics.histogram.sum()),
    "gathered": gathered(made[0], jnp.int32(63), parameters(), batch(0)),
    "gathered_bare": gathered(step, parameters(), batch(0)),
}))
"""


def test_sharded_parameters_give_one_true_number_a_layer() -> None:
    """With parameters sharded over a mesh: global norms, kept shardings and donation, and nothing large gathered."""
    found = run("-c", SCRIPT)
    assert found["notes"] == []
    assert found["same"]
    assert found["donated"]
    assert all(found["shardings"])
    assert found["found"] == pytest.approx(found["expected"], rel=1e-4)
    assert found["updates"] == 20
    assert found["bins"] == 64 * 512 * 2 + 64
    assert sum(found["gathered"]) <= sum(found["gathered_bare"]) + 1024


@pytest.fixture(scope="module")
def spread() -> Any:
    return run("-m", "tests.jax.sharding_devices")


@pytest.mark.parametrize("how", ["options", "constraint", "typed mesh", "nnx"])
def test_however_arrays_are_spread_each_layer_has_one_number(spread: Any, how: str) -> None:
    """By the jit's options, nnx.jit's, a constraint inside or a typed mesh: true norms, the same bits and places."""
    found = spread[how]
    assert found["notes"] == []
    assert found["same"]
    assert found["placed alike"]
    assert max(found["devices"]) == 4
    assert found["l2"] == pytest.approx(spread["expected"], rel=1e-4)
    assert found["updates"] == [2, 2]
    bare, watched = found["gathered"]
    assert watched <= bare
