"""A plan of layers as a linen, NNX or Equinox module: parameters, and a function that applies them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import linen, nnx

from tests.zoo.data import source
from tests.zoo.jax_plan import Apply, Model, Params, Part, forward, name_of, plan
from tests.zoo.jax_points import Points
from tests.zoo.recipe import Recipe

Make = Callable[[Recipe, jax.Array], tuple[Params, Model]]


class LinenNetwork(linen.Module):
    """Layers in lists, which linen names ``hidden_3``."""

    recipe: Recipe

    def setup(self) -> None:
        """Makes the layers of the plan."""
        groups: dict[str, list[linen.Module]] = {}
        for part in plan(self.recipe):
            groups.setdefault(part.group, []).append(_linen(part))
            if part.index < 0:
                setattr(self, part.group, groups.pop(part.group)[0])
        for group, layers in groups.items():
            setattr(self, group, layers)

    def __call__(self, x: jax.Array, points: Points) -> jax.Array:
        """Returns the outputs for a batch."""
        return forward(self.recipe, _listed(self, self.recipe, "_"), "_", points, x)


class NnxNetwork(nnx.Module):
    """Layers in lists, named ``hidden.3``."""

    def __init__(self, recipe: Recipe, key: jax.Array) -> None:
        self.recipe, rngs = recipe, nnx.Rngs(key)
        groups: dict[str, list[Any]] = {}
        for part in plan(recipe):
            groups.setdefault(part.group, []).append(_nnx(part, rngs))
            if part.index < 0:
                setattr(self, part.group, groups.pop(part.group)[0])
        for group, layers in groups.items():
            setattr(self, group, nnx.List(layers))

    def __call__(self, x: jax.Array, points: Points) -> jax.Array:
        """Returns the outputs for a batch."""
        return forward(self.recipe, _listed(self, self.recipe, "."), ".", points, x)


class EquinoxNetwork(eqx.Module):
    """Layers in lists, named ``hidden.3``; a layer is for one example and is mapped over a batch."""

    encoder: Any = None
    mean: Any = None
    logvar: Any = None
    decoder: Any = None
    cell: Any = None
    embed: Any = None
    attend: Any = None
    project: Any = None
    norm1: Any = None
    up: Any = None
    down: Any = None
    norm2: Any = None
    hidden: Any = None
    norms: Any = None
    head: Any = None
    recipe: Recipe = eqx.field(static=True, kw_only=True)

    def __call__(self, x: jax.Array, points: Points) -> jax.Array:
        """Returns the outputs for a batch."""
        layers = {name: _mapped(layer) for name, layer in _listed(self, self.recipe, ".").items()}
        return forward(self.recipe, layers, ".", points, x)


def make_linen(recipe: Recipe, key: jax.Array) -> tuple[Params, Model]:
    """Makes a linen network."""
    network: Any = LinenNetwork(recipe)
    sample, still = source(recipe.data).inputs[:2], Points(recipe, jax.numpy.zeros((), int))
    params = network.init(key, sample, still)["params"]
    return params, lambda params, x, points: network.apply({"params": params}, x, points)


def make_nnx(recipe: Recipe, key: jax.Array) -> tuple[Params, Model]:
    """Makes an NNX network, split into its graph and its state."""
    graph, state = nnx.split(NnxNetwork(recipe, key))
    return state, lambda params, x, points: nnx.merge(graph, params)(x, points)


def make_equinox(recipe: Recipe, key: jax.Array) -> tuple[Params, Model]:
    """Makes an Equinox network, parted into arrays and the rest."""
    groups: dict[str, Any] = {}
    for part in plan(recipe):
        key, own = jax.random.split(key)
        layer = _equinox(part, own)
        groups[part.group] = layer if part.index < 0 else [*groups.get(part.group, []), layer]
    params, static = eqx.partition(EquinoxNetwork(**groups, recipe=recipe), eqx.is_array)
    return params, lambda params, x, points: eqx.combine(params, static)(x, points)


LIBRARIES: Final[dict[str, tuple[Make, str]]] = {
    "linen": (make_linen, "_"),
    "nnx": (make_nnx, "."),
    "equinox": (make_equinox, "."),
}
"""How a library makes a network, and what it puts before a place in a list."""


def _listed(module: Any, recipe: Recipe, between: str) -> dict[str, Apply]:
    found = {}
    for part in plan(recipe):
        owner = getattr(module, part.group)
        found[name_of(part, between)] = owner if part.index < 0 else owner[part.index]
    return found


def _linen(part: Part) -> linen.Module:
    if part.kind == "embed":
        return linen.Embed(part.inside, part.outside)
    if part.kind == "conv":
        return linen.Conv(part.outside, (3, 3))
    return linen.Dense(part.outside) if part.kind == "dense" else linen.LayerNorm()


def _nnx(part: Part, rngs: nnx.Rngs) -> Any:
    if part.kind == "embed":
        return nnx.Embed(part.inside, part.outside, rngs=rngs)
    if part.kind == "norm":
        return nnx.LayerNorm(part.outside, rngs=rngs)
    if part.kind == "conv":
        return nnx.Conv(part.inside, part.outside, (3, 3), rngs=rngs)
    return nnx.Linear(part.inside, part.outside, rngs=rngs)


def _equinox(part: Part, key: jax.Array) -> Any:
    if part.kind == "embed":
        return eqx.nn.Embedding(part.inside, part.outside, key=key)
    if part.kind == "norm":
        return eqx.nn.LayerNorm(part.outside)
    if part.kind == "conv":
        return eqx.nn.Conv2d(part.inside, part.outside, 3, padding=1, key=key)
    return eqx.nn.Linear(part.inside, part.outside, key=key)


def _mapped(layer: Any) -> Apply:
    def apply(x: jax.Array) -> jax.Array:
        if isinstance(layer, eqx.nn.Conv2d):  # channels stand first there
            made: jax.Array = jnp.moveaxis(jax.vmap(layer)(jnp.moveaxis(x, -1, 1)), 1, -1)
            return made
        over = layer
        for _ in range(x.ndim if isinstance(layer, eqx.nn.Embedding) else x.ndim - 1):
            over = jax.vmap(over)
        found: jax.Array = over(x)
        return found

    return apply
