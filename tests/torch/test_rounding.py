"""Weights kept in 16 bits: steps that round to nothing are told, and those that arrive are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import gradwatch
from gradwatch.findings import Finding
from gradwatch.rules.rounding import LOST

Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


def gentle(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.004)


def adaptive(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=2e-3)


def train(
    run: Path, dtype: torch.dtype, optimizer: Optimizer, *, autocast: bool = False
) -> tuple[list[Finding], float]:
    """Returns the findings, and the share of weight entries that a last step by hand leaves where they are."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4)).to(dtype)
    stepping = optimizer(model)
    inputs = torch.randn(512, 16)
    labels = (inputs[:, 0] > 0).long() + 2 * (inputs[:, 1] > 0).long()

    def backward() -> torch.Tensor:
        rows = torch.randint(0, 512, (64,))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = functional.cross_entropy(model(inputs[rows].to(dtype)).float(), labels[rows])
        stepping.zero_grad()
        loss.backward()
        return loss

    with gradwatch.watch(model, stepping, run=run, report=False) as watching:
        for _ in range(100):
            watching.log(loss=backward())
            stepping.step()
    backward()
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    before = [weight.detach().clone() for weight in weights]
    pushed = [weight.grad != 0 for weight in weights if weight.grad is not None]
    stepping.step()
    stayed = [weight.eq(old)[mask] for weight, old, mask in zip(weights, before, pushed, strict=True)]
    return gradwatch.load(run).findings, float(torch.cat(stayed).float().mean())


def test_steps_that_16_bit_weights_round_away_are_told(tmp_path: Path) -> None:
    """Where most weight entries stay where they are, the finding says so, with the share that a step by hand shows."""
    findings, stayed = train(tmp_path / "run", torch.bfloat16, gentle)
    assert stayed > LOST
    assert [(finding.kind, finding.severity) for finding in findings] == [("update-too-small", "warning")]
    assert findings[0].first_step == 0
    assert "16-bit" in findings[0].title
    told = float(findings[0].evidence[0].partition("%")[0]) / 100
    assert told == pytest.approx(stayed, abs=0.06)


@pytest.mark.parametrize(
    ("dtype", "optimizer", "autocast"),
    [(torch.float32, gentle, False), (torch.float32, gentle, True), (torch.bfloat16, adaptive, False)],
    ids=["float32", "autocast", "steps that arrive"],
)
def test_steps_that_arrive_are_not_told(
    tmp_path: Path, dtype: torch.dtype, optimizer: Optimizer, autocast: bool
) -> None:
    """The same training says nothing with float32 weights, computed in bfloat16 or not, and with larger steps."""
    findings, stayed = train(tmp_path / "run", dtype, optimizer, autocast=autocast)
    assert stayed < LOST
    assert findings == []
