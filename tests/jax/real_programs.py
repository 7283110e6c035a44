"""Training programs as their authors write them. Each takes the decorator of its train step, and may have one fault."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState
from jax.example_libraries import stax

Watch = Callable[[Any], Any]
Batch = tuple[np.ndarray, np.ndarray]
WIDTH, CLASSES = 8, 3


def batches(steps: int, *, size: int = 32, seed: int = 0) -> Iterator[Batch]:
    """Yields points and which of three random directions each lies closest to."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(WIDTH, CLASSES))
    for _ in range(steps):
        x = random.normal(size=(size, WIDTH)).astype(np.float32)
        yield x, (x @ directions).argmax(axis=1).astype(np.int32)


def cross_entropy(logits: Any, y: Any) -> jax.Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


class LinenNet(linen.Module):
    depth: int
    activation: Callable[..., Any]

    @linen.compact
    def __call__(self, x: jax.Array) -> Any:
        for _ in range(self.depth - 1):
            x = self.activation(linen.Dense(16)(x))
        return linen.Dense(CLASSES)(x)


def linen_loop(watch: Watch, *, steps: int = 40, depth: int = 4, activation: Callable[..., Any] = linen.gelu) -> Any:
    """Flax linen with a TrainState."""
    model = LinenNet(depth, activation)
    variables = model.init(jax.random.key(0), jnp.ones((1, WIDTH)))
    state: Any = TrainState.create(  # type: ignore[no-untyped-call]
        apply_fn=model.apply, params=variables["params"], tx=optax.adam(3e-3)
    )

    @watch
    @jax.jit
    def train_step(state: Any, x: Any, y: Any) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            return cross_entropy(state.apply_fn({"params": params}, x), y)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    for x, y in batches(steps):
        state, _ = train_step(state, x, y)
    return train_step


