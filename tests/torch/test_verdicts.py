"""Verdicts on real trainings of scikit-learn's digits: faults are named, their healthy twins are left in peace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import gradwatch
from gradwatch.findings import Finding

Module = nn.Module
Optimizers = Callable[[Iterator[nn.Parameter], float], torch.optim.Optimizer]
Watched = Callable[..., list[Finding]]
BATCH = 64

OPTIMIZERS: dict[str, Optimizers] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, rate: torch.optim.SGD(parameters, rate, momentum=0.9),
    "adam": torch.optim.Adam,
}


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    inputs = torch.tensor(data.data, dtype=torch.float32)
    return (inputs - inputs.mean()) / inputs.std(), torch.tensor(data.target)


@pytest.fixture
def watched(digits: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> Watched:
    """Trains under watch and returns the findings of the run's files, after comparing them with the live ones."""

    def run(
        model: Module,
        optimizer: str = "sgd",
        rate: float = 0.1,
        *,
        steps: int = 60,
        before: Callable[[int], None] = lambda _: None,
        loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = functional.cross_entropy,
        log: bool = True,
    ) -> list[Finding]:
        random = torch.Generator().manual_seed(0)
        step_by = OPTIMIZERS[optimizer](model.parameters(), rate)
        directory = tmp_path / "run"
        with gradwatch.watch(model, step_by, run=directory, report=False, on_finding=lambda _: None) as watch:
            for step in range(steps):
                before(step)
                chosen = torch.randint(0, len(digits[0]), (BATCH,), generator=random)
                step_by.zero_grad()
                loss = loss_of(model(digits[0][chosen]), digits[1][chosen])
                loss.backward()
                step_by.step()
                if log:
                    watch.log(loss=loss)
        found = gradwatch.load(directory).findings
        assert list(found) == list(watch.findings)
        return list(found)

    return run


def plain(
    depth: int, activation: Callable[[], Module], *, norm: Callable[[int], Module] | None = None
) -> nn.Sequential:
    """Returns a chain of 64-wide layers with 10 outputs, initialised as the framework does by itself."""
    parts: list[Module] = []
    for _ in range(depth - 1):
        parts += [nn.Linear(64, 64), *([norm(64)] if norm else []), activation()]
    return nn.Sequential(*parts, nn.Linear(64, 10))


def he(model: nn.Sequential) -> nn.Sequential:
    """Initialises every linear layer with variance 2 / fan-in and no bias."""
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return model


def glorot(model: nn.Sequential) -> nn.Sequential:
    """Initialises every linear layer with variance 2 / (fan-in + fan-out) and no bias."""
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def serious(findings: list[Finding]) -> list[tuple[str, str | None]]:
    return [(finding.kind, finding.layer) for finding in findings if finding.severity != "notice"]


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.1), ("adam", 1e-3)])
@pytest.mark.parametrize("log", [True, False])
def test_deep_sigmoid_net_vanishes(watched: Watched, optimizer: str, rate: float, log: bool) -> None:
    """Twelve sigmoid layers: the first layers hardly learn, and the advice names activation and initialisation."""
    torch.manual_seed(1)
    findings = watched(plain(12, nn.Sigmoid), optimizer, rate, log=log)
    assert serious(findings) == [("vanishing", "0")]
    assert findings[0].first_step == 0
    assert "Sigmoid" in findings[0].advice[0]
    assert "initialisation" in findings[0].advice[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("repaired", ["relu", "tanh", "normalised"])
def test_repaired_deep_net_is_healthy(watched: Watched, optimizer: str, repaired: str) -> None:
    """The same depth with a fitting activation and initialisation, or with normalisation, has no serious finding."""
    torch.manual_seed(2)
    model = {
        "relu": lambda: he(plain(12, nn.ReLU)),
        "tanh": lambda: glorot(plain(12, nn.Tanh)),
        "normalised": lambda: plain(12, nn.Sigmoid, norm=nn.BatchNorm1d),
    }[repaired]()
    assert serious(watched(model, optimizer, {"sgd": 0.05, "adam": 1e-3}[optimizer])) == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("scaled", range(1, 7))
def test_scaled_weight_explodes(watched: Watched, scaled: int, seed: int) -> None:
    """One hidden weight times 30 in a He-initialised net: that layer explodes, and the overflow is its symptom."""
    torch.manual_seed(10 * seed + scaled)
    model = he(plain(8, nn.ReLU))
    with torch.no_grad():
        linear = model[2 * scaled]
        assert isinstance(linear, nn.Linear)
        linear.weight *= 30
    findings = watched(model, rate=0.05, steps=20)
    assert [(f.kind, f.severity, f.layer) for f in findings] == [("exploding", "critical", str(2 * scaled))]
    assert "nonfinite" in {symptom.kind for symptom in findings[0].symptoms}


@pytest.mark.parametrize("scaled", [2, 4])
@pytest.mark.parametrize("onset", [20, 70])
def test_weight_that_is_scaled_later_explodes(watched: Watched, scaled: int, onset: int) -> None:
    """The same scaling in the middle of training names the layer and the step, at steps without activations too."""
    torch.manual_seed(onset + scaled)
    model = he(plain(8, nn.ReLU))

    def scale(step: int) -> None:
        linear = model[2 * scaled]
        assert isinstance(linear, nn.Linear)
        if step == onset:
            with torch.no_grad():
                linear.weight *= 30

    findings = watched(model, rate=0.05, steps=onset + 12, before=scale)
    assert [(f.kind, f.layer, f.first_step) for f in findings] == [("exploding", str(2 * scaled), onset)]


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm])
def test_scaled_weight_before_a_normalisation_is_harmless(watched: Watched, norm: Callable[[int], Module]) -> None:
    """The same scaling in front of a normalisation layer is no serious finding."""
    torch.manual_seed(3)
    model = he(plain(8, nn.ReLU, norm=norm))
    with torch.no_grad():
        linear = model[6]
        assert isinstance(linear, nn.Linear)
        linear.weight *= 30
    assert serious(watched(model, rate=0.05)) == []


