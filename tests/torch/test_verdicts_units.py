"""Verdicts on real trainings whose units die or saturate, and on float16 that loses gradients, each with its cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import gradwatch
from gradwatch.findings import Finding

Hook = Callable[[nn.Module, int], None]


def trained(
    model: nn.Module,
    folder: Path,
    *,
    steps: int = 60,
    rate: float = 0.05,
    adam: bool = False,
    before: Hook | None = None,
    half: bool = False,
    scaled: bool = False,
    weight: float = 1.0,
) -> list[Finding]:
    """Trains on digits under watch and returns the serious findings."""
    data = load_digits()
    inputs = torch.tensor(data.data, dtype=torch.float32)
    inputs, targets = (inputs - inputs.mean()) / inputs.std(), torch.tensor(data.target)
    random = torch.Generator().manual_seed(0)
    kind = torch.optim.Adam if adam else torch.optim.SGD
    optimizer = kind(model.parameters(), rate)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    with gradwatch.watch(model, optimizer, run=folder / "run", report=False, on_finding=lambda _: None) as watch:
        for step in range(steps):
            if before is not None:
                before(model, step)
            chosen = torch.randint(0, len(inputs), (64,), generator=random)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16, enabled=half):
                outputs = model(inputs[chosen])
            loss = functional.cross_entropy(outputs.float(), targets[chosen]) * weight
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            watch.log(loss=loss)
    return [finding for finding in gradwatch.load(folder / "run").findings if finding.severity != "notice"]


def chain(activation: Callable[[torch.Tensor], torch.Tensor] | None, depth: int = 4) -> nn.Module:
    """Returns a net whose nonlinearity is a module (ReLU, None) or a function between the layers."""
    if activation is None:
        hidden = [part for _ in range(depth - 1) for part in (nn.Linear(64, 64), nn.ReLU())]
        return nn.Sequential(*hidden, nn.Linear(64, 10))
    return Between(activation, depth)


class Between(nn.Module):
    """Applies a function between its layers."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], depth: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(64, 64) for _ in range(depth - 1)])
        self.head = nn.Linear(64, 10)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.hidden:
            x = self.function(layer(x))
        out: torch.Tensor = self.head(x)
        return out


def linears(model: nn.Module) -> list[nn.Linear]:
    return [part for part in model.modules() if isinstance(part, nn.Linear)]


def shift(layer: int, by: float, at: int = 0) -> Hook:
    """Adds to the biases of a layer before a step."""

    def change(model: nn.Module, step: int) -> None:
        if step == at:
            linears(model)[layer].bias.data += by

    return change


@pytest.mark.parametrize("function", [None, torch.relu])
@pytest.mark.parametrize("onset", [0, 26])
def test_low_biases_kill_a_layer(
    tmp_path: Path, function: Callable[[torch.Tensor], torch.Tensor] | None, onset: int
) -> None:
    """A layer whose biases fall far below 0 is named with the step, and without that the net is healthy."""
    (finding,) = trained(chain(function), tmp_path / "sick", before=shift(1, -40.0, onset))
    layer = "2" if function is None else "hidden.1"
    assert (finding.kind, finding.severity, finding.layer) == ("dead-units", "critical", layer)
    assert finding.first_step == onset
    assert trained(chain(function), tmp_path / "cured") == []


def test_a_step_that_kills_most_units_is_found(tmp_path: Path) -> None:
    """Three quarters of a layer's units whose biases fall are found, though the layer still passes a gradient."""

    def kill(model: nn.Module, step: int) -> None:
        if step == 12:
            linears(model)[1].bias.data[:50] -= 30.0

    (finding,) = trained(chain(torch.relu), tmp_path, rate=1e-3, adam=True, before=kill)
    assert (finding.kind, finding.severity, finding.layer) == ("dead-units", "warning", "hidden.1")
    assert abs((finding.first_step or 0) - 12) <= 3


@pytest.mark.parametrize("factor", [40.0, 1.0])
def test_large_weights_saturate_a_layer(tmp_path: Path, factor: float) -> None:
    """Weights 40 times too large under tanh are named; those of the usual size are not."""
    model = chain(torch.tanh)
    linears(model)[1].weight.data *= factor
    found = [(finding.kind, finding.layer) for finding in trained(model, tmp_path)]
    assert found == ([("saturated", "hidden.1")] if factor > 1 else [])


@pytest.mark.parametrize("scaled", [False, True])
def test_float16_without_a_scaler_underflows(tmp_path: Path, scaled: bool) -> None:
    """A loss of 1e-5 under float16 loses its gradients unless a scaler brings them into the range."""
    model = chain(torch.relu)
    findings = trained(model, tmp_path, rate=1e-3, adam=True, half=True, scaled=scaled, weight=1e-5)
    assert [finding.kind for finding in findings] == ([] if scaled else ["underflow"])


def test_top_k_leaves_units_alive(tmp_path: Path) -> None:
    """Units that top-k leaves out most of the time are not dead."""

    def strongest(h: torch.Tensor) -> torch.Tensor:
        h = torch.relu(h)
        return h * (h >= h.topk(4, dim=-1).values[:, -1:])

    found = trained(Between(strongest, 3), tmp_path, rate=1e-3, adam=True)
    assert "dead-units" not in [finding.kind for finding in found]
