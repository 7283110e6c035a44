"""A training loop of JAX, bare, watched, or with a rival in its step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import optax

import gradwatch
from tests.bench import jax_networks
from tests.bench.clock import Step, kinds_found, run_phases
from tests.bench.jax_rivals import TAPS
from tests.bench.networks import Network
from tests.bench.rows import Row


class Loop:
    """A network with clipping and AdamW in a jitted step that donates its state; ``step`` waits for the loss."""

    def __init__(self, problem: jax_networks.Problem, tap: Callable[[Any], Any]) -> None:
        self.params, loss, self._batch = problem
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4))
        self._state = optimizer.init(self.params)

        def train(params: Any, state: Any, batch: Any) -> tuple[Any, Any, jax.Array, Any]:
            value, gradients = jax.value_and_grad(loss)(params, batch)
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, value, tap(gradients)

        self.train: Callable[..., Any] = jax.jit(train, donate_argnums=(0, 1))

    def step(self) -> None:
        self.params, self._state, loss, _ = self.train(self.params, self._state, self._batch)
        jax.block_until_ready((self.params, loss))


def measure(network: Network, row: Row, first: int, steady: int) -> dict[str, Any]:
    """Trains; returns the phases of ``clock.run_phases``, the network's size and the kinds of trouble found."""
    loop = Loop(getattr(jax_networks, network.maker)(), TAPS[row.rival])
    found: list[str] = []
    phases = run_phases(loop.step, _attached(loop, row, found), first, steady)
    sizes = [leaf.size for leaf in jax.tree.leaves(loop.params)]
    return {**phases, "parameters": sum(sizes), "tensors": len(sizes), "findings": found}


@contextmanager
def _attached(loop: Loop, row: Row, found: list[str]) -> Iterator[Step]:
    if row.watch is None:
        yield loop.step
        return
    with (
        tempfile.TemporaryDirectory() as directory,
        gradwatch.watch(run=directory, report=False, **row.watch) as watch,
    ):
        loop.train = watch(loop.train)
        yield loop.step
        found.extend(kinds_found(watch))
