"""Programs whose blocks are stacked in one array for each parameter, and run by a scan over them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx

from tests.jax.real_programs import CLASSES, WIDTH, Watch, batches, cross_entropy


class Block(linen.Module):
    plain: bool

    @linen.compact
    def __call__(self, x: Any, _: None) -> Any:
        if self.plain:
            return linen.sigmoid(linen.Dense(16)(x)), None
        return x + linen.Dense(16)(linen.gelu(linen.LayerNorm()(x))), None


class LinenStack(linen.Module):
    depth: int
    plain: bool

    @linen.compact
    def __call__(self, x: Any) -> Any:
        stack: Any = linen.scan(
            linen.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth
        )
        x, _ = stack(self.plain, name="blocks")(linen.Dense(16, name="stem")(x), None)
        return linen.Dense(CLASSES, name="head")(x)


def linen_loop(watch: Watch, *, steps: int = 40, depth: int = 3, plain: bool = False) -> Any:
    """Flax linen: residual blocks under ``nn.scan`` and ``nn.remat``, or plain sigmoid layers."""
    model = LinenStack(depth, plain)
    params: Any = model.init(jax.random.key(0), jnp.ones((1, WIDTH)))
    tx = optax.sgd(0.1, momentum=0.9)
    state = tx.init(params)

    @watch
    @jax.jit
    def train_step(params: Any, state: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(lambda p: cross_entropy(model.apply(p, x), y))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for x, y in batches(steps):
        params, state, _ = train_step(params, state, x, y)
    return train_step


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.LayerNorm(16, rngs=rngs)
        self.linear = nnx.Linear(16, 16, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return x + nnx.gelu(self.linear(self.norm(x)))


class NnxStack(nnx.Module):
    def __init__(self, depth: int, rngs: nnx.Rngs) -> None:
        @nnx.split_rngs(splits=depth)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def create(rngs: nnx.Rngs) -> NnxBlock:
            return NnxBlock(rngs)

        self.stem = nnx.Linear(WIDTH, 16, rngs=rngs)
        self.blocks = create(rngs)
        self.head = nnx.Linear(16, CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def forward(x: Any, block: NnxBlock) -> Any:
            return block(x)

        return self.head(forward(self.stem(x), self.blocks))


def nnx_loop(watch: Watch, *, steps: int = 40, depth: int = 4, forgotten: int | None = None) -> Any:
    """Flax NNX: blocks made by ``nnx.vmap`` and run by ``nnx.scan``, with a learning rate for each block."""
    model = NnxStack(depth, nnx.Rngs(0))
    rates = 0.8 ** jnp.arange(depth)[::-1]
    if forgotten is not None:
        rates = rates.at[forgotten].set(0.0)

    def decayed(path: Any, update: Any) -> Any:
        stacked = "blocks" in jax.tree_util.keystr(path)
        return update * rates.reshape(-1, *[1] * (update.ndim - 1)) if stacked else update

    layerwise = optax.stateless(lambda updates, _: jax.tree.map_with_path(decayed, updates))
    optimizer = nnx.Optimizer(model, optax.chain(optax.adam(3e-3), layerwise), wrt=nnx.Param)

    @watch
    @nnx.jit
    def train_step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
        loss, grads = nnx.value_and_grad(lambda m: cross_entropy(m(x), y))(model)
        optimizer.update(model, grads)
        return loss

    for x, y in batches(steps):
        train_step(model, optimizer, x, y)
    return train_step
