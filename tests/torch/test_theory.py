"""What is measured along depth and through time is what mean-field theory says it must be."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.analyze import Fold
from gradwatch.rules.depth import trend
from gradwatch.rules.profile import gradient_profile
from gradwatch.rules.view import StepView

WIDTH, DEPTH, SEEDS, BATCH = 512, 24, 20, 8
FINITE = 2.0 / WIDTH
"""Decades a layer by which a net of finite width may differ: the mean of a logarithm lies below the logarithm of the
mean by terms of order 1 / width (Hanin and Nica 2018)."""

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


def _mean(function: Callable[[np.ndarray], np.ndarray], variance: float) -> float:
    """Returns E f(sqrt(q) z) over a standard normal z, by Gauss-Hermite quadrature."""
    return float(np.sum(_WEIGHTS * function(math.sqrt(variance) * _NODES)) / math.sqrt(2 * math.pi))


def _tanh_theory(scale: float) -> tuple[float, float]:
    """Returns the fixed point q* of the pre-activations' variance, and chi there (Schoenholz et al. 2017, eq. 3, 5)."""
    q = 1.0
    for _ in range(4000):
        q = scale**2 * _mean(lambda x: np.tanh(x) ** 2, q)
    return q, scale**2 * _mean(lambda x: 1 / np.cosh(x) ** 4, q)


def _slope(layers: list[nn.Module], inputs: Tensor, run: Path) -> float:
    """Returns how many decades a layer the gradient falls on its way back, as gradwatch's rules see it."""
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradwatch.watch(model, optimizer, run=run, report=False, on_finding=lambda _: None):
        outputs = model(inputs)
        (outputs * torch.randn_like(outputs)).sum().backward()
        optimizer.step()
    recording = gradwatch.load(run).recording
    fold = Fold(recording.sites)
    record = next(iter(recording.records(0)))
    fold.observe(record)
    profile = gradient_profile(StepView(record, fold.history.current_layout()), fold.history, None)
    assert profile is not None
    assert profile.measured == "gradient at the layers' outputs"
    return trend(profile.size[:-1]).slope


@pytest.mark.parametrize(
    ("activation", "scale"), [("tanh", 0.8), ("tanh", 1.3), ("tanh", 2.0), ("relu", 1.0), ("relu", 1.6)]
)
def test_the_slope_along_depth_is_that_of_mean_field_theory(activation: str, scale: float, tmp_path: Path) -> None:
    """The measured slope lies within 3 standard errors of -1/2 log10 chi, and a term of order 1 / width."""
    q, chi = _tanh_theory(scale) if activation == "tanh" else (1.0, scale**2 / 2)
    function = nn.Tanh if activation == "tanh" else nn.ReLU
    slopes = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for _ in range(DEPTH):
            linear = nn.Linear(WIDTH, WIDTH, bias=False)
            nn.init.normal_(linear.weight, std=scale / math.sqrt(WIDTH))
            layers += [linear, function()]
        inputs = torch.randn(BATCH, WIDTH)
        inputs *= math.sqrt(q) / scale / inputs.square().mean().sqrt()
        slopes.append(_slope(layers, inputs, tmp_path / str(seed)))
    error = 3 * np.std(slopes, ddof=1) / math.sqrt(SEEDS)
    assert abs(np.mean(slopes) + 0.5 * math.log10(chi)) <= error + FINITE


def _memory(radius: float, run: Path) -> float:
    """Returns the slope through the steps of a linear recurrent net with an orthogonal matrix times ``radius``."""
    torch.manual_seed(0)
    recurrent = nn.init.orthogonal_(torch.empty(64, 64), gain=radius)
    # A layer for each step of time, all of one matrix: tied weights would be one layer.
    steps: list[nn.Module] = [nn.Linear(64, 64, bias=False) for _ in range(30)]
    for step in steps:
        assert isinstance(step, nn.Linear)
        step.weight.data.copy_(recurrent)
    return _slope(steps, torch.randn(8, 64), run)


def test_memory_fades_below_a_spectral_radius_of_one_and_grows_above_it(tmp_path: Path) -> None:
    """The slope of log norm(delta_t) through time is log10 of the radius, and changes its sign at 1 within 0.02."""
    for radius in (0.9, 0.98, 1.0, 1.02, 1.1):
        slope = _memory(radius, tmp_path / str(radius))
        assert slope == pytest.approx(-math.log10(radius), abs=2e-4)
    assert _memory(0.98, tmp_path / "below") > 0 > _memory(1.02, tmp_path / "above")