class Cut(nn.Module):
    """Four hidden layers, with the gradient cut after one of them."""

    def __init__(self, after: int, how: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(64, 64) for _ in range(4)])
        self.head = nn.Linear(64, 10)
        self.after, self.how = after, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, layer in enumerate(self.hidden):
            x = functional.relu(layer(x))
            x = self.how(x) if i == self.after else x
        out: torch.Tensor = self.head(x)
        return out


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("how", [torch.detach, torch.round])
def test_cut_graph_is_disconnected(watched: Watched, after: int, how: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """A detach or a rounding in the middle disconnects the layers behind it, the nearest one first."""
    torch.manual_seed(4)
    findings = watched(Cut(after, how), steps=12)
    assert serious(findings) == [("disconnected", f"hidden.{after}")]
    assert findings[0].layers[1:] == tuple(f"hidden.{i}" for i in reversed(range(after)))


class Fragile(nn.Module):
    """Takes the logarithm of something that can become 0."""

    def __init__(self) -> None:
        super().__init__()
        self.margin = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(torch.relu(x) + self.margin)


@pytest.mark.parametrize("onset", [7, 20, 31])
def test_logarithm_of_zero_is_found_at_its_step(watched: Watched, onset: int) -> None:
    """A logarithm of 0 inside a module is named with the exact step, at steps with and without activations."""
    torch.manual_seed(5)
    fragile = Fragile()
    model = nn.Sequential(nn.Linear(64, 64), fragile, nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def spoil(step: int) -> None:
        fragile.margin = 0.0 if step == onset else 1.0

    findings = watched(model, rate=0.05, steps=onset + 6, before=spoil)
    assert serious(findings) == [("nonfinite", "1")]
    assert findings[0].first_step == onset


def test_loss_that_fails_by_itself_blames_no_layer(watched: Watched) -> None:
    """A logarithm of 0 in the loss has no culprit layer; the cause says which layer's outputs were still finite."""
    torch.manual_seed(6)

    def loss_of(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.nll_loss(torch.log(outputs.softmax(dim=1) * 0), targets)

    (finding,) = watched(he(plain(3, nn.ReLU)), steps=8, loss_of=loss_of)
    assert (finding.kind, finding.layer, finding.first_step) == ("nonfinite", None, 0)
    assert finding.cause.startswith("The loss became inf from finite outputs of layer 4")


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 30.0), ("momentum", 5.0), ("adam", 1.0)])
def test_reckless_learning_rate_makes_updates_too_large(watched: Watched, optimizer: str, rate: float) -> None:
    """A learning rate hundreds of times too high is one finding, with all its damage as symptoms."""
    torch.manual_seed(7)
    findings = watched(plain(4, nn.ReLU), optimizer, rate)
    assert [finding.kind for finding in findings] == ["update-too-large"]
    assert "learning rate" in findings[0].advice[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_negligible_learning_rate_makes_updates_too_small(watched: Watched, optimizer: str) -> None:
    """A learning rate of 1e-9 is found within 30 steps."""
    torch.manual_seed(8)
    findings = watched(he(plain(4, nn.ReLU)), optimizer, 1e-9, steps=30)
    assert serious(findings) == [("update-too-small", None)]


def convolutional(norm: bool) -> Module:
    def part(inside: int, outside: int) -> list[Module]:
        convolution = nn.Conv2d(inside, outside, 3, padding=1)
        return [convolution, *([nn.BatchNorm2d(outside)] if norm else []), nn.ReLU()]

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *part(1, 16), nn.MaxPool2d(2), *part(16, 32), *head)


class Recurrent(nn.Module):
    """Reads the rows of a digit as a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(8, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.cell(x.unflatten(1, (8, 8)))[0][:, -1])
        return out


class Attentive(nn.Module):
    """A small transformer over the rows of a digit."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.encoder(self.embed(x.unflatten(1, (8, 8)))).mean(dim=1))
        return out


HEALTHY: dict[str, Callable[[], Module]] = {
    "shallow": lambda: plain(2, nn.ReLU),
    "tanh": lambda: plain(3, nn.Tanh),
    "gelu": lambda: plain(4, nn.GELU),
    "deep": lambda: he(plain(16, nn.ReLU)),
    "convolutional": lambda: convolutional(norm=False),
    "batch norm": lambda: convolutional(norm=True),
    "recurrent": Recurrent,
    "pre-norm": lambda: Attentive(norm_first=True),
    "post-norm": lambda: Attentive(norm_first=False),
}


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.05), ("momentum", 1e-3), ("adam", 3e-3)])
def test_healthy_nets_are_left_in_peace(watched: Watched, name: str, optimizer: str, rate: float) -> None:
    """Common small nets at ordinary learning rates have no serious finding."""
    torch.manual_seed(9)
    assert serious(watched(HEALTHY[name](), optimizer, rate, steps=80)) == []
