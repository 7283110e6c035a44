"""One of two processes that train together over four devices; prints what the parameters tell was applied."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradwatch

RATE, STEPS = 0.1, 4
SIZES = {"first": (4, 8), "second": (8, 4)}


def loss_fn(p: Any, x: Any) -> Any:
    return jnp.mean(jnp.square(jnp.tanh(x @ p["first"]) @ p["second"] - 1))


def train_step(p: Any, x: Any) -> Any:
    loss, gradients = jax.value_and_grad(loss_fn)(p, x)
    return jax.tree.map(lambda a, b: a - RATE * b, p, gradients), loss


def parameters() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=size).astype(np.float32) * 0.3 for name, size in SIZES.items()}


def batches() -> Any:
    return np.random.default_rng(1).normal(size=(STEPS, 8, 4)).astype(np.float32)


def spread(whole: Any, place: NamedSharding) -> Any:
    return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])


def train(step: Any, mesh: Any) -> Any:
    """Trains with the batch and one parameter spread over both processes."""
    rows = NamedSharding(mesh, P("data"))
    places = {"first": NamedSharding(mesh, P()), "second": rows}
    p = {name: spread(array, places[name]) for name, array in parameters().items()}
    for x in batches():
        p, _ = step(p, spread(x, rows))
    return p


def expected() -> list[dict[str, float]]:
    """Returns the gradients' norms, computed by this process alone."""
    p, norms = parameters(), []
    for x in batches():
        gradients = jax.device_get(jax.grad(loss_fn)(p, x))
        norms.append({name: float(np.linalg.norm(np.float64(g))) for name, g in gradients.items()})
        p = {name: p[name] - RATE * gradients[name] for name in p}
    return norms


def shards(p: Any) -> list[str]:
    return [np.asarray(s.data).tobytes().hex() for leaf in jax.tree.leaves(p) for s in leaf.addressable_shards]


def main(out: Path, address: str, rank: int) -> None:
    step = jax.jit(train_step)
    watched: Any = gradwatch.watch(run=out / "run")(step)
    jax.distributed.initialize(address, num_processes=2, process_id=rank, local_device_ids=[0, 1])
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    bare = train(step, mesh)
    found = train(watched, mesh)
    while rank == 1 and not (out / "closed").exists():
        time.sleep(0.05)  # the other process closes alone
    watched.watch.close()
    (out / "closed").touch()
    print(json.dumps({"same": shards(bare) == shards(found), "expected": expected(), "devices": jax.device_count()}))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
