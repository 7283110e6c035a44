"""Networks of JAX, in plain arrays and in Flax linen; each gives its parameters, its loss and one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import optax
from flax import linen

Problem = tuple[Any, Callable[[Any, Any], jax.Array], Any]
"""Parameters, the loss of parameters and a batch, and the batch."""

WIDTH: Final = 512
DEPTH: Final = 6
HEADS: Final = 8
VOCABULARY: Final = 8192
TOKENS: Final = 64


def plain_mlp() -> Problem:
    """Returns an MLP of 4 layers of 256 units, 0.26 million parameters in 8 arrays, with a batch of 256."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = [(_glorot(key, 256, 256), jnp.zeros(256)) for key in keys]

    def loss(params: Any, batch: Any) -> jax.Array:
        hidden, target = batch
        for kernel, bias in params[:-1]:
            hidden = jax.nn.relu(hidden @ kernel + bias)
        kernel, bias = params[-1]
        return _cross_entropy(hidden @ kernel + bias, target)

    return params, loss, _examples()


def linen_mlp() -> Problem:
    """Returns the same MLP in Flax linen."""
    network = LinenMlp()
    x, y = _examples()
    params = network.init(jax.random.key(0), x)["params"]
    return params, lambda params, batch: _cross_entropy(network.apply({"params": params}, batch[0]), batch[1]), (x, y)


def plain_gpt() -> Problem:
    """Returns a decoder of 23.1 million parameters in 100 arrays, with 4 sequences of 64 tokens a step."""
    keys = iter(jax.random.split(jax.random.key(0), 64))
    params = {
        "tokens": 0.02 * jax.random.normal(next(keys), (VOCABULARY, WIDTH)),
        "positions": 0.02 * jax.random.normal(next(keys), (TOKENS, WIDTH)),
        "blocks": [_block_parameters(keys) for _ in range(DEPTH)],
        "norm": (jnp.ones(WIDTH), jnp.zeros(WIDTH)),
    }
    return params, _gpt_loss, _sequences()


def linen_gpt() -> Problem:
    """Returns the same decoder in Flax linen."""
    network = LinenGpt()
    ids = _sequences()
    params = network.init(jax.random.key(0), ids[:, :-1])["params"]

    def loss(params: Any, ids: Any) -> jax.Array:
        return _cross_entropy(network.apply({"params": params}, ids[:, :-1]), ids[:, 1:])

    return params, loss, ids


class LinenMlp(linen.Module):
    """Three hidden layers and a head."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(3):
            x = linen.relu(linen.Dense(256)(x))
        return linen.Dense(256)(x)


class LinenBlock(linen.Module):
    """A pre-norm transformer block."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        normed = linen.LayerNorm()(x)
        mixed = _attend(*(linen.Dense(WIDTH, name=name)(normed) for name in "qkv"))
        x = x + linen.Dense(WIDTH, name="out")(mixed)
        grown = linen.gelu(linen.Dense(4 * WIDTH, name="up")(linen.LayerNorm()(x)))
        return x + linen.Dense(WIDTH, name="down")(grown)


class LinenGpt(linen.Module):
    """A small decoder whose head is its embedding."""

    @linen.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        tokens = linen.Embed(VOCABULARY, WIDTH, name="tokens")
        x = tokens(ids) + linen.Embed(TOKENS, WIDTH, name="positions")(jnp.arange(TOKENS))
        for i in range(DEPTH):
            x = LinenBlock(name=f"block_{i}")(x)
        return tokens.attend(linen.LayerNorm(name="norm")(x))


def _gpt_loss(params: Any, ids: Any) -> jax.Array:
    x = params["tokens"][ids[:, :-1]] + params["positions"]
    for block in params["blocks"]:
        normed = _normalised(x, block["norm1"])
        x = x + _dense(_attend(*(_dense(normed, block[name]) for name in "qkv")), block["out"])
        x = x + _dense(jax.nn.gelu(_dense(_normalised(x, block["norm2"]), block["up"])), block["down"])
    return _cross_entropy(_normalised(x, params["norm"]) @ params["tokens"].T, ids[:, 1:])


def _block_parameters(keys: Any) -> dict[str, Any]:
    shapes = {
        **dict.fromkeys(("q", "k", "v", "out"), (WIDTH, WIDTH)),
        "up": (WIDTH, 4 * WIDTH),
        "down": (4 * WIDTH, WIDTH),
    }
    dense = {name: (_glorot(next(keys), *shape), jnp.zeros(shape[1])) for name, shape in shapes.items()}
    return {**dense, **{name: (jnp.ones(WIDTH), jnp.zeros(WIDTH)) for name in ("norm1", "norm2")}}


def _glorot(key: jax.Array, inputs: int, outputs: int) -> jax.Array:
    return float((2 / (inputs + outputs)) ** 0.5) * jax.random.normal(key, (inputs, outputs))


def _dense(x: jax.Array, layer: tuple[jax.Array, jax.Array]) -> jax.Array:
    return x @ layer[0] + layer[1]


def _normalised(x: jax.Array, norm: tuple[jax.Array, jax.Array]) -> jax.Array:
    scaled: jax.Array = jax.nn.standardize(x, epsilon=1e-6) * norm[0]
    return scaled + norm[1]


def _attend(*heads: jax.Array) -> jax.Array:
    q, k, v = (x.reshape(*x.shape[:2], HEADS, -1) for x in heads)
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(heads[0].shape)


def _cross_entropy(logits: Any, target: jax.Array) -> jax.Array:
    loss: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()
    return loss


def _examples() -> tuple[jax.Array, jax.Array]:
    one, other = jax.random.split(jax.random.key(1))
    return jax.random.normal(one, (256, 256)), jax.random.randint(other, (256,), 0, 256)


def _sequences() -> jax.Array:
    return jax.random.randint(jax.random.key(1), (4, TOKENS + 1), 0, VOCABULARY)
