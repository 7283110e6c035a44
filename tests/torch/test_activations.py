"""Activations and their gradients against values kept by hand, where hooks usually go wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.torch.capturing import Captured, capture

pytestmark = pytest.mark.usefixtures("reading")


def norm(tensor: Tensor) -> float:
    return float(tensor.detach().double().norm())


def train_step(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def names(captured: Captured, signal: str) -> set[str]:
    panel = captured.recording.panel(signal)
    assert panel is not None
    return {captured.session.sites[int(i)].name for i in panel.sites}


class Kept(nn.Module):
    """Keeps every intermediate tensor and its gradient: the oracle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Linear(8, 8)
        self.third = nn.Linear(8, 2)
        self.kept: dict[str, float] = {}
        self.tensors: dict[str, Tensor] = {}

    def keep(self, name: str, tensor: Tensor) -> Tensor:
        self.kept[name] = norm(tensor)
        tensor.retain_grad()
        self.tensors[name] = tensor
        return tensor

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        self.kept["first"] = norm(h)
        h = self.keep("act", self.act(h))
        h = self.keep("second", self.second(h))
        h = self.keep("third:input", functional.relu(h))
        return self.keep("third", self.third(h))


def test_outputs_and_inputs_match_values_kept_by_hand() -> None:
    """Outputs are read before an in-place operation changes them; a functional nonlinearity shows as the next input."""
    model = Kept()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with capture(model, optimizer) as captured:
        train_step(model, torch.randn(16, 6), optimizer)
    for name, truth in model.kept.items():
        assert captured.series("activation", name, "l2") == pytest.approx([truth], rel=1e-6), name
    for name, tensor in model.tensors.items():
        assert tensor.grad is not None
        found = captured.series("activation_gradient", name, "l2")
        assert found == pytest.approx([norm(tensor.grad)], rel=1e-6), name
    assert names(captured, "activation") == {*model.kept, "first:input"}


def test_gradient_at_an_output_that_is_changed_in_place() -> None:
    """The gradient at a layer's output is that of its own values, not of what an in-place operation made of them."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 1)
    model = nn.Sequential(first, nn.ReLU(inplace=True), second)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(8, 4)
    with capture(model, optimizer) as captured:
        train_step(model, x, optimizer)
    out = first(x).detach().requires_grad_()
    second(functional.relu(out)).square().mean().backward()
    assert out.grad is not None
    assert captured.series("activation_gradient", "0", "l2") == pytest.approx([norm(out.grad)], rel=1e-6)


def test_several_passes_of_a_step_merge() -> None:
    """The passes of accumulated micro-batches count as one larger batch."""
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    parts = [torch.randn(5, 4), torch.randn(3, 4)]
    with capture(model, optimizer) as captured:
        for part in parts:
            model(part).sum().backward()
        optimizer.step()
    whole = model(torch.cat(parts))
    assert captured.series("activation", "Linear", "l2") == pytest.approx([norm(whole)], rel=1e-6)
    assert captured.series("activation", "Linear", "n") == [32]
    assert captured.series("activation_gradient", "Linear", "n") == [32]


def test_evaluation_between_steps_is_not_recorded() -> None:
    """Passes without gradients leave no rows."""
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(5, 4)
    with capture(model, optimizer) as captured:
        with torch.no_grad():
            model(1000 * x)
        train_step(model, x, optimizer)
        with torch.no_grad():
            model(1000 * x)
        train_step(model, x, optimizer)
    assert captured.series("activation", "Linear", "l2") == pytest.approx([norm(model(x))] * 2, rel=1e-6)


class Checkpointed(nn.Module):
    """Two blocks under activation checkpointing."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(2))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


