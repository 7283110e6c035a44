"""The demonstration in Flax NNX: a deep network in which gradients vanish, and the same one repaired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import gradwatch
from gradwatch.examples.demonstration import DEPTH, EPOCHS, LEARNING_RATE, SLOWED_DOWN, WIDTH, tell
from gradwatch.examples.digits import BATCHES, Digits
from gradwatch.examples.progress import Progress


class SickBlock(nnx.Module):
    """A layer whose sigmoid, of slope 1/4 at most, hands back a fraction of each gradient."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the layer's outputs, of the shape of its inputs, [n, ``WIDTH``]."""
        return nnx.sigmoid(self.linear(x))


class RepairedBlock(nnx.Module):
    """The same layer with ReLU, the initialisation made for it (He et al. 2015), and normalisation."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(WIDTH, WIDTH, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the layer's outputs, of the shape of its inputs, [n, ``WIDTH``]."""
        return nnx.relu(self.norm(self.linear(x)))


Block = SickBlock | RepairedBlock


class DeepNetwork(nnx.Module):
    """``DEPTH`` hidden layers, each made by ``block``, and an output layer for ten digits."""

    def __init__(self, block: Callable[[nnx.Rngs], Block], rngs: nnx.Rngs) -> None:
        self.hidden = nnx.List([block(rngs) for _ in range(DEPTH)])
        self.output = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits of images, shape [n, 64] to [n, 10]."""
        for block in self.hidden:
            x = block(x)
        logits: jax.Array = self.output(x)
        return logits


def run(out: Path, *, seed: int) -> Sequence[Path]:
    """Trains both networks, watched, prints how well they learn, and returns their run directories, the sick first."""
    return tell(out, partial(train, SickBlock, seed=seed), partial(train, RepairedBlock, seed=seed))


@nnx.jit
def train_step(
    model: DeepNetwork, optimizer: nnx.Optimizer[DeepNetwork], images: jax.Array, labels: jax.Array
) -> jax.Array:
    """Trains on one batch of n images, shape [n, 64], with labels, [n], and returns the loss before."""

    def loss_fn(model: DeepNetwork) -> jax.Array:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(model(images), labels))

    loss: jax.Array
    loss, gradients = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, gradients)
    return loss


def train(block: Callable[[nnx.Rngs], Block], path: Path, seed: int, *, epochs: int = EPOCHS) -> float:
    """Trains one network, watched, and returns the share of unseen digits that it reads right."""
    generator = np.random.default_rng(seed)
    training, unseen = Digits.shuffled(generator).split()
    model = DeepNetwork(block, nnx.Rngs(seed))
    steps = epochs * BATCHES
    slowing_down = optax.linear_schedule(LEARNING_RATE, LEARNING_RATE * SLOWED_DOWN, steps)
    optimizer = nnx.Optimizer(model, optax.sgd(slowing_down), wrt=nnx.Param)
    progress = Progress(steps)
    with gradwatch.watch(run=path, on_finding=progress.tell) as watch:
        step = watch(train_step)
        for _ in range(epochs):
            for images, labels in training.batches(generator):
                loss = step(model, optimizer, jnp.asarray(images), jnp.asarray(labels))
                progress.advance(f"loss {float(loss):.3f}")
        progress.finish()
    return accuracy(model, unseen)


def accuracy(model: DeepNetwork, digits: Digits) -> float:
    """Returns the share of digits that the model reads right."""
    return float((model(jnp.asarray(digits.images)).argmax(axis=1) == digits.labels).mean())
