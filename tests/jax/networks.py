"""Small networks of four kinds in Flax, and their training in several ways of running a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

BATCH: Final = 16
FEATURES: Final = 32
CLASSES: Final = 10
INNER: Final = 6
"""Steps of one call where a call is a loop over steps."""


class Mlp(linen.Module):
    """One hidden layer."""

    dtype: Any

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kinds = {"dtype": self.dtype, "param_dtype": self.dtype}
        return linen.Dense(CLASSES, **kinds)(linen.tanh(linen.Dense(32, **kinds)(x)))


class Cnn(linen.Module):
    """Two convolutions, a mean over the image, and a classifier."""

    dtype: Any

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kinds = {"dtype": self.dtype, "param_dtype": self.dtype}
        x = x.reshape(-1, 4, 8, 1)
        for features in (4, 8):
            x = linen.gelu(linen.Conv(features, (3, 3), **kinds)(x))
        return linen.Dense(CLASSES, **kinds)(x.mean((1, 2)))


class Transformer(linen.Module):
    """A block with layer norms before attention and before two dense layers, on a residual stream."""

    dtype: Any

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kinds = {"dtype": self.dtype, "param_dtype": self.dtype, "use_bias": False}
        x = x.reshape(-1, 4, 8)
        normal = linen.LayerNorm(**kinds)(x)
        q, k, v = (linen.Dense(8, name=name, **kinds)(normal) for name in ("q", "k", "v"))
        x = x + linen.softmax(q @ k.swapaxes(-1, -2) / 3) @ v
        grown = linen.gelu(linen.Dense(16, name="up", **kinds)(linen.LayerNorm(**kinds)(x)))
        x = x + linen.Dense(8, name="down", **kinds)(grown)
        return linen.Dense(CLASSES, name="head", **kinds)(x.mean(1))


class Rnn(linen.Module):
    """A recurrent cell scanned over time."""

    dtype: Any

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kinds = {"dtype": self.dtype, "param_dtype": self.dtype}
        cell = linen.SimpleCell(16, recurrent_kernel_init=linen.initializers.lecun_normal(), **kinds)
        states: Any = linen.RNN(cell)(x.reshape(-1, 8, 4))
        return linen.Dense(CLASSES, **kinds)(states[:, -1])


NETWORKS: Final[dict[str, Callable[[Any], linen.Module]]] = {
    "mlp": Mlp,
    "cnn": Cnn,
    "transformer": Transformer,
    "rnn": Rnn,
}
DTYPES: Final = ("float32", "bfloat16")
MODES: Final = ("jit", "donated", "scan", "remat", "devices")


class Training:
    """A network with AdamW behind clipping, and its step in one of the modes.

    ``step`` takes parameters, optimizer state, inputs and labels, and returns the first two anew. One call is ``INNER``
    steps in the mode "scan" and one step in the others; "devices" shares each batch out to all devices.
    """

    def __init__(self, network: str, dtype: str, mode: str) -> None:
        self._net, self._dtype, self._mode = NETWORKS[network](jnp.dtype(dtype)), jnp.dtype(dtype), mode
        self._optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))
        donated = (0, 1) if mode == "donated" else ()
        self.step: Any = jax.jit(self._scanned if mode == "scan" else self._one, donate_argnums=donated)

    def run(self, step: Callable[..., Any], steps: int) -> Any:
        """Trains from the same start on the same batches; returns the parameters."""
        params, state = self._placed(self._start(), P())
        for i in range(steps // INNER if self._mode == "scan" else steps):
            params, state = step(params, state, *self._placed(self._batch(i), P("data")))
        return params

    def _loss(self, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits: Any = self._net.apply({"params": params}, x)
        loss: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), y).mean()
        return loss

    def _one(self, params: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        loss = jax.checkpoint(self._loss) if self._mode == "remat" else self._loss
        gradients = jax.grad(loss)(params, x, y)
        updates, state = self._optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    def _scanned(self, params: Any, state: Any, xs: jax.Array, ys: jax.Array) -> tuple[Any, Any]:
        carried: tuple[Any, Any] = lax.scan(lambda c, batch: (self._one(*c, *batch), None), (params, state), (xs, ys))[
            0
        ]
        return carried

    def _start(self) -> tuple[Any, Any]:
        """Returns parameters and optimizer state, made in numpy so that nothing is compiled for them."""
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(self._net.init, jax.random.key(0), jnp.zeros((1, FEATURES), self._dtype))["params"]
        params = jax.tree.map(lambda s: self._array(rng.normal(size=s.shape) / max(s.shape[0], 9) ** 0.5), shapes)
        state = jax.eval_shape(self._optimizer.init, params)
        return params, jax.tree.map(lambda s: jnp.asarray(np.zeros(s.shape, s.dtype)), state)

    def _batch(self, i: int) -> tuple[jax.Array, jax.Array]:
        rng, shape = np.random.default_rng(i + 1), (INNER, BATCH) if self._mode == "scan" else (BATCH,)
        x = self._array(rng.normal(size=(*shape, FEATURES)))
        return x, jnp.asarray(rng.integers(0, CLASSES, shape, dtype=np.int32))

    def _array(self, values: Any) -> jax.Array:
        return jnp.asarray(np.asarray(values, self._dtype))

    def _placed(self, tree: Any, spec: P) -> Any:
        if self._mode != "devices":
            return tree
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
        return jax.device_put(tree, NamedSharding(mesh, spec))
