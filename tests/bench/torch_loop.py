"""A training loop of torch, bare, watched, or with a rival in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

import gradwatch
from tests.bench import torch_networks, torch_rivals
from tests.bench.clock import Step, kinds_found, run_phases
from tests.bench.networks import Network
from tests.bench.rows import Row


class Loop:
    """A network with AdamW; ``step`` trains once on one thread."""

    def __init__(self, model: nn.Module, loss: torch_networks.Loss) -> None:
        self.model, self.loss = model, loss
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.after: torch_rivals.After = torch_rivals.nothing
        self._steps = 0

    def step(self) -> None:
        loss = self.loss()
        loss.backward()
        self.after(self._steps, loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._steps += 1


def make(network: Network) -> Loop:
    """Returns the loop of a network; torch has one thread from now on."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Loop(*getattr(torch_networks, network.maker)())


def measure(network: Network, row: Row, first: int, steady: int) -> dict[str, Any]:
    """Trains; returns the phases of ``clock.run_phases``, the network's size and the kinds of trouble found."""
    loop = make(network)
    found: list[str] = []
    phases = run_phases(loop.step, _attached(loop, row, found), first, steady)
    sizes = [parameter.numel() for parameter in loop.model.parameters()]
    return {**phases, "parameters": sum(sizes), "tensors": len(sizes), "findings": found}


@contextmanager
def _attached(loop: Loop, row: Row, found: list[str]) -> Iterator[Step]:
    with tempfile.TemporaryDirectory() as directory:
        if row.rival:
            with torch_rivals.attach(row.rival, loop.model, directory, dict(row.options)) as loop.after:
                yield loop.step
        elif row.watch is not None:
            with gradwatch.watch(loop.model, loop.optimizer, run=directory, report=False, **row.watch) as watch:
                yield loop.step
                found.extend(kinds_found(watch))
        else:
            yield loop.step
