"""A recipe as a JAX training loop: a jitted step over parameters and the optimizer's state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.zoo.data import Batch, micro_batches
from tests.zoo.jax_families import LIBRARIES
from tests.zoo.jax_plan import chain_of
from tests.zoo.jax_points import Points
from tests.zoo.jax_weights import changed, happened, initialised
from tests.zoo.program import Observer
from tests.zoo.recipe import Recipe, rates

OPTIMIZERS: Final[dict[str, Callable[[Any], optax.GradientTransformation]]] = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": optax.adamw,
    "nadam": optax.nadam,
    "rmsprop": optax.rmsprop,
    "adagrad": optax.adagrad,
}
Step = Callable[..., Any]


class JaxProgram:
    """A JAX training program; a tool may wrap ``step`` before it trains."""

    framework = "jax"

    def __init__(self, recipe: Recipe) -> None:
        make, between = LIBRARIES[recipe.framework]
        self.recipe, self.chain = recipe, chain_of(recipe, between)
        with _quickly_compiled():
            params, self.apply = make(recipe, jax.random.key(recipe.seed))
        self.params = initialised(params, recipe, self.chain)
        self.optimizer = _optimizer(recipe, self.params, self.chain)
        self.state = (self.optimizer.init(self.params), jax.tree.map(jnp.zeros_like, self.params))
        self.step: Step = jax.jit(self._step)

    def train(self, observer: Observer) -> None:
        """Trains for all steps of the recipe."""
        with _quickly_compiled():
            for step, (batch, *_) in enumerate(micro_batches(self.recipe)):
                self.params = happened(self.params, self.recipe, self.chain, step)
                observer.begin(step)
                self._trained(step, batch, observer)

    def loss_of(self, params: Any, batch: Any, points: Points) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Returns the loss, and as further results the loss of the task and the share of right answers."""
        inputs, targets, factor, step = batch
        out = self.apply(params, _like(inputs, params), points).astype(jnp.float32)
        out = jax.nn.sigmoid(out) if self.recipe.squash else out
        if self.recipe.family == "vae":
            task, right = jnp.mean((out - inputs) ** 2) + 0.05 * points.penalty, jnp.float32(jnp.nan)
        elif jnp.issubdtype(targets.dtype, jnp.floating):
            task, right = jnp.mean((out - targets) ** 2), jnp.float32(jnp.nan)
        else:
            task, right = self._classified(out.reshape(-1, out.shape[-1]), targets.ravel(), step)
        return task * factor, (task, right)

    def applied(self, params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
        """Returns parameters and state after the optimizer's step, with the mistakes of the recipe."""
        inner, kept = state
        if self.recipe.plumbing == "keep-gradients":
            gradients = kept = jax.tree.map(jnp.add, kept, gradients)
        updates, inner = self.optimizer.update(gradients, inner, params)
        new = optax.apply_updates(params, updates)
        if self.recipe.plumbing == "no-step":
            new = params
        return self._without_omitted(params, new), (inner, kept)

    def _step(self, params: Any, state: Any, batch: Any) -> Any:
        def loss_of(params: Any) -> Any:
            return self.loss_of(params, batch, Points(self.recipe, batch[3]))

        (loss, (task, right)), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        params, state = self.applied(params, state, gradients)
        return params, state, loss, (task, right)

    def _trained(self, step: int, batch: Batch, observer: Observer) -> None:
        self.params, self.state, loss, (task, right) = self.step(self.params, self.state, arrays(batch, step))
        observer.end(step, loss, task=float(task), accuracy=float(right), clip=1.0)

    def _classified(self, logits: jax.Array, labels: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        right = jnp.mean(jnp.argmax(logits, -1) == labels)
        hot = jax.nn.one_hot(labels, logits.shape[-1])
        if self.recipe.loss == "mse":
            return jnp.mean((logits - hot) ** 2), right
        logarithms = jax.nn.log_softmax(logits)
        if self.recipe.loss.startswith("log-zero"):
            start = int(self.recipe.loss.rpartition("@")[2])
            logarithms = jnp.log(jax.nn.softmax(logits) * (step < start))
        losses = -jnp.sum(logarithms * hot, -1)
        return (jnp.sum(losses) if self.recipe.trap == "sum-loss" else jnp.mean(losses)), right

    def _without_omitted(self, old: Any, new: Any) -> Any:
        left = {self.chain[i] for i in self.recipe.omitted}
        kept: dict[str, Any] = {}
        changed(old, lambda layer, name, leaf: kept.setdefault(f"{layer}.{name}", leaf))
        return changed(new, lambda layer, name, leaf: kept[f"{layer}.{name}"] if layer in left else leaf)


@contextlib.contextmanager
def _quickly_compiled() -> Iterator[None]:
    """Compiles quickly rather than well, because the runs are short."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def arrays(batch: Batch, step: int) -> tuple[Any, ...]:
    """Returns a batch as arguments of the step: inputs, targets, factor on the loss, number of the step."""
    targets = batch.targets.astype(np.int32) if batch.targets.dtype == np.int64 else batch.targets
    inputs = batch.inputs.astype(np.int32) if batch.inputs.dtype == np.int64 else batch.inputs
    return inputs, targets, np.float32(batch.factor), np.int32(step)


def _like(inputs: Any, params: Any) -> jax.Array:
    kind = jax.tree.leaves(params)[0].dtype
    array = jnp.asarray(inputs)
    return array.astype(kind) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _optimizer(recipe: Recipe, params: Any, chain: tuple[str, ...]) -> optax.GradientTransformation:
    table = jnp.asarray(rates(recipe), jnp.float32)
    parts = [OPTIMIZERS[recipe.optimizer](lambda count: table[count])]
    if recipe.weight_decay:
        parts.insert(0, optax.add_decayed_weights(recipe.weight_decay))
    if recipe.clip != float("inf"):
        parts.insert(0, optax.clip_by_global_norm(recipe.clip))
    made = optax.chain(*parts) if len(parts) > 1 else parts[0]
    if recipe.untrained:
        still = {chain[i] for i in recipe.untrained}
        labels = changed(params, lambda layer, *_: "still" if layer in still else "trained")
        # Labels may come in a module that can be called, which optax would take for a function that labels.
        made = optax.multi_transform({"trained": made, "still": optax.set_to_zero()}, lambda _: labels)
    if recipe.accumulate > 1:
        made = optax.MultiSteps(made, recipe.accumulate).gradient_transformation()
    return made
