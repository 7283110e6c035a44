"""Train steps of JAX that several tests use, and a slow second computation of their gradients."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Params = dict[str, dict[str, jax.Array]]
SIZES = (4, 8, 8, 2)


def mlp(sizes: tuple[int, ...] = SIZES, dtype: Any = jnp.float32) -> Params:
    """Returns the parameters of a tanh network."""
    keys = jax.random.split(jax.random.key(0), len(sizes))
    return {
        f"Dense_{i}": {"kernel": jax.random.normal(keys[i], (a, b), dtype) * 0.3, "bias": jnp.zeros(b, dtype)}
        for i, (a, b) in enumerate(itertools.pairwise(sizes))
    }


def data(n: int = 16, width: int = 4, seed: int = 1) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (n, width))


def loss_fn(params: Params, x: jax.Array) -> jax.Array:
    for layer in params.values():
        x = jnp.tanh(x @ layer["kernel"].astype(x.dtype) + layer["bias"].astype(x.dtype))
    return jnp.mean(jnp.square(x - 0.5))


optimizer = optax.adam(1e-2)


def train_step(params: Params, state: Any, x: jax.Array) -> tuple[Params, Any, jax.Array]:
    """One step of Adam."""
    loss, gradients = jax.value_and_grad(loss_fn)(params, x)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, loss


def train(step: Callable[..., Any], steps: int, params: Params | None = None) -> Params:
    """Trains and returns the parameters."""
    params = mlp() if params is None else params
    state = optimizer.init(params)
    for i in range(steps):
        params, state, _ = step(params, state, data(seed=i))
    return params


@functools.cache
def norms(steps: int) -> list[dict[str, float]]:
    """Returns, step by step, the norm of every gradient and update of ``train``, computed after the fact."""
    params, found = mlp(), []
    state = optimizer.init(params)
    for i in range(steps):
        gradients = jax.grad(loss_fn)(params, data(seed=i))
        updates, state = optimizer.update(gradients, state, params)
        new: Any = optax.apply_updates(params, updates)
        row = {}
        for layer, name in itertools.product(params, ("kernel", "bias")):
            row[f"gradient {layer}.{name}"] = norm(gradients[layer][name])
            row[f"update {layer}.{name}"] = norm(np.asarray(new[layer][name]) - np.asarray(params[layer][name]))
            row[f"weight {layer}.{name}"] = norm(new[layer][name])
        found.append(row)
        params = new
    return found


def norm(array: Any) -> float:
    return float(np.sqrt(np.sum(np.square(np.asarray(array, dtype=np.float64)))))


def same(one: Any, other: Any) -> bool:
    """Tells whether two trees are equal to the last bit."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
