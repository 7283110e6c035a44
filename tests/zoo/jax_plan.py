"""The layers of a JAX network and its forward pass, written once for all libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jax
import jax.numpy as jnp

from tests.zoo.data import VOCABULARY, source
from tests.zoo.jax_points import Points
from tests.zoo.recipe import Recipe

Apply = Callable[[jax.Array], jax.Array]
LENGTHS: Final = {"digits": 8, "memory": 24}


@dataclass(frozen=True, slots=True)
class Part:
    """A layer: ``dense``, ``norm`` or ``embed``; ``index`` is its place in a list of layers, or -1 for none."""

    group: str
    index: int
    kind: str
    inside: int
    outside: int


def plan(recipe: Recipe) -> tuple[Part, ...]:
    """Returns the layers of a recipe."""
    data = source(recipe.data)
    inside, outside = data.inputs.shape[1], data.classes or data.targets.shape[1]
    width = recipe.width
    if recipe.family == "rnn":
        parts = [Part("encoder", -1, "dense", inside // LENGTHS[recipe.data], width)]
        return (*parts, Part("cell", -1, "dense", width, width), Part("head", -1, "dense", width, outside))
    if recipe.family == "transformer":
        first = ("embed", VOCABULARY) if recipe.data == "tokens" else ("dense", 8)
        parts = [Part("embed", -1, first[0], first[1], width)]
        for i in range(recipe.depth):
            sizes = {"attend": (width, 3 * width), "project": (width, width)}
            sizes |= {"up": (width, 2 * width), "down": (2 * width, width)}
            parts += [Part(name, i, "dense", a, b) for name, (a, b) in sizes.items()]
            parts += [Part(name, i, "norm", width, width) for name in ("norm1", "norm2")]
        return (*parts, Part("head", -1, "dense", width, outside))
    parts = []
    for i in range(recipe.depth - 1):
        parts.append(Part("hidden", i, "dense", inside if i == 0 else width, width))
        parts += [Part("norms", i, "norm", width, width)] if recipe.norm else []
    return (*parts, Part("head", -1, "dense", inside if recipe.depth == 1 else width, outside))


def name_of(part: Part, between: str) -> str:
    """Returns the dotted name of a layer; ``between`` stands before the place in a list."""
    return part.group if part.index < 0 else f"{part.group}{between}{part.index}"


def chain_of(recipe: Recipe, between: str) -> tuple[str, ...]:
    """Returns the names of the layers that the signal passes, in forward order."""
    return tuple(name_of(part, between) for part in plan(recipe) if part.kind != "norm")


def forward(recipe: Recipe, layers: Mapping[str, Apply], between: str, points: Points, inputs: jax.Array) -> jax.Array:
    """Returns the outputs for a batch."""
    walk = _Walk(recipe, layers, between, points)
    passes = {"rnn": walk.recurrent, "transformer": walk.transformer}
    return passes.get(recipe.family, walk.hidden)(inputs)


class _Walk:
    """One forward pass."""

    def __init__(self, recipe: Recipe, layers: Mapping[str, Apply], between: str, points: Points) -> None:
        self.recipe, self.layers, self.points, self.between = recipe, layers, points, between
        self.places = {name: i for i, name in enumerate(chain_of(recipe, between))}

    def hidden(self, x: jax.Array) -> jax.Array:
        for i in range(self.recipe.depth - 1):
            if i in self.recipe.skipped:
                continue
            name = f"hidden{self.between}{i}"
            h = self.points.output(name, self.layers[name](x))
            h = self.layers[f"norms{self.between}{i}"](h) if self.recipe.norm else h
            h = self.points.act(name, i, h)
            residual = self.recipe.trap == "residual" and h.shape == x.shape
            x = x + h / (self.recipe.depth - 1) ** 0.5 if residual else h
        return self._passed("head", x)

    def recurrent(self, x: jax.Array) -> jax.Array:
        length = LENGTHS[self.recipe.data]
        steps = x.reshape(len(x), length, -1)
        encoded = self.points.units("encoder", 0, self._passed("encoder", steps))
        state = jnp.zeros_like(encoded[:, 0])
        for t in range(length):
            state = self.points.output(f"cell@{t}", _bounded(self.recipe, encoded[:, t] + self.layers["cell"](state)))
        return self._passed("head", self.points.units("cell", 1, state))

    def transformer(self, x: jax.Array) -> jax.Array:
        tokens = self.recipe.data == "tokens"
        x = self._through("embed", x if tokens else x.reshape(len(x), 8, 8))
        places = jnp.sin(jnp.arange(x.shape[1])[:, None] * 0.5 ** jnp.arange(x.shape[2]))
        x = x + 0.3 * places.astype(x.dtype)
        for i in range(self.recipe.depth):
            x = self._residual(f"norm1{self.between}{i}", x, lambda h, i=i: self._attention(i, h))
            x = self._residual(f"norm2{self.between}{i}", x, lambda h, i=i: self._feed(i, h))
        return self._passed("head", x if tokens else x.mean(1))

    def _residual(self, norm: str, x: jax.Array, part: Callable[..., jax.Array]) -> jax.Array:
        if self.recipe.norm == "post":
            return self.layers[norm](x + part(x))
        return x + part(self.layers[norm](x))

    def _attention(self, i: int, x: jax.Array) -> jax.Array:
        whole = self._through(f"attend{self.between}{i}", x)
        q, k, v = (part.reshape(*part.shape[:2], 2, -1).swapaxes(1, 2) for part in jnp.split(whole, 3, axis=-1))
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
        if self.recipe.data == "tokens":
            scores = jnp.where(jnp.tri(x.shape[1], dtype=bool), scores, -jnp.inf)
        mixed = (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(x.shape)
        return self._through(f"project{self.between}{i}", mixed)

    def _feed(self, i: int, x: jax.Array) -> jax.Array:
        name = f"up{self.between}{i}"
        return self._through(f"down{self.between}{i}", self.points.act(name, self.places[name], self._passed(name, x)))

    def _through(self, name: str, x: jax.Array) -> jax.Array:
        return self.points.units(name, self.places[name], self._passed(name, x))

    def _passed(self, name: str, x: jax.Array) -> jax.Array:
        return self.points.output(name, self.layers[name](x))


def _bounded(recipe: Recipe, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x) if recipe.activation == "relu" else jnp.tanh(x)


Params = Any
Model = Callable[[Params, jax.Array, Points], jax.Array]