@pytest.mark.filterwarnings("ignore:.*autocast.* is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_count_once(reentrant: bool) -> None:
    """The recomputed forward of activation checkpointing adds nothing to the sampled step's rows."""
    model = Checkpointed(reentrant)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(5, 4, requires_grad=True)
    with capture(model, optimizer) as captured:
        train_step(model, x, optimizer)
        train_step(model, x, optimizer)
    truth = norm(model.blocks[0](x))
    assert captured.series("activation", "blocks.0.1", "l2") == pytest.approx([truth] * 2, rel=1e-6)
    assert captured.series("activation", "blocks.0.1", "n") == [20, 20]


def test_tuple_dict_and_keyword_modules_are_read() -> None:
    """An LSTM's tuple, a mapping and inputs given by keyword are found."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(5, 5)

        def forward(self, *, hidden: Tensor) -> dict[str, Any]:
            return {"length": 3, "hidden": self.inner(hidden)}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 5, batch_first=True)
            self.odd = Odd()

        def forward(self, x: Tensor) -> Tensor:
            h, _ = self.lstm(x)
            hidden: Tensor = self.odd(hidden=h)["hidden"]
            return hidden

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with capture(model, optimizer) as captured:
        train_step(model, torch.randn(2, 7, 3), optimizer)
    assert names(captured, "activation") == {"lstm:input", "lstm", "odd.inner"}
    assert captured.session.sites.layers == ("lstm", "odd.inner")


def test_layers_are_in_order_of_use() -> None:
    """The order is that of the forward pass, not of registration."""

    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 1)
            self.middle = nn.Linear(4, 4)
            self.first = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.middle(self.first(x)))
            return out

    model = Backwards()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with capture(model, optimizer) as captured:
        train_step(model, torch.randn(2, 4), optimizer)
    assert captured.session.sites.layers == ("first", "middle", "last")


def test_silent_and_saturated_units_are_counted() -> None:
    """A unit is silent after 8 sampled batches without one non-zero sample; saturation counts (unit, sample) pairs."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh())
    with torch.no_grad():
        model.get_parameter("0.bias")[:2] = -1000.0
        model.get_parameter("2.bias")[:3] = 1000.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with capture(model, optimizer) as captured:
        for _ in range(9):
            train_step(model, torch.randn(64, 4), optimizer)
    panel = captured.recording.panel("activation")
    assert panel is not None
    assert panel.units is not None
    rows = {captured.session.sites[int(i)].name: k for k, i in enumerate(panel.sites)}
    units, silent, silent_delta, saturated = panel.units
    assert units[0, rows["1"]] == 6
    assert silent[:, rows["1"]].tolist() == [0] * 7 + [2] * 2
    assert silent_delta[-1, rows["0"]] >= 2
    assert saturated[0, rows["3"]] == 3 * 64
    assert saturated[0, rows["1"]] == -1


def test_convolutions_count_channels() -> None:
    """The units of a convolution and of what follows it are its channels."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with capture(model, optimizer) as captured:
        train_step(model, torch.randn(4, 1, 8, 8), optimizer)
    panel = captured.recording.panel("activation")
    assert panel is not None
    assert panel.units is not None
    units = {captured.session.sites[int(i)].name: int(panel.units[0, 0, k]) for k, i in enumerate(panel.sites)}
    assert (units["0"], units["1"], units["2"], units["4"]) == (3, 3, 3, 2)


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_at_activations_are_unscaled(fused: bool) -> None:
    """Under a loss scaler the gradients at activations are those of the loss itself, histograms included."""
    panels = []
    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        with capture(model, optimizer) as captured:
            scaler.scale(model(torch.randn(64, 4)).square().mean()).backward()
            scaler.step(optimizer)
        panels.append(captured.recording.panel("activation_gradient"))
    plain, scaled = panels
    assert plain is not None
    assert scaled is not None
    np.testing.assert_allclose(scaled.l2, plain.l2, rtol=1e-6)
    assert np.array_equal(scaled.histogram, plain.histogram)


def test_sites_know_the_format_of_what_autocast_makes() -> None:
    """Outputs that autocast makes in a 16-bit format are noted in it, and its parameters in their own."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with capture(model, optimizer) as captured:
        with torch.autocast("cpu", torch.bfloat16):
            out = model(torch.randn(16, 6))
        out.float().square().mean().backward()
        optimizer.step()
    formats = {(site.signal, site.name): site.dtype for site in captured.session.sites}
    assert formats["activation", "0"] == formats["activation_gradient", "0"] == "bfloat16"
    assert formats["activation", "0:input"] == formats["gradient", "0.weight"] == "float32"


def test_no_hook_is_on_between_sampled_steps() -> None:
    """The global forward hook exists only from the step before a sampled one to its end."""
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    torch_module = torch.nn.modules.module
    on: list[int] = []
    with capture(model, optimizer) as captured:
        for step in range(70):
            if torch_module._global_forward_hooks:
                on.append(step)
            train_step(model, torch.randn(2, 4), optimizer)
    panel = captured.recording.panel("activation")
    assert panel is not None
    assert on == panel.steps.tolist() == [*range(16), *range(16, 64, 4), 64]


def test_histograms_of_activations_hold_what_was_counted() -> None:
    """The bins, the zeros and the non-finite elements of an activation add up to its elements."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with capture(model, optimizer) as captured:
        train_step(model, torch.randn(64, 4), optimizer)
    panel = captured.recording.panel("activation")
    assert panel is not None
    counted = panel.histogram[0].sum(axis=1) + panel.zeros[0] + panel.nan[0] + panel.inf[0]
    assert np.array_equal(counted, panel.n[0])
