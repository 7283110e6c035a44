"""Training is the same to the last bit with and without watching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax

from tests.jax.capturing import capture
from tests.jax.programs import same

STEPS = 24
WIDTH = 32


def mlp_net(params: Any, x: jax.Array) -> Any:
    return jnp.tanh(x @ params["first"]) @ params["last"]


def convolution_net(params: Any, x: jax.Array) -> Any:
    image = x.reshape(len(x), 4, 8, 1)
    features = lax.conv_general_dilated(
        image, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.gelu(features).reshape(len(x), -1) @ params["wide"]


def attention_net(params: Any, x: jax.Array) -> Any:
    tokens = x.reshape(len(x), 4, 8) @ params["embed"]
    mean, variance = tokens.mean(-1, keepdims=True), tokens.var(-1, keepdims=True)
    normal = (tokens - mean) * lax.rsqrt(variance + 1e-5) * params["scale"] + params["bias"]
    q, k, v = (normal @ params[name] for name in ("q", "k", "v"))
    weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / WIDTH**0.5, axis=-1)
    return (weights @ v).mean(1) @ params["last"]


def recurrent_net(params: Any, x: jax.Array) -> Any:
    def cell(h: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        return jnp.tanh(h @ params["first"] + v[:, None] * params["bias"]), None

    return lax.scan(cell, jnp.zeros((len(x), WIDTH), x.dtype), x.T)[0] @ params["last"]


NETS: dict[str, Callable[[Any, jax.Array], Any]] = {
    "mlp": mlp_net,
    "convolution": convolution_net,
    "attention": attention_net,
    "recurrent": recurrent_net,
}
SQUARE = (WIDTH, WIDTH)
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "mlp": {"first": SQUARE, "last": (WIDTH, 10)},
    "convolution": {"conv": (3, 3, 1, 4), "wide": (128, 10)},
    "attention": {
        "embed": (8, WIDTH),
        "scale": (WIDTH,),
        "bias": (WIDTH,),
        **dict.fromkeys("qkv", SQUARE),
        "last": (WIDTH, 10),
    },
    "recurrent": {"first": SQUARE, "bias": (WIDTH,), "last": (WIDTH, 10)},
}


def parameters(net: str, dtype: str) -> Any:
    keys = jax.random.split(jax.random.key(0), len(SHAPES[net]))
    return {
        name: (jax.random.normal(key, shape) * 0.2).astype(dtype)
        for key, (name, shape) in zip(keys, SHAPES[net].items(), strict=True)
    }


def trained(net: str, dtype: str, mode: str, *, watched: bool) -> Any:
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))

    def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = NETS[net](params, x).astype(jnp.float32)
        loss: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return loss

    differentiated = jax.checkpoint(loss_fn) if mode == "remat" else loss_fn

    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        gradients = jax.grad(differentiated)(params, x, y)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(step, donate_argnums=(0, 1) if mode == "donated" else ())
    params = parameters(net, dtype)
    state = optimizer.init(params)
    with capture(jitted) as captured:
        call = captured.step if watched else jitted
        for i in range(STEPS):
            key = jax.random.key(i)
            x = jax.random.normal(key, (64, WIDTH)).astype(dtype)
            params, state = call(params, state, x, jax.random.randint(key, (64,), 0, 10))
    assert len(captured.records) == (STEPS if watched else 0)
    return params


CASES = [(net, dtype, "donated") for net in NETS for dtype in ("float32", "bfloat16")]
CASES += [("attention", "float32", "jit"), ("attention", "float32", "remat")]


@pytest.mark.parametrize(("net", "dtype", "mode"), CASES)
def test_trained_parameters_are_bitwise_the_same(net: str, dtype: str, mode: str) -> None:
    """Over steps that sample everything and steps that sample little, watching changes no bit of any parameter."""
    assert same(trained(net, dtype, mode, watched=True), trained(net, dtype, mode, watched=False))
