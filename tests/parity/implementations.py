"""The same training in each framework, as its users write it, captured by its adapter."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import torch
from flax import linen, nnx
from flax.training import train_state
from torch import nn
from torch.nn import functional

from gradwatch.guard import Guard
from gradwatch.plugins import Adapter, Session
from gradwatch.record import SiteTable, StepRecord
from gradwatch.recorder import Recorder
from gradwatch.scalars import Scalars
from gradwatch.schedule import Schedule
from gradwatch.testing import MemorySink
from gradwatch_jax import JaxAdapter
from gradwatch_torch import TorchAdapter
from tests.parity.numpy_adapter import NumpyAdapter
from tests.parity.numpy_network import Descent
from tests.parity.problem import Batch, Problem, initial_weights, phases


@dataclass
class Run:
    """What was captured.

    Attributes:
        sites: the site table.
        layers: the expected names of the layers that own parameters, from the inputs to the outputs.
        records: of all steps.
        notes: what the adapter said it could not see.
    """

    sites: SiteTable
    layers: tuple[str, ...]
    records: list[StepRecord]
    notes: list[str] = field(default_factory=list)


@contextmanager
def watching(adapter: Adapter, target: tuple[Any, ...], layers: tuple[str, ...]) -> Iterator[Run]:
    """Captures into memory by the default schedule."""
    memory, sites = MemorySink(), SiteTable(optimizers=())
    recorder = Recorder([memory], Guard())
    run = Run(sites, layers, memory.records)
    adapter.attach(
        Session(sites, Schedule(), recorder, Scalars(recorder), lambda _: True, note=run.notes.append), *target
    )
    try:
        yield run
    finally:
        adapter.detach()
        assert recorder.close(20)


def train_numpy(problem: Problem) -> Run:
    descent = Descent(problem)
    with watching(NumpyAdapter(), (descent,), _numbered("layers.{}", problem)) as run:
        for batches in phases(problem):
            descent.restart()
            for batch in batches:
                descent.step(batch)
    return run


def train_torch(problem: Problem) -> Run:
    kinds: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}
    parts: list[nn.Module] = []
    for (inputs, outputs), name in itertools.zip_longest(itertools.pairwise(problem.sizes), problem.nonlinearities):
        parts += [nn.Linear(inputs, outputs), *([kinds[name]()] if name else [])]
    model = nn.Sequential(*parts)
    optimizer = torch.optim.SGD(model.parameters(), problem.rate)
    names = tuple(str(2 * i) for i in range(problem.depth))
    with watching(TorchAdapter(), (model, optimizer), names) as run:
        for batches in phases(problem):
            restart(model, problem)
            for batch in batches:
                inputs, labels, weights = map(torch.from_numpy, batch)
                optimizer.zero_grad()
                losses = functional.cross_entropy(model(inputs), labels.long(), reduction="none")
                (losses * weights).mean().backward()
                optimizer.step()
    return run


def restart(model: nn.Module, problem: Problem) -> None:
    arrays = [array for weight, bias in initial_weights(problem) for array in (weight.T, bias)]
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))


NONLINEARITIES: Final[dict[str, Callable[[jax.Array], jax.Array]]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
}


def weighted_loss(outputs: jax.Array, batch: Batch) -> jax.Array:
    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(outputs, batch.labels)
    return jnp.mean(losses * batch.weights)


def train_jax(problem: Problem) -> Run:
    optimizer = optax.sgd(problem.rate)

    def loss_of(params: Any, batch: Batch) -> jax.Array:
        x = jnp.asarray(batch.inputs)
        for i in range(problem.depth):
            x = x @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"]
            x = NONLINEARITIES[problem.nonlinearities[i]](x) if i < problem.depth - 1 else x
        return weighted_loss(x, batch)

    @jax.jit
    def step(params: Any, state: Any, batch: Batch) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(params, batch)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    with watching_step(step, _numbered("dense_{}", problem)) as (run, watched):
        for batches in phases(problem):
            params = _dense("dense_{}", problem)
            state = optimizer.init(params)
            for batch in batches:
                params, state, _ = watched(params, state, batch)
    return run


TrainState: Any = train_state.TrainState
"""Untyped, as it comes without types of its own."""


class LinenNetwork(linen.Module):
    problem: Problem

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width, name in itertools.zip_longest(self.problem.sizes[1:], self.problem.nonlinearities):
            x = linen.Dense(width)(x)
            x = NONLINEARITIES[name](x) if name else x
        return x


def train_linen(problem: Problem) -> Run:
    apply, optimizer = LinenNetwork(problem).apply, optax.sgd(problem.rate)

    @jax.jit
    def step(state: Any, batch: Batch) -> tuple[Any, jax.Array]:
        def loss_of(params: Any) -> jax.Array:
            return weighted_loss(state.apply_fn({"params": params}, batch.inputs), batch)

        loss, gradients = jax.value_and_grad(loss_of)(state.params)
        return state.apply_gradients(grads=gradients), loss

    with watching_step(step, _numbered("Dense_{}", problem)) as (run, watched):
        for batches in phases(problem):
            state = TrainState.create(apply_fn=apply, params=_dense("Dense_{}", problem), tx=optimizer)
            for batch in batches:
                state, _ = watched(state, batch)
    return run


class NnxNetwork(nnx.Module):
    def __init__(self, problem: Problem) -> None:
        rngs = nnx.Rngs(0)
        self.problem = problem
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(problem.sizes)])
        for layer, (weight, bias) in zip(self.layers, initial_weights(problem), strict=True):
            layer.kernel, layer.bias = nnx.Param(jnp.asarray(weight)), nnx.Param(jnp.asarray(bias))

    def __call__(self, x: jax.Array) -> jax.Array:
        layer: nnx.Linear
        for layer, name in itertools.zip_longest(self.layers, self.problem.nonlinearities):
            x = layer(x)
            x = NONLINEARITIES[name](x) if name else x
        return x


def train_nnx(problem: Problem) -> Run:
    transformation = optax.sgd(problem.rate)

    @nnx.jit
    def step(model: NnxNetwork, optimizer: nnx.Optimizer[Any], batch: Batch) -> jax.Array:
        def loss_of(model: NnxNetwork) -> jax.Array:
            return weighted_loss(model(jnp.asarray(batch.inputs)), batch)

        loss: jax.Array
        loss, gradients = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, gradients)
        return loss

    with watching_step(step, _numbered("layers.{}", problem)) as (run, watched):
        for batches in phases(problem):
            model = NnxNetwork(problem)
            optimizer = nnx.Optimizer(model, transformation, wrt=nnx.Param)
            for batch in batches:
                watched(model, optimizer, batch)
    return run


class EquinoxNetwork(eqx.Module):
    layers: list[eqx.nn.Linear]
    nonlinearities: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, problem: Problem) -> None:
        self.nonlinearities = problem.nonlinearities
        self.layers = []
        for weight, bias in initial_weights(problem):
            made = eqx.nn.Linear(*weight.shape, key=jax.random.key(0))
            arrays = (jnp.asarray(weight.T), jnp.asarray(bias))
            self.layers.append(eqx.tree_at(lambda layer: (layer.weight, layer.bias), made, arrays))

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer, name in itertools.zip_longest(self.layers, self.nonlinearities):
            x = layer(x)
            x = NONLINEARITIES[name](x) if name else x
        return x


def train_equinox(problem: Problem) -> Run:
    optimizer = optax.sgd(problem.rate)

    @eqx.filter_jit
    def step(model: EquinoxNetwork, state: Any, batch: Batch) -> Any:
        def loss_of(model: EquinoxNetwork) -> jax.Array:
            return weighted_loss(jax.vmap(model)(jnp.asarray(batch.inputs)), batch)

        loss, gradients = eqx.filter_value_and_grad(loss_of)(model)
        updates, state = optimizer.update(gradients, state)
        return eqx.apply_updates(model, updates), state, loss

    with watching_step(step, _numbered("layers.{}", problem)) as (run, watched):
        for batches in phases(problem):
            model = EquinoxNetwork(problem)
            state = optimizer.init(eqx.filter(model, eqx.is_array))
            for batch in batches:
                model, state, _ = watched(model, state, batch)
    return run


@contextmanager
def watching_step(step: Callable[..., Any], layers: tuple[str, ...]) -> Iterator[tuple[Run, Callable[..., Any]]]:
    """Captures a train step of JAX into memory; the second of the pair is to be called in its place."""
    adapter = JaxAdapter()
    with watching(adapter, (step,), layers) as run:
        yield run, adapter.decorate(step)


def _numbered(pattern: str, problem: Problem) -> tuple[str, ...]:
    return tuple(pattern.format(i) for i in range(problem.depth))


def _dense(pattern: str, problem: Problem) -> dict[str, dict[str, jax.Array]]:
    return {
        pattern.format(i): {"kernel": jnp.asarray(weight), "bias": jnp.asarray(bias)}
        for i, (weight, bias) in enumerate(initial_weights(problem))
    }


IMPLEMENTATIONS: Final[dict[str, Callable[[Problem], Run]]] = {
    "torch": train_torch,
    "jax": train_jax,
    "linen": train_linen,
    "nnx": train_nnx,
    "equinox": train_equinox,
}
ORACLE: Final = "numpy"


@functools.cache
def trained(name: str, problem: Problem) -> Run:
    """Trains once, and remembers what was captured."""
    if name == ORACLE:
        return train_numpy(problem)
    before = jax.config.read("jax_disable_most_optimizations")
    # Compiling takes most of the time of these tests: one of the steps is compiled as for users, the rest quickly.
    jax.config.update("jax_disable_most_optimizations", name != "jax")
    try:
        return IMPLEMENTATIONS[name](problem)
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
