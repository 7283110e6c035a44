"""The slope that theory expects of the recorded weights, against numerical integration and against what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch_html import figures
from gradwatch_html.expected import DERIVATIVES, expected_slopes, mean_square_slope
from gradwatch_html.flow import flow, slopes
from tests.html.conftest import Sheet
from tests.html.reading import render

WIDTH, DEPTH, BATCH, SEEDS = 256, 12, 16, 4


def measured(model: nn.Module, inputs: Tensor, run: Path) -> tuple[float | None, float | None]:
    """Watches one step that changes nothing, and returns the fitted and the expected slope, in decades a layer."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradwatch.watch(model, optimizer, run=run, report=False, on_finding=lambda _: None):
        outputs = model(inputs)
        (outputs * torch.randn_like(outputs)).sum().backward()
        optimizer.step()
    recording = gradwatch.load(run).recording
    curves = flow(recording, {name: i for i, name in enumerate(recording.sites.layers)}, keep=[])
    assert curves is not None
    return slopes(curves)[0], expected_slopes(recording, curves)[0]


def chain(activation: Callable[[], nn.Module], scale: float, *, normalised: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        linear = nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.normal_(linear.weight, std=scale / math.sqrt(WIDTH))
        layers += [linear, *([nn.LayerNorm(WIDTH)] if normalised else []), activation()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, WIDTH, bias=False))


@pytest.mark.parametrize(("name", "module"), [(name, getattr(nn, name)()) for name in DERIVATIVES])
@pytest.mark.parametrize("variance", [0.01, 1.0, 9.0])
def test_the_mean_slope_is_that_of_the_frameworks_own_derivative(name: str, module: nn.Module, variance: float) -> None:
    """E[f'(z)^2] is the mean over a dense grid of torch's derivative, weighted by the normal density."""
    z = torch.linspace(-9, 9, 180_001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(module(math.sqrt(variance) * z).sum(), z)
    density = torch.exp(-(z.detach() ** 2) / 2)
    mean = float((slope**2 / variance * density).sum() / density.sum())
    assert mean_square_slope(DERIVATIVES[name], variance) == pytest.approx(mean, rel=0.01)


@pytest.mark.parametrize(
    ("activation", "scale", "normalised"),
    [
        (nn.Tanh, 0.8, False),
        (nn.Tanh, 2.0, False),
        (nn.ReLU, 1.0, False),
        (nn.Sigmoid, 1.0, False),
        (nn.ReLU, 1.0, True),
    ],
    ids=["tanh", "chaotic tanh", "relu", "sigmoid", "normalised"],
)
def test_a_plain_chain_has_the_expected_slope(
    activation: Callable[[], nn.Module], scale: float, normalised: bool, tmp_path: Path
) -> None:
    """What is expected of the weights is what is measured, within 0.03 decades a layer and three standard errors."""
    found = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = chain(activation, scale, normalised=normalised)
        found.append(measured(model, torch.randn(BATCH, WIDTH), tmp_path / str(seed)))
    fitted, expected = (np.array(part, dtype=np.float64) for part in zip(*found, strict=True))
    error = 3 * np.std(fitted, ddof=1) / math.sqrt(SEEDS)
    assert abs(fitted.mean() - expected.mean()) < 0.03 + error
    if activation is nn.ReLU and not normalised:
        # chi = scale^2 / 2, and the activations shrink by as much on their way forward.
        assert expected.mean() == pytest.approx(0.0, abs=0.01)


class Functional(nn.Module):
    """Linear layers between which no module stands."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))
        self.acts = nn.ModuleList(nn.Tanh() for _ in range(6))
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        """Joins each layer's activation to the stream."""
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = self.join(x, act(layer(x)))
        return x


@pytest.mark.parametrize(
    "model",
    [
        Functional(lambda x, branch: x + branch),
        Functional(lambda x, branch: x * branch),
        Functional(lambda _, branch: torch.relu(branch)),
        nn.Sequential(*(nn.Linear(16, 16) for _ in range(6))),
        nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16)),
        nn.Sequential(*(part for _ in range(6) for part in (nn.Linear(16, 16), nn.Softsign()))),
    ],
    ids=["residual", "gated", "functional", "no activation", "two layers", "unknown activation"],
)
def test_nothing_is_expected_of_what_is_no_plain_chain(model: nn.Module, tmp_path: Path) -> None:
    """Where the theory does not hold, or the run does not tell, there is no slope rather than a wrong one."""
    torch.manual_seed(0)
    assert measured(model, torch.randn(8, 16), tmp_path / "run")[1] is None


@pytest.mark.browser
def test_the_page_draws_what_theory_expects_beside_what_is_healthy(open_page: Sheet, tmp_path: Path) -> None:
    """Of sigmoids the legend and a third line give the expected slope, and a note says what it is."""
    torch.manual_seed(0)
    _, expected = measured(chain(nn.Sigmoid, 1.0), torch.randn(BATCH, WIDTH), tmp_path / "run")
    run = gradwatch.load(tmp_path / "run")
    assert figures.flow(run).data[-1].name == f"theory for these weights: {expected:+.2f}"
    page = open_page(render(run.recording))
    words = page.inner_text("#flow-legend")
    assert f"theory for these weights: +{expected:.2f} decades per layer" in words
    assert "healthy: flat" in words
    assert page.evaluate("document.getElementById('flow').data.filter(t => t.y.length === 2).length") == 3
    assert "mean-field theory" in page.inner_text("#flow-note")
