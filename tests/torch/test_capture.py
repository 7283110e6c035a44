"""What is captured, against gradients read by hand, in every way of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad

from gradwatch.record import ABSENT, STAGES
from tests.torch.capturing import Captured, capture, charges

APPROX = 1e-6

pytestmark = pytest.mark.usefixtures("reading")


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def batches(n: int, size: int = 32) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 8, generator=generator), torch.randint(0, 3, (size,), generator=generator)) for _ in range(n)
    ]


def norm(tensor: Tensor | None) -> float:
    assert tensor is not None
    return float(tensor.detach().double().norm())


def grad_norm(model: nn.Module, name: str) -> float:
    return norm(model.get_parameter(name).grad)


def assert_close(found: Iterable[float], truth: Iterable[float], rel: float = APPROX) -> None:
    assert list(found) == pytest.approx(list(truth), rel=rel)


def stages(captured: Captured, signal: str = "gradient") -> set[str]:
    panel = captured.recording.panel(signal)
    assert panel is not None
    return {STAGES[code] for code in np.unique(panel.stage)}


def test_every_step_records_the_gradient_the_optimizer_used() -> None:
    """l2, sum, absmax of every parameter equal the gradients read by hand before each step."""
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    truth: dict[str, list[tuple[float, float, float]]] = {}
    with capture(model, optimizer) as captured:
        for x, y in batches(20):
            functional.cross_entropy(model(x), y).backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                g = parameter.grad.double()
                truth.setdefault(name, []).append((norm(g), float(g.sum()), float(g.abs().max())))
            optimizer.step()
            optimizer.zero_grad()
    for name, rows in truth.items():
        assert_close(captured.series("gradient", name, "l2"), [row[0] for row in rows])
        assert captured.series("gradient", name, "sum") == pytest.approx([row[1] for row in rows], rel=1e-5, abs=1e-7)
        assert_close(captured.series("gradient", name, "absmax"), [row[2] for row in rows])
    assert [record.step for record in captured.records] == list(range(20))
    assert stages(captured) == {"unscaled"}


def test_the_default_schedule_decides_what_each_step_captures() -> None:
    """Signals come at exactly the steps that the schedule names."""
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with capture(model, optimizer) as captured:
        for x, y in batches(140):
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    steps = {signal: panel.steps.tolist() for (signal, _), panel in captured.recording.panels.items()}
    activation_steps = [*range(16), *range(16, 64, 4), 64, 128]
    assert steps["gradient"] == list(range(140))
    assert steps["update"] == steps["weight"] == [*range(64), 64, 96, 128]
    assert steps["activation"] == steps["activation_gradient"] == activation_steps
    panel = captured.recording.panel("gradient")
    assert panel is not None
    assert panel.steps[panel.histogram_steps].tolist() == [*range(16), *range(16, 140, 8)]


def test_updates_and_weights_are_exact() -> None:
    """The update is the difference of the weights, and the weight is what the step left."""
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    updates, weights = [], []
    with capture(model, optimizer) as captured:
        for x, y in batches(12):
            functional.cross_entropy(model(x), y).backward()
            before = model.get_parameter("0.weight").detach().double().clone()
            optimizer.step()
            optimizer.zero_grad()
            updates.append(norm(model.get_parameter("0.weight").detach().double() - before))
            weights.append(norm(model.get_parameter("0.weight")))
    assert_close(captured.series("update", "0.weight", "l2"), updates, rel=1e-5)
    assert_close(captured.series("weight", "0.weight", "l2"), weights)


def test_accumulated_gradients_are_read_once_a_step() -> None:
    """Four micro-batches give one row, of their summed gradient."""
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    truth, losses = [], []
    with capture(model, optimizer) as captured:
        for i, (x, y) in enumerate(batches(24)):
            loss = functional.cross_entropy(model(x), y) / 4
            loss.backward()
            losses.append(float(loss.detach()))
            if i % 4 == 3:
                truth.append(grad_norm(model, "0.weight"))
                optimizer.step()
                optimizer.zero_grad()
    assert_close(captured.series("gradient", "0.weight", "l2"), truth)
    logged = [record.logged["loss"] for record in captured.records]
    assert_close(logged, [sum(losses[i : i + 4]) for i in range(0, 24, 4)])


def _scaled_training(fused: bool, bad_step: int) -> tuple[Captured, list[float], list[Tensor]]:
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    truth = []
    with capture(model, optimizer) as captured:
        for i, (x, y) in enumerate(batches(8)):
            loss = functional.cross_entropy(model(x), y)
            if i == bad_step:
                loss = loss * float("inf")
            scaler.scale(loss).backward()
            if i != bad_step:
                truth.append(grad_norm(model, "0.weight") / scaler.get_scale())
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return captured, truth, [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("fused", [False, True])
def test_loss_scaling_is_taken_out_and_skipped_steps_count(fused: bool) -> None:
    """With plain and fused optimizers the gradient is unscaled; a skipped step has a number and skipped=True."""
    captured, truth, _ = _scaled_training(fused, bad_step=3)
    assert [record.step for record in captured.records] == list(range(8))
    assert [record.skipped for record in captured.records] == [i == 3 for i in range(8)]
    assert_close(captured.series("gradient", "0.weight", "l2"), truth, rel=1e-5)
    assert [record.facts["loss_scale"] for record in captured.records] == [1024.0] * 4 + [512.0] * 4
    assert captured.records[0].logged["loss"] == pytest.approx(1.1, abs=0.3)


def test_a_fused_optimizers_histogram_is_unscaled_too() -> None:
    """The histogram moves by the octaves of the loss scale."""
    with_scale, _, _ = _scaled_training(True, bad_step=-1)
    torch.manual_seed(0)
    without, _, _ = _scaled_training(False, bad_step=-1)
    panels = [captured.recording.panel("gradient") for captured in (with_scale, without)]
    assert panels[0] is not None
    assert panels[1] is not None
    assert panels[0].histogram[0].tolist() == panels[1].histogram[0].tolist()


@pytest.mark.skipif(not hasattr(clip_grad, "_clip_grads_with_norm_"), reason="torch tells of clipping from 2.6 on")
def test_clipping_is_seen_before_and_after() -> None:
    """Rows hold the clipped gradient and say so; the global norm before clipping and the threshold are facts."""
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, after = [], []
    with capture(model, optimizer) as captured:
        for x, y in batches(10):
            functional.cross_entropy(model(x), y).backward()
            before.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.05)))
            after.append(grad_norm(model, "0.weight"))
            optimizer.step()
            optimizer.zero_grad()
    assert_close([record.facts["total_norm"] for record in captured.records], before)
    assert_close([record.facts["clip_threshold"] for record in captured.records], [0.05] * 10)
    assert_close(captured.series("gradient", "0.weight", "l2"), after)
    assert stages(captured) == {"after clipping"}


def test_without_clipping_the_global_norm_is_that_of_all_gradients() -> None:
    """total_norm is the root of the summed squares, with no threshold beside it."""
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    truth = []
    with capture(model, optimizer) as captured:
        for x, y in batches(3):
            functional.cross_entropy(model(x), y).backward()
            truth.append(sum(norm(p.grad) ** 2 for p in model.parameters()) ** 0.5)
            optimizer.step()
            optimizer.zero_grad()
    assert_close([record.facts["total_norm"] for record in captured.records], truth)
    assert all("clip_threshold" not in record.facts for record in captured.records)


class Tied(nn.Module):
    """A decoder that shares the encoder's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(8, 8, bias=False)
        self.decoder = nn.Linear(8, 8, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(torch.tanh(self.encoder(x)))
        return decoded


def test_tied_weights_are_one_site_with_aliases() -> None:
    """A shared parameter is read once, with the summed gradient and its other name."""
    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with capture(model, optimizer) as captured:
        model(torch.randn(4, 8)).square().mean().backward()
        truth = grad_norm(model, "encoder.weight")
        optimizer.step()
    sites = [site for site in captured.session.sites if site.signal == "gradient"]
    assert [(site.name, site.aliases) for site in sites] == [("encoder.weight", ("decoder.weight",))]
    assert_close(captured.series("gradient", "encoder.weight", "l2"), [truth])


class Branches(nn.Module):
    """A frozen, an unused, a multiplied-by-zero and a normal layer."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.unused = nn.Linear(8, 8)
        self.zeroed = nn.Linear(8, 8)
        self.used = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.frozen(x)
        used: Tensor = self.used(h + 0 * self.zeroed(h))
        return used


def test_frozen_absent_and_zero_gradients_are_told_apart() -> None:
    """A frozen parameter has no row, None is "absent", and an exactly zero gradient has absmax 0."""
    model = Branches()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with capture(model, optimizer) as captured:
        for x, y in batches(3):
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    panel = captured.recording.panel("gradient")
    assert panel is not None
    rows = {captured.session.sites[int(i)].name: k for k, i in enumerate(panel.sites)}
    assert captured.session.sites[0].status == "frozen"
    assert "frozen.weight" not in rows
    assert STAGES[panel.stage[0, rows["unused.weight"]]] == ABSENT
    assert panel.n[0, rows["unused.weight"]] == 0
    assert panel.absmax[:, rows["zeroed.weight"]].tolist() == [0, 0, 0]
    assert (panel.l2[:, rows["used.weight"]] > 0).all()


def test_parameters_of_several_dtypes_are_read_together() -> None:
    """float32, float64 and bfloat16 parameters of one optimizer each give their own numbers."""
    tensors = [torch.ones(5, dtype=dtype) for dtype in (torch.float32, torch.float64, torch.bfloat16)]
    model = nn.ParameterDict({f"p{i}": nn.Parameter(t) for i, t in enumerate(tensors)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with capture(model, optimizer) as captured:
        for i in range(3):
            torch.stack([((i + 1) * p.double() ** 2).sum() for p in model.parameters()]).sum().backward()
            truth = {name: norm(p.grad) for name, p in model.named_parameters()}
            optimizer.step()
            optimizer.zero_grad()
    for name, value in truth.items():
        assert captured.series("gradient", name, "l2")[-1] == pytest.approx(value, rel=1e-6)


def test_several_models_and_optimizers_count_their_own_steps() -> None:
    """In a GAN-like loop each optimizer has its steps and its gradients, although the passes mix them."""
    generator, critic = small_net(), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    first, second = torch.optim.Adam(critic.parameters(), lr=0.01), torch.optim.Adam(generator.parameters(), lr=0.01)
    truth: dict[str, list[float]] = {"critic": [], "generator": []}
    with capture({"generator": generator, "critic": critic}, {"critic": first, "generator": second}) as captured:
        for i, (x, _) in enumerate(batches(9)):
            first.zero_grad()
            (critic(generator(x).detach()).mean() - critic(torch.randn(32, 3)).mean()).backward()
            truth["critic"].append(grad_norm(critic, "0.weight"))
            first.step()
            if i % 3 == 2:
                second.zero_grad()
                (-critic(generator(x)).mean()).backward()
                truth["generator"].append(grad_norm(generator, "0.weight"))
                second.step()
    assert captured.session.sites.optimizers == ["critic", "generator"]
    assert_close(captured.series("gradient", "critic.0.weight", "l2", 0), truth["critic"])
    assert_close(captured.series("gradient", "generator.0.weight", "l2", 1), truth["generator"])
    activations = captured.recording.panel("activation", 1)
    assert activations is not None
    names = {captured.session.sites[int(i)].layer.split(".")[0] for i in activations.sites}
    assert names == {"generator"}


def test_two_optimizers_over_one_model_share_its_passes() -> None:
    """When one backward feeds two optimizers, both get their gradients, activations and the same loss."""
    model = small_net()
    matrices = torch.optim.SGD([p for p in model.parameters() if p.ndim > 1], lr=0.1)
    rest = torch.optim.AdamW([p for p in model.parameters() if p.ndim == 1], lr=0.1)
    with capture(model, [matrices, rest]) as captured:
        for x, y in batches(3):
            functional.cross_entropy(model(x), y).backward()
            matrices.step()
            rest.step()
            matrices.zero_grad()
            rest.zero_grad()
    assert captured.session.sites.optimizers == ["SGD", "AdamW"]
    assert {key for key in captured.recording.panels if key[0] == "gradient"} == {("gradient", 0), ("gradient", 1)}
    losses = {record.optimizer: record.logged["loss"] for record in captured.records if record.step == 2}
    assert losses[0] == losses[1]
    captured.series("activation", "0", "l2", 0)


@pytest.mark.parametrize(
    "make", [lambda m: torch.compile(m, backend="aot_eager"), lambda m: m.compile(backend="aot_eager") or m]
)
@pytest.mark.parametrize("pass_wrapper", [True, False])
def test_compiled_models_keep_their_names_and_graph(make: Callable[[nn.Module], Any], pass_wrapper: bool) -> None:
    """Gradients of a compiled model are captured under its own names, with no graph break of ours."""
    torch._dynamo.reset()
    model = small_net()
    compiled = make(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    truth = []
    torch._dynamo.utils.counters.clear()
    with capture(compiled if pass_wrapper else model, optimizer) as captured:
        for x, y in batches(5):
            functional.cross_entropy(compiled(x), y).backward()
            truth.append(grad_norm(model, "0.weight"))
            optimizer.step()
            optimizer.zero_grad()
    assert_close(captured.series("gradient", "0.weight", "l2"), truth)
    assert captured.recording.panel("activation") is None
    assert sum(torch._dynamo.utils.counters["graph_break"].values()) == 0


def test_a_closures_gradients_are_read_after_the_step() -> None:
    """LBFGS computes gradients inside its step: the last evaluation is read, and the stage says when."""
    model = small_net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    truth = []
    x, y = batches(1)[0]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with capture(model, optimizer) as captured:
        for _ in range(3):
            optimizer.step(closure)
            truth.append(grad_norm(model, "0.weight"))
    assert_close(captured.series("gradient", "0.weight", "l2"), truth)
    assert stages(captured) == {"after the step"}


class Cautious(torch.optim.SGD):
    """An optimizer whose step calls its base's step, so that torch's hooks fire twice."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def test_a_step_inside_a_step_counts_once() -> None:
    """Optimizers that call super().step() have as many steps as the loop."""
    model = small_net()
    optimizer = Cautious(model.parameters(), lr=0.1)
    with capture(model, optimizer) as captured:
        for x, y in batches(4):
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert [record.step for record in captured.records] == [0, 1, 2, 3]


def test_a_step_that_raised_does_not_end_capture() -> None:
    """After an exception out of a closure the next step is captured as usual."""
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = batches(1)[0]

    def broken() -> float:
        raise ValueError("the user's own")

    with capture(model, optimizer) as captured:
        with pytest.raises(ValueError, match="the user's own"):
            optimizer.step(broken)
        functional.cross_entropy(model(x), y).backward()
        truth = grad_norm(model, "0.weight")
        optimizer.step()
    assert_close(captured.series("gradient", "0.weight", "l2"), [truth])


def test_an_optimizer_that_was_not_given_is_found() -> None:
    """watch(model) alone captures the steps of the optimizer that trains it, and of no other."""
    model, other = small_net(), small_net()
    optimizer = torch.optim.Adam(model.parameters())
    foreign = torch.optim.Adam(other.parameters())
    with capture(model) as captured:
        for x, y in batches(3):
            functional.cross_entropy(other(x), y).backward()
            foreign.step()
            functional.cross_entropy(model(x), y).backward()
            truth = grad_norm(model, "0.weight")
            optimizer.step()
            optimizer.zero_grad()
    assert captured.series("gradient", "0.weight", "l2")[-1] == pytest.approx(truth)
    assert [record.step for record in captured.records] == [0, 1, 2]
    assert captured.session.sites.optimizers == [""]
    assert len(captured.series("activation", "0", "l2")) == 3


def test_steps_ended_by_hand_read_the_gradients_of_that_moment() -> None:
    """watch.step() serves loops that update without an optimizer."""
    model = small_net()
    truth = []
    with capture(model) as captured:
        for x, y in batches(3):
            functional.cross_entropy(model(x), y).backward()
            truth.append(grad_norm(model, "0.weight"))
            captured.adapter.step()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(parameter.grad, alpha=0.1)  # type: ignore[arg-type]
                    parameter.grad = None
    assert_close(captured.series("gradient", "0.weight", "l2"), truth)


@pytest.mark.parametrize("way", ["in place", "through data", "every second batch"])
def test_loops_without_an_optimizer_are_understood(way: str) -> None:
    """A step ends when the parameters change or the gradients are cleared; its gradient and activations are its own."""
    model = small_net()
    truth, outputs = [], []
    with capture(model) as captured:
        for i, (x, y) in enumerate(batches(6)):
            out = model(x)
            functional.cross_entropy(out, y).backward()
            if way == "every second batch" and i % 2 == 0:
                continue
            truth.append(grad_norm(model, "0.weight"))
            outputs.append(norm(out))
            for parameter in model.parameters():
                assert parameter.grad is not None
                if way == "through data":
                    parameter.data = parameter.data - 0.1 * parameter.grad
                else:
                    with torch.no_grad():
                        parameter.sub_(parameter.grad, alpha=0.1)
                parameter.grad = None
    assert_close(captured.series("gradient", "0.weight", "l2"), truth)
    assert [record.step for record in captured.records] == list(range(len(truth)))
    if way != "every second batch":
        assert_close(captured.series("activation", "2", "l2"), outputs)
    assert len(captured.series("activation_gradient", "2", "l2")) == len(truth)
    assert all(record.logged["loss"] > 0 for record in captured.records)


def test_parameters_added_to_the_optimizer_later_are_read() -> None:
    """A layer in no optimizer rests; once its parameters are added during training, they move."""
    model = small_net()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with capture(model, optimizer) as captured:
        for i, (x, y) in enumerate(batches(4)):
            if i == 2:
                optimizer.add_param_group({"params": list(model[2].parameters())})
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    panel = captured.recording.panel("update")
    assert panel is not None
    rows = {captured.session.sites[int(i)].name: k for k, i in enumerate(panel.sites)}
    assert (panel.absmax[:2, rows["2.weight"]] == 0).all()
    assert (panel.l2[2:, rows["2.weight"]] > 0).all()


def test_sparse_gradients_are_summed_before_they_are_read() -> None:
    """Rows that occur twice in an embedding's sparse gradient count with their sum."""
    model = nn.Embedding(10, 4, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with capture(model, optimizer) as captured:
        model(torch.tensor([1, 1, 1, 5])).square().sum().backward()
        assert model.weight.grad is not None
        truth = norm(model.weight.grad.to_dense())
        optimizer.step()
    assert_close(captured.series("gradient", "weight", "l2"), [truth])


def test_the_layers_option_limits_what_is_watched() -> None:
    """Only parameters and activations of chosen layers have sites."""
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with capture(model, optimizer, layers=lambda layer: layer == "2") as captured:
        for x, y in batches(2):
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert {site.layer for site in captured.session.sites} == {"2"}


def test_learning_rate_is_that_of_the_step() -> None:
    """The fact follows a schedule, and the largest of several groups counts."""
    model = small_net()
    groups: list[dict[str, Any]] = [
        {"params": [*model[0].parameters()], "lr": 0.01},
        {"params": [*model[2].parameters()]},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with capture(model, optimizer) as captured:
        for x, y in batches(3):
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            decay.step()
    assert_close([record.facts["learning_rate"] for record in captured.records], [1.0, 0.5, 0.25])


def test_a_budget_keeps_the_time_spent_on_capture() -> None:
    """With budget=0.2 capture, activations included, is over its share by at most the one step that went over it."""
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(20)), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with capture(model, optimizer, budget=0.2, every=1) as captured, charges(captured.session.schedule) as charged:
        for x, y in batches(600):
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    spent, trained = map(sum, zip(*charged, strict=True))
    captured_steps = len([record for record in captured.records if record.blocks])
    assert 1 <= captured_steps < 300
    assert spent - 0.2 * trained <= max(capture for capture, _ in charged)
