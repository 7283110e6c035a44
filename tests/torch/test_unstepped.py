"""Mistakes of the loop by which the optimizer never reaches the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.findings import Finding

STEPS = 60


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, run: Path, step: Callable[[], object] = lambda: None
) -> list[Finding]:
    """Trains on sums of random numbers and returns the findings."""
    with gradwatch.watch(model, optimizer, run=run, report=False) as watch:
        for _ in range(STEPS):
            inputs = torch.randn(32, 8)
            loss = torch.mean((model(inputs) - inputs.sum(1, keepdim=True)) ** 2)
            model.zero_grad()
            loss.backward()
            step()
            watch.log(loss=loss)
    return gradwatch.load(run).findings


def test_an_optimizer_that_never_steps_leaves_a_run_that_says_so(tmp_path: Path) -> None:
    """Gradients that are cleared unused count as attempted steps; with the step in the loop there is no finding."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    (finding,) = train(model, optimizer, tmp_path / "sick")
    assert (finding.kind, finding.severity, finding.layer, finding.first_step) == ("frozen", "critical", None, 0)
    assert "step" in finding.advice[0]
    assert train(model, optimizer, tmp_path / "cured", optimizer.step) == []


def test_probing_a_model_before_training_is_no_step(tmp_path: Path) -> None:
    """A few gradients that are thrown away before the first step do not appear in the run."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with gradwatch.watch(model, optimizer, run=tmp_path, report=False):
        for i in range(14):
            model(torch.randn(4, 8)).sum().backward()
            if i >= 8:
                optimizer.step()
            optimizer.zero_grad()
    frame = gradwatch.load(tmp_path).frame("gradient")
    assert sorted(frame["step"].unique()) == list(range(6))


def test_an_optimizer_over_a_copy_is_named(tmp_path: Path) -> None:
    """None of the model's parameters is held by the optimizer that steps."""
    model = network()
    optimizer = torch.optim.SGD(copy.deepcopy(model).parameters(), 0.01)
    (finding,) = train(model, optimizer, tmp_path, optimizer.step)
    assert (finding.kind, finding.severity, finding.layer) == ("frozen", "critical", None)
    assert "copy" in finding.cause


@pytest.mark.parametrize(("layer", "severity"), [("2", "warning"), ("0", "notice")])
def test_a_layer_left_out_of_the_optimizer_is_named(layer: str, severity: str, tmp_path: Path) -> None:
    """A layer in the middle by mistake, perhaps; the layer next to the input perhaps on purpose."""
    model = network()
    held = [p for name, p in model.named_parameters() if not name.startswith(layer)]
    (finding,) = train(model, optimizer := torch.optim.Adam(held, 1e-3), tmp_path, optimizer.step)
    assert (finding.kind, finding.severity, finding.layer) == ("frozen", severity, layer)
    assert "No optimizer holds" in finding.cause


def test_what_another_optimizer_trains_is_not_frozen(tmp_path: Path) -> None:
    """A layer in an optimizer that is not watched changes between the steps of the one that is."""
    model = network()
    held = [p for name, p in model.named_parameters() if not name.startswith("2")]
    other = torch.optim.Adam(model[2].parameters(), 1e-3)
    optimizer = torch.optim.Adam(held, 1e-3)

    def both() -> None:
        optimizer.step()
        other.step()

    assert train(model, optimizer, tmp_path, both) == []


def test_a_layer_that_asks_for_no_gradient_in_the_middle_is_named(tmp_path: Path) -> None:
    """A gradient passes it, and nothing of it changes; a frozen layer next to the input is what people mean."""
    for layer, found in ((2, ["frozen"]), (0, [])):
        model = network()
        model[layer].requires_grad_(False)
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
        findings = train(model, optimizer, tmp_path / str(layer), optimizer.step)
        assert [finding.kind for finding in findings if finding.severity == "warning"] == found
        assert all(finding.layer == "2" for finding in findings)


def test_a_copy_that_no_gradient_passes_is_not_meant(tmp_path: Path) -> None:
    """A target network, as of Q-learning, asks for no gradient, and none passes it."""
    online, target = network(), network().requires_grad_(False)
    model = nn.ModuleDict({"online": online, "target": target})
    optimizer = torch.optim.Adam(online.parameters(), 1e-3)
    with gradwatch.watch(model, optimizer, run=tmp_path, report=False) as watch:
        for _ in range(STEPS):
            inputs = torch.randn(32, 8)
            with torch.no_grad():
                wanted = target(inputs) + 1
            loss = torch.mean((online(inputs) - wanted) ** 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
    assert gradwatch.load(tmp_path).findings == []
