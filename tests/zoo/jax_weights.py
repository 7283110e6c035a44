"""The weights of a JAX network by layer and name, whatever library made them: initialisation and plants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.zoo.recipe import Recipe

Change = Callable[[str, str, jax.Array], Any]


def place(path: tuple[Any, ...]) -> tuple[str, str]:
    """Returns the layer and the name of a leaf of parameters."""
    parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]
    parts = [part for part in parts if part != "value"]
    return ".".join(parts[:-1]), parts[-1]


def changed(params: Any, change: Change) -> Any:
    """Returns parameters with every leaf changed by its layer and name."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: change(*place(path), leaf), params)


def named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree of parameters, or of gradients, by dotted name."""
    return {".".join(place(path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def initialised(params: Any, recipe: Recipe, chain: tuple[str, ...]) -> Any:
    """Initialises the hidden layers of the chain as the recipe says, and plants factors and summands."""
    random = np.random.default_rng(recipe.seed)
    gains, shifts = dict(recipe.gains), dict(recipe.bias)

    def change(layer: str, name: str, leaf: jax.Array) -> jax.Array:
        position = chain.index(layer) if layer in chain else -1
        hidden = 0 <= position < len(chain) - 1
        value = np.asarray(leaf, np.float32)
        if hidden and leaf.ndim >= 2 and name in ("kernel", "weight"):
            value = _drawn(recipe, name, value, random)
            if recipe.recurrent and layer == "cell":
                value = recipe.recurrent * _orthogonal(random, value.shape)
        if name in ("kernel", "weight", "embedding") and leaf.ndim >= 2:
            value = value * (recipe.trap != "zero-branch" or not layer.startswith(("project", "down")))
            value = value * (recipe.gain if hidden else 1.0) * gains.get(position, 1.0)
            value = value * (0.0 if recipe.trap == "zero-head" and layer == "head" else 1.0)
        elif name == "bias" and position >= 0:
            value = value * (recipe.init == "default") + shifts.get(position, 0.0)
        return jnp.asarray(value, {"bf16": jnp.bfloat16, "fp16": jnp.float16}.get(recipe.precision, jnp.float32))

    return changed(params, change)


def happened(params: Any, recipe: Recipe, chain: tuple[str, ...], step: int) -> Any:
    """Applies the events that change weights before a step."""
    events = [event for event in recipe.events if event.step == step and event.what in ("weight", "bias")]
    for event in events:

        def change(layer: str, name: str, leaf: jax.Array, event: Any = event) -> jax.Array:
            if layer != chain[event.layer] or (name == "bias") != (event.what == "bias"):
                return leaf
            found: jax.Array = leaf * event.size if event.what == "weight" else leaf + event.size
            return found

        params = changed(params, change)
    return params


def _drawn(recipe: Recipe, name: str, value: Any, random: np.random.Generator) -> Any:
    first, last = value.shape[0], value.shape[-1]
    outside = last if name == "kernel" else first
    inside = value.size // outside
    if recipe.init == "he":
        return random.normal(size=value.shape) * (2 / inside) ** 0.5
    if recipe.init == "glorot":
        outside *= value[..., 0, 0].size if name == "kernel" else value[0, 0].size
        return random.normal(size=value.shape) * (2 / (inside + outside)) ** 0.5
    return _orthogonal(random, value.shape) if recipe.init == "orthogonal" else value


def _orthogonal(random: np.random.Generator, shape: tuple[int, ...]) -> Any:
    size = max(shape)
    return np.linalg.qr(random.normal(size=(size, size)))[0][: shape[0], : shape[1]]