class Root(nnx.Module):
    """A layer with a square root, whose derivative at 0 a where around its result does not keep out."""

    def __init__(self, rngs: nnx.Rngs, *, guarded: bool) -> None:
        self.linear = nnx.Linear(16, 16, rngs=rngs)
        self.guarded = guarded

    def __call__(self, x: jax.Array) -> Any:
        x = jnp.maximum(self.linear(x), 0.0)
        inside = jnp.where(x > 0, x, 1.0) if self.guarded else x
        return jnp.where(x > 0, jnp.sqrt(inside), 0.0)


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, *, guarded: bool) -> None:
        self.stem = nnx.Linear(WIDTH, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.root = Root(rngs, guarded=guarded)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(16, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> Any:
        x = nnx.relu(self.norm(self.stem(x)))
        return self.head(self.dropout(self.root(x)))


def nnx_loop(watch: Watch, *, steps: int = 40, guarded: bool = True) -> Any:
    """Flax NNX with batch normalisation and dropout."""
    model = NnxNet(nnx.Rngs(0), guarded=guarded)
    optimizer = nnx.Optimizer(model, optax.adamw(3e-3), wrt=nnx.Param)

    @watch
    @nnx.jit
    def train_step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
        def loss_fn(model: Any) -> jax.Array:
            return cross_entropy(model(x), y)

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    for x, y in batches(steps):
        train_step(model, optimizer, x, y)
    return train_step


class Gru(eqx.Module):
    embed: eqx.nn.Linear
    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear
    cut: bool

    def __init__(self, key: Any, *, cut: bool) -> None:
        first, second, third = jax.random.split(key, 3)
        self.embed = eqx.nn.Linear(2, 8, key=first)
        self.cell = eqx.nn.GRUCell(8, 16, key=second)
        self.head = eqx.nn.Linear(16, CLASSES, key=third)
        self.cut = cut

    def __call__(self, sequence: jax.Array) -> jax.Array:
        inputs = jax.vmap(self.embed)(sequence)
        if self.cut:
            inputs = jax.lax.stop_gradient(inputs)
        hidden, _ = jax.lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(16), inputs)
        return self.head(hidden)


def equinox_loop(watch: Watch, *, steps: int = 40, cut: bool = False) -> Any:
    """An Equinox GRU over sequences of four points."""
    model = Gru(jax.random.key(0), cut=cut)
    optimizer = optax.adam(1e-2)
    state = optimizer.init(eqx.filter(model, eqx.is_array))

    def loss_fn(model: Any, x: Any, y: Any) -> jax.Array:
        return cross_entropy(jax.vmap(model)(x.reshape(-1, 4, 2)), y)

    @watch
    @eqx.filter_jit
    def train_step(model: Any, state: Any, x: Any, y: Any) -> Any:
        loss, grads = eqx.filter_value_and_grad(loss_fn)(model, x, y)
        updates, state = optimizer.update(grads, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state, loss

    for x, y in batches(steps):
        model, state, _ = train_step(model, state, x, y)
    return train_step


def dense_params(key: Any, sizes: tuple[int, ...]) -> Any:
    keys = jax.random.split(key, len(sizes))
    return {
        f"dense_{i}": {"kernel": jax.random.normal(k, (a, b)) * np.sqrt(2 / a), "bias": jnp.zeros(b)}
        for i, (k, a, b) in enumerate(zip(keys, sizes[:-1], sizes[1:], strict=False))
    }


def dense_apply(params: Any, x: Any) -> Any:
    *hidden, last = params.values()
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]


def optax_loop(watch: Watch, *, steps: int = 40, every: int = 4, mislabelled: str = "") -> Any:
    """A chain of optax: clipping, a learning rate that is injected, accumulation over micro-batches, label by label."""
    params = dense_params(jax.random.key(0), (WIDTH, 16, 16, 16, CLASSES))
    adam = optax.inject_hyperparams(optax.adam)(optax.linear_schedule(1e-2, 1e-3, 200))
    labels = {name: "frozen" if name == mislabelled else "trained" for name in params}
    by_label = optax.multi_transform({"trained": adam, "frozen": optax.set_to_zero()}, labels)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), by_label)
    tx = optax.MultiSteps(optimizer, every) if every > 1 else optimizer
    state = tx.init(params)

    @watch
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params: Any, state: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(lambda p: cross_entropy(dense_apply(p, x), y))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for x, y in batches(steps):
        params, state, _ = train_step(params, state, x, y)
    return train_step


def stax_loop(watch: Watch, *, steps: int = 40, rate: float = 0.1) -> Any:
    """Nameless parameters of ``jax.example_libraries.stax``, under plain gradient descent."""
    init, apply = stax.serial(stax.Dense(16), stax.Relu, stax.Dense(16), stax.Relu, stax.Dense(CLASSES))
    _, params = init(jax.random.key(0), (-1, WIDTH))

    @watch
    @jax.jit
    def train_step(params: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(lambda p: cross_entropy(apply(p, x), y))(params)
        return jax.tree.map(lambda p, g: p - rate * g, params, grads), loss

    for x, y in batches(steps):
        params, _ = train_step(params, x, y)
    return train_step


def haiku_loop(watch: Watch, *, steps: int = 40, cut: bool = False) -> Any:
    """A transformed haiku function: an MLP, normalised, and a head."""

    def forward(x: Any) -> Any:
        x = hk.nets.MLP([16, 16], activate_final=True)(x)
        x = hk.LayerNorm(-1, create_scale=True, create_offset=True)(jax.lax.stop_gradient(x) if cut else x)
        return hk.Linear(CLASSES, name="head")(x)

    net: Any = hk.without_apply_rng(hk.transform(forward))
    params: Any = net.init(jax.random.key(0), jnp.ones((1, WIDTH)))
    optimizer = optax.adamw(1e-2)
    state = optimizer.init(params)

    @watch
    @jax.jit
    def train_step(params: Any, state: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(lambda p: cross_entropy(net.apply(p, x), y))(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for x, y in batches(steps):
        params, state, _ = train_step(params, state, x, y)
    return train_step
