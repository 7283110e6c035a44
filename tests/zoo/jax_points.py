"""Points in a JAX network where a signal passes: plants act there, and the plain record reads there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import jax
import jax.numpy as jnp

from tests.zoo.recipe import Effect, Recipe

EFFECTS: Final[dict[str, Callable[[jax.Array, float], jax.Array]]] = {
    "detach": lambda h, _: jax.lax.stop_gradient(h),
    "round": lambda h, _: jnp.round(h),
    "sign": lambda h, _: jnp.sign(h),
    "scale": lambda h, size: h * size,
    "log": lambda h, _: jnp.log(jax.nn.relu(h)),
    "sqrt": lambda h, _: jnp.sqrt(jax.nn.relu(h)),
    "divide": lambda h, _: h / jnp.sum(jnp.abs(h - h), axis=-1, keepdims=True),
    "exp": lambda h, size: jnp.exp(h * size),
}
ACTIVATIONS: Final[dict[str, Callable[[jax.Array], jax.Array]]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "leaky": jax.nn.leaky_relu,
    "linear": lambda h: h,
}


class Points:
    """The points of one forward pass.

    With ``taps``, a zero is added to every output, by which the loss can be differentiated, and what passes is kept
    in ``outputs`` and ``seen``. What a network adds to the loss is its ``penalty``.
    """

    def __init__(self, recipe: Recipe, step: jax.Array, taps: Mapping[str, jax.Array] | None = None) -> None:
        self._recipe, self._step, self._taps = recipe, step, taps
        self.outputs: dict[str, jax.Array] = {}
        self.seen: dict[str, jax.Array] = {}
        self.penalty: jax.Array = jnp.zeros(())

    def key(self, place: int) -> jax.Array:
        """Returns a key for random numbers of this step, one a place in the network."""
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(self._recipe.seed), self._step), place)

    def output(self, layer: str, values: jax.Array) -> jax.Array:
        """Passes the outputs of a layer."""
        if self._taps is not None:
            values = values + self._taps[layer] if layer in self._taps else values
            self.outputs[layer] = values
        return values

    def units(self, layer: str, position: int, values: jax.Array) -> jax.Array:
        """Passes the outputs of the nonlinearity behind a layer, changed by the effects planted there."""
        if self._taps is not None:
            self.seen[layer] = values
        for effect in self._recipe.effects:
            if effect.layer == position:
                values = self._changed(effect, values)
        return values

    def act(self, layer: str, position: int, values: jax.Array) -> jax.Array:
        """Passes the nonlinearity behind a layer."""
        return self.units(layer, position, ACTIVATIONS[self._recipe.activation](values))

    def _changed(self, effect: Effect, values: jax.Array) -> jax.Array:
        def change(h: jax.Array) -> jax.Array:
            return EFFECTS[effect.how](h, effect.size).astype(h.dtype)

        if effect.start == 0:
            return change(values)
        # What is not selected by where() would still spoil the gradient; a branch that is not taken does not.
        changed: jax.Array = jax.lax.cond(self._step >= effect.start, change, lambda h: h, values)
        return changed
