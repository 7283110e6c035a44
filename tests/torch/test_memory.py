"""Recurrent networks that forget: the class is told at the first of 24 time steps, and asked for after the last."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradwatch
from gradwatch.findings import Finding

LENGTH, WIDTH, CLASSES = 24, 16, 4


class Reader(nn.Module):
    """An encoder of each time step, a recurrent cell unrolled by hand or the fused layer, and a head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(CLASSES, WIDTH)
        fused = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.cell = {"rnn": nn.RNNCell(WIDTH, WIDTH), "lstm": nn.LSTMCell(WIDTH, WIDTH), "fused": fused}[kind]
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns logits, shape [batch, classes], for inputs of shape [batch, time, classes]."""
        encoded = self.encoder(inputs)
        if isinstance(self.cell, nn.LSTM):
            last: Tensor = self.head(self.cell(encoded)[0][:, -1])
            return last
        state = None
        for t in range(LENGTH):
            state = self.cell(encoded[:, t], state)
        logits: Tensor = self.head(state[0] if isinstance(state, tuple) else state)
        return logits


def keep(model: Reader, *, memory: bool) -> None:
    """Sets what the cell keeps of its state in a step: nearly all of it, or less than a fifth."""
    with torch.no_grad():
        if isinstance(model.cell, nn.RNNCell):
            nn.init.orthogonal_(model.cell.weight_hh, 1.0 if memory else 0.2)
        else:
            bias = dict(model.cell.named_parameters())["bias_hh_l0" if isinstance(model.cell, nn.LSTM) else "bias_hh"]
            bias[WIDTH : 2 * WIDTH] += 3.0 if memory else -4.0


def train(model: Reader, run: Path, *, wanted: int = 0) -> list[Finding]:
    """Trains on the class that the time step of this number tells; returns the findings."""
    random = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    with gradwatch.watch(model, optimizer, run=run, report=False, on_finding=lambda _: None) as watch:
        for _ in range(90):
            classes = torch.randint(0, CLASSES, (64, LENGTH), generator=random)
            loss = functional.cross_entropy(model(functional.one_hot(classes, CLASSES).float()), classes[:, wanted])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
    return gradwatch.load(run).findings


@pytest.mark.parametrize("kind", ["rnn", "lstm", "fused"])
def test_a_memory_that_fades_is_named_while_nothing_is_learnt(kind: str, tmp_path: Path) -> None:
    """The cell is named although the gradients of its weights are of usual size: the last time steps keep them so."""
    keep(model := Reader(kind), memory=False)
    (finding,) = [found for found in train(model, tmp_path) if found.severity != "notice"]
    assert (finding.kind, finding.layer, finding.first_step) == ("vanishing", "cell", 0)
    assert "time steps" in finding.title


@pytest.mark.parametrize("kind", ["rnn", "lstm", "fused"])
def test_a_memory_that_lasts_is_left_in_peace(kind: str, tmp_path: Path) -> None:
    """The same network, whose gradient reaches the first time step."""
    keep(model := Reader(kind), memory=True)
    assert [found for found in train(model, tmp_path) if found.severity != "notice"] == []


def test_a_short_memory_that_is_enough_is_left_in_peace(tmp_path: Path) -> None:
    """The gradient fades over the time steps just the same, but the last one tells the class, and it is learnt."""
    keep(model := Reader("rnn"), memory=False)
    assert [found for found in train(model, tmp_path, wanted=LENGTH - 1) if found.severity != "notice"] == []


def test_rare_examples_with_large_errors_are_no_fading(tmp_path: Path) -> None:
    """Where the loss cannot fall and nearly all examples are solved, the spread comes from the loss itself."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    with gradwatch.watch(model, optimizer, run=tmp_path, report=False, on_finding=lambda _: None) as watch:
        for _ in range(90):
            outputs = model(torch.randn(128, 8))
            error = torch.randn(128, 2) * torch.where(torch.rand(128, 1) < 0.05, 1.0, 1e-6)
            loss = torch.mean((outputs - (outputs - error).detach()) ** 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
    assert all(finding.kind != "vanishing" for finding in gradwatch.load(tmp_path).findings)
