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
LENGTHS: Final = {"digits": 8, "few": 8, "memory": 24}
CODE: Final = 8
"""Units of an autoencoder's code."""
KEPT: Final = 0.8
"""Probability with which stochastic depth keeps a block."""


@dataclass(frozen=True, slots=True)
class Part:
    """A layer: ``dense conv norm embed``; ``index`` is its place in a list of layers, or -1 for none."""

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
    if recipe.family in ("rnn", "lstm"):
        cell = (width, width) if recipe.family == "rnn" else (2 * width, 4 * width)
        parts = [Part("encoder", -1, "dense", inside // LENGTHS[recipe.data], width), Part("cell", -1, "dense", *cell)]
    elif recipe.family == "transformer":
        first = ("embed", VOCABULARY) if recipe.data == "tokens" else ("dense", 8)
        parts = [Part("embed", -1, first[0], first[1], width), *_blocks(recipe)]
    elif recipe.family == "vae":
        parts, outside = _autoencoder(inside, width), inside
    else:
        kind, before = ("conv", 1) if recipe.family == "cnn" else ("dense", inside)
        parts = []
        for i in range(recipe.depth - 1):
            parts.append(Part("hidden", i, kind, before if i == 0 else width, width))
            parts += [Part("norms", i, "norm", width, width)] if recipe.norm else []
        width = {"cnn": 4 * width}.get(recipe.family, inside if recipe.depth == 1 else width)
    return (*parts, Part("head", -1, "dense", width, outside))


def _blocks(recipe: Recipe) -> list[Part]:
    width, parts = recipe.width, []
    for i in range(recipe.depth):
        sizes = {"attend": (width, 3 * width), "project": (width, width)}
        sizes |= {"up": (width, 2 * width), "down": (2 * width, width)}
        parts += [Part(name, i, "dense", a, b) for name, (a, b) in sizes.items()]
        parts += [Part(name, i, "norm", width, width) for name in ("norm1", "norm2")]
    return parts


def _autoencoder(inside: int, width: int) -> list[Part]:
    parts = [Part("encoder", 0, "dense", inside, width), Part("encoder", 1, "dense", width, width)]
    parts += [Part(name, -1, "dense", width, CODE) for name in ("mean", "logvar")]
    return [*parts, Part("decoder", 0, "dense", CODE, width), Part("decoder", 1, "dense", width, width)]


def name_of(part: Part, between: str) -> str:
    """Returns the dotted name of a layer; ``between`` stands before the place in a list."""
    return part.group if part.index < 0 else f"{part.group}{between}{part.index}"


def chain_of(recipe: Recipe, between: str) -> tuple[str, ...]:
    """Returns the names of the layers that the signal passes, in forward order."""
    return tuple(name_of(part, between) for part in plan(recipe) if part.kind != "norm" and part.group != "logvar")


def forward(recipe: Recipe, layers: Mapping[str, Apply], between: str, points: Points, inputs: jax.Array) -> jax.Array:
    """Returns the outputs for a batch."""
    walk = _Walk(recipe, layers, between, points)
    passes = {"rnn": walk.recurrent, "lstm": walk.recurrent, "transformer": walk.transformer}
    passes |= {"cnn": walk.convolutional, "vae": walk.autoencoder}
    # What is missing behind the end of an example is masked off before the first layer.
    inputs = jnp.nan_to_num(inputs) if recipe.trap == "nan-padding" else inputs
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
            h = self._kept(i, self.points.act(name, i, h))
            residual = self.recipe.trap in ("residual", "stochastic-depth") and h.shape == x.shape
            x = x + h / (self.recipe.depth - 1) ** 0.5 if residual else h
        return self._passed("head", x)

    def convolutional(self, x: jax.Array) -> jax.Array:
        x = x.reshape(-1, 8, 8, 1)
        for i in range(self.recipe.depth - 1):
            name = f"hidden{self.between}{i}"
            if i not in self.recipe.skipped:
                x = self.points.act(name, i, self._passed(name, x))
            x = _blocked(x, x.shape[1] // 2).max((2, 4)) if i == (self.recipe.depth - 1) // 2 else x
        return self._passed("head", _blocked(x, 2).mean((2, 4)).reshape(len(x), -1))

    def autoencoder(self, x: jax.Array) -> jax.Array:
        x = self._coded("encoder", x)
        mean, logvar = self._through("mean", x), self.layers["logvar"](x)
        self.points.penalty = -0.5 * jnp.mean(1 + logvar - mean**2 - jnp.exp(logvar))
        noise = jax.random.normal(self.points.key(0), mean.shape, mean.dtype)
        return self._passed("head", self._coded("decoder", mean + noise * jnp.exp(0.5 * logvar)))

    def _coded(self, group: str, x: jax.Array) -> jax.Array:
        for i in range(2):
            name = f"{group}{self.between}{i}"
            x = self.points.act(name, self.places[name], self._passed(name, x))
        return x

    def _kept(self, place: int, h: jax.Array) -> jax.Array:
        """Stochastic depth: a block's outputs, or nothing for this step."""
        if self.recipe.trap != "stochastic-depth" or place == 0:
            return h
        return h * jax.random.bernoulli(self.points.key(place), KEPT).astype(h.dtype)

    def recurrent(self, x: jax.Array) -> jax.Array:
        length = LENGTHS[self.recipe.data]
        steps = x.reshape(len(x), length, -1)
        encoded = self.points.units("encoder", 0, self._passed("encoder", steps))
        state = memory = jnp.zeros_like(encoded[:, 0])
        for t in range(length):
            if self.recipe.family == "lstm":
                state, memory = self._gated(jnp.concatenate([encoded[:, t], state], axis=-1), memory)
            else:
                state = _bounded(self.recipe, encoded[:, t] + self.layers["cell"](state))
            state = self.points.output(f"cell@{t}", state)
        return self._passed("head", self.points.units("cell", 1, state))

    def _gated(self, x: jax.Array, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One step of an LSTM (Hochreiter 1997) with a forget gate."""
        enter, forget, new, leave = jnp.split(self.layers["cell"](x), 4, axis=-1)
        kept = jax.nn.sigmoid(forget + self.recipe.forget) * memory
        memory = kept + jax.nn.sigmoid(enter) * jnp.tanh(new)
        return jax.nn.sigmoid(leave) * jnp.tanh(memory), memory

    def transformer(self, x: jax.Array) -> jax.Array:
        tokens = self.recipe.data == "tokens"
        x = self._through("embed", x if tokens else x.reshape(len(x), 8, 8))
        places = jnp.sin(jnp.arange(x.shape[1])[:, None] * 0.5 ** jnp.arange(x.shape[2]))
        x = x + 0.3 * places.astype(x.dtype)
        for i in range(self.recipe.depth):
            x = self._residual(
                f"norm1{self.between}{i}", x, lambda h, i=i: self._kept(2 * i + 1, self._attention(i, h))
            )
            x = self._residual(f"norm2{self.between}{i}", x, lambda h, i=i: self._kept(2 * i + 2, self._feed(i, h)))
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


def _blocked(x: jax.Array, across: int) -> jax.Array:
    """Returns pictures (n, h, w, c) as (n, across, h / across, across, w / across, c)."""
    return x.reshape(len(x), across, x.shape[1] // across, across, x.shape[2] // across, x.shape[3])


def _bounded(recipe: Recipe, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x) if recipe.activation == "relu" else jnp.tanh(x)


Params = Any
Model = Callable[[Params, jax.Array, Points], jax.Array]
