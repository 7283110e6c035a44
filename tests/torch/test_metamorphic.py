"""What must change nothing changes nothing: the unit of the loss, the names of layers, how a batch is cut up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradwatch
from gradwatch.findings import Finding
from gradwatch.run import Run

STEPS = 100
GAIN = 400.0
"""Standard deviation of the one weight that makes signals grow; 0.25 is that of He."""


class Detached(nn.Module):
    """Cuts the graph."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


def deep_sigmoid() -> nn.Module:
    layers = [module for _ in range(8) for module in (nn.Linear(16, 16), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(16, 4))


def cut() -> nn.Module:
    return nn.Sequential(
        nn.Linear(16, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        Detached(),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )


def growing() -> nn.Module:
    layers = [module for _ in range(4) for module in (nn.Linear(32, 32), nn.ReLU())]
    with torch.no_grad():
        nn.init.normal_(layers[2].get_parameter("weight"), std=GAIN)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), *layers, nn.Linear(32, 4))


def sound() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


MODELS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "vanishing": (deep_sigmoid, {"vanishing"}),
    "disconnected": (cut, {"disconnected"}),
    "exploding": (growing, {"exploding"}),
    "healthy": (sound, set()),
}
every_model = pytest.mark.parametrize("name", list(MODELS))


def train(
    run: Path,
    model: nn.Module,
    *,
    scale: float = 1.0,
    pieces: int = 1,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Run:
    """Trains by gradient descent on the same batches; the loss times ``scale``, the rate divided by it."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(512, 16, generator=generator)
    labels = (inputs[:, 0] > 0).long() + 2 * (inputs[:, 1] > 0).long()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.02 / scale)
    with gradwatch.watch(model, optimizer, run=run, report=False) as watching:
        for _ in range(STEPS):
            rows = torch.randint(0, 512, (32,), generator=generator)
            optimizer.zero_grad()
            total = 0.0
            for part in rows.chunk(pieces):
                loss = functional.cross_entropy((forward or model)(inputs[part]), labels[part])
                (loss * scale / pieces).backward()
                total += loss.item() / pieces
            watching.log(loss=total)
            optimizer.step()
    return gradwatch.load(run)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def told(findings: list[Finding], rename: Callable[[str], str] = str) -> list[Finding]:
    """Returns what is claimed of which layers since when, without the sentences, which hold measured numbers."""
    return [
        replace(
            finding,
            layer=None if finding.layer is None else rename(finding.layer),
            layers=tuple(map(rename, finding.layers)),
            title="",
            cause="",
            check="",
            evidence=(),
            advice=(),
            symptoms=tuple(told(list(finding.symptoms), rename)),
        )
        for finding in findings
    ]


def norms(run: Run) -> Tensor:
    return torch.tensor(run.frame("gradient").l2.to_numpy())


@every_model
def test_the_unit_of_the_loss_does_not_matter(name: str, tmp_path: Path) -> None:
    """A loss 1,024 times as large has gradients 1,024 times as large, and the same findings."""
    build, kinds = MODELS[name]
    plain = train(tmp_path / "plain", seeded(build))
    scaled = train(tmp_path / "scaled", seeded(build), scale=1024.0)
    assert {finding.kind for finding in plain.findings if finding.severity != "notice"} == kinds
    torch.testing.assert_close(norms(scaled), 1024 * norms(plain), equal_nan=True)
    assert told(scaled.findings) == told(plain.findings)


@every_model
def test_names_do_not_matter(name: str, tmp_path: Path) -> None:
    """Under names whose alphabet runs backwards a network has the same findings, in the renamed layers."""
    build, _ = MODELS[name]
    plain = train(tmp_path / "plain", seeded(build))
    model = seeded(build)
    names = {str(i): f"part{99 - i}" for i in range(len(list(model.children())))}
    other = nn.Module()
    for at, child in model.named_children():
        other.add_module(names[at], child)
    renamed = train(tmp_path / "renamed", other, forward=model)
    assert told(renamed.findings) == told(plain.findings, lambda layer: names.get(layer, layer))


@every_model
def test_accumulation_does_not_matter(name: str, tmp_path: Path) -> None:
    """A batch whose gradients are accumulated over two halves has the findings of the whole batch."""
    build, _ = MODELS[name]
    whole = train(tmp_path / "whole", seeded(build))
    halves = train(tmp_path / "halves", seeded(build), pieces=2)
    torch.testing.assert_close(norms(halves), norms(whole), rtol=1e-2, atol=1e-12, equal_nan=True)
    assert told(halves.findings) == told(whole.findings)


@every_model
def test_a_frozen_module_that_nobody_calls_does_not_matter(name: str, tmp_path: Path) -> None:
    """A frozen module beside the network, never called, adds no warning and moves no finding."""
    build, _ = MODELS[name]
    plain = train(tmp_path / "plain", seeded(build))
    model = seeded(build)
    whole = nn.Module()
    for at, child in model.named_children():
        whole.add_module(at, child)
    whole.add_module("spare", nn.Linear(16, 16).requires_grad_(requires_grad=False))
    beside = train(tmp_path / "beside", whole, forward=model)
    assert told([finding for finding in beside.findings if finding.layer != "spare"]) == told(plain.findings)
    assert all(finding.severity == "notice" for finding in beside.findings if "spare" in finding.layers)
