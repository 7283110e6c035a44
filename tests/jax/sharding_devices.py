"""Ways in which a step under jit comes to spread its arrays over four devices, for a process of its own.

Prints one JSON object: for each way what was captured, beside the gradient of one device.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from gradwatch_jax import compat
from tests.jax.capturing import capture
from tests.jax.programs import norm, same

MESH = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
TYPED = jax.make_mesh((4,), ("data",))
SPECS = {"first": P(None, "model"), "second": P("model", None)}
PLACES = {name: NamedSharding(MESH, spec) for name, spec in SPECS.items()}
ROWS = NamedSharding(MESH, P("data"))


def parameters() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {n: rng.normal(size=s).astype(np.float32) * 0.3 for n, s in (("first", (8, 64)), ("second", (64, 8)))}


def batches() -> Any:
    return np.random.default_rng(1).normal(size=(2, 16, 8)).astype(np.float32)


def loss_fn(p: Any, x: Any) -> Any:
    return jnp.mean(jnp.square(jnp.tanh(x @ p["first"]) @ p["second"] - 1))


def train_step(p: Any, x: Any) -> Any:
    loss, gradients = jax.value_and_grad(loss_fn)(p, x)
    return jax.tree.map(lambda a, b: a - 0.1 * b, p, gradients), loss


def constrained(p: Any, x: Any) -> Any:
    return train_step(lax.with_sharding_constraint(p, PLACES), lax.with_sharding_constraint(x, ROWS))


def train(step: Any) -> Any:
    p = parameters()
    for x in batches():
        p, _ = step(p, x)
    return p


def train_typed(step: Any) -> Any:
    """Trains over a mesh whose shardings are part of the types, as ``jax.make_mesh`` makes it."""
    with jax.set_mesh(TYPED):
        p = jax.device_put(parameters(), NamedSharding(TYPED, P()))
        for x in batches():
            p, _ = step(p, jax.device_put(x, NamedSharding(TYPED, P("data"))))
    return p


class Net(nnx.Module):
    def __init__(self) -> None:
        self.first = nnx.Param(jnp.asarray(parameters()["first"]))
        self.second = nnx.Param(jnp.asarray(parameters()["second"]))

    def __call__(self, x: Any) -> Any:
        return jnp.tanh(x @ self.first[...]) @ self.second[...]


def nnx_step(model: Net, optimizer: Any, x: Any) -> Any:
    loss, gradients = nnx.value_and_grad(lambda m: jnp.mean(jnp.square(m(x) - 1)))(model)
    optimizer.update(model, gradients)
    return loss


def nnx_jit() -> Any:
    filters: Any = {nnx.PathContains(name): place for name, place in PLACES.items()}
    by_name = nnx.StateSharding(filters)
    return nnx.jit(nnx_step, in_shardings=(by_name, None, ROWS), out_shardings=NamedSharding(MESH, P()))


def train_nnx(step: Any) -> Any:
    model = Net()
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    losses = [step(model, optimizer, jnp.asarray(x)) for x in batches()]
    return {"first": model.first[...], "second": model.second[...], "losses": losses}


def watched(step: Any, train: Callable[[Any], Any], program: str = "jax_jit") -> dict[str, Any]:
    """Trains with and without the watch."""
    bare = train(step)
    made: list[Any] = []
    real: Any = getattr(compat, program)

    def kept(function: Any, **options: Any) -> Any:
        made.append(real(function, **options))
        return made[-1]

    setattr(compat, program, kept)
    try:
        with capture(step, signals=("gradient", "update")) as captured:
            found = train(captured.step)
    finally:
        setattr(compat, program, real)
    return {
        "same": same(bare, found),
        "placed alike": [x.sharding for x in jax.tree.leaves(bare)] == [x.sharding for x in jax.tree.leaves(found)],
        "devices": [len(x.sharding.device_set) for x in jax.tree.leaves(found)],
        "notes": captured.notes,
        "l2": {name: captured.series("gradient", name, "l2")[0] for name in captured.names},
        "updates": [len(captured.series("update", name, "l2")) for name in captured.names],
        "gathered": gathers(step, made[0]) if program == "jax_jit" and train is not train_typed else [0, 0],
    }


def gathers(step: Any, made: Any) -> list[int]:
    """Returns how many elements the program gathers, without and with the watch."""
    arguments = parameters(), batches()[0]
    return [elements(step.lower(*arguments)), elements(made.lower(np.int32(63), *arguments))]


def elements(lowered: Any) -> int:
    shapes = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather", lowered.compile().as_text())
    return sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)


def main() -> None:
    options = jax.jit(train_step, in_shardings=(PLACES, ROWS), out_shardings=(PLACES, None))
    gradients = jax.grad(loss_fn)(parameters(), batches()[0])
    report = {
        "expected": {name: norm(gradient) for name, gradient in gradients.items()},
        "options": watched(options, train),
        "constraint": watched(jax.jit(constrained), train),
        "typed mesh": watched(jax.jit(train_step), train_typed),
        "nnx": watched(nnx_jit(), train_nnx, "nnx_jit"),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
