"""A graphics card: no waiting, the numbers of the host, and CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradwatch.statistics import Statistics
from gradwatch_torch import fused
from gradwatch_torch.arrival import Arrival
from gradwatch_torch.device import OnDevice
from gradwatch_torch.fused import CHUNK, Fused
from gradwatch_torch.rows import Rows, join
from tests.torch.capturing import Captured, capture
from tests.torch.test_fused import CASES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a graphics card that CUDA can use")

PATHS = pytest.mark.parametrize("path", ["fused", "packed"])


@pytest.fixture(autouse=True)
def _path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the tests that ask for a path take that one."""
    path = request.node.callspec.params.get("path") if hasattr(request.node, "callspec") else None
    if path == "packed":
        monkeypatch.setattr(fused, "takes", lambda _: False)
    elif path == "fused":
        pytest.importorskip("triton")
        assert fused.is_usable(torch.device("cuda", torch.cuda.current_device()))


@pytest.fixture
def unsynchronised() -> Iterator[None]:
    """Makes every operation that waits for the device an error."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def same(found: Statistics, expected: Statistics) -> None:
    for name in ("n", "nan", "inf", "absmax", "zeros", "subnormal", "histogram"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found.l2, expected.l2, rtol=1e-5)
    np.testing.assert_allclose(found.sum, expected.sum, rtol=1e-5, atol=1e-6 * float(np.nanmax(np.abs(expected.l2))))


@PATHS
@pytest.mark.parametrize("case", CASES)
def test_a_card_gives_the_numbers_of_the_host(path: str, case: str) -> None:
    """Counts and bins are equal, and l2 agrees, for all kinds, magnitudes and lengths."""
    on_card = OnDevice([tensor.cuda() for tensor in CASES[case]], counts=True, histogram=True)
    same(on_card.resolve(), OnDevice(CASES[case], counts=True, histogram=True).resolve())


@PATHS
def test_enqueueing_does_not_wait(path: str, unsynchronised: None) -> None:
    """While the card is busy for a second, a reduction of many tensors is enqueued and not yet ready."""
    tensors = [torch.full((n,), 1.0, device="cuda") for n in (0, 3, 5000, 3 * CHUNK + 1)]
    OnDevice(tensors, counts=True, histogram=True).resolve()
    torch.cuda._sleep(2_000_000_000)
    reduction = OnDevice(tensors, counts=True, histogram=True)
    assert not reduction.ready()
    assert reduction.resolve().sum[1:].tolist() == [3, 5000, 3 * CHUNK + 1]
    assert reduction.ready()


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 8))


def train(network: nn.Sequential, batches: Tensor, *, set_to_none: bool = True) -> Captured:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    with capture(network, optimizer) as captured:
        for batch in batches:
            optimizer.zero_grad(set_to_none=set_to_none)
            network(batch).square().mean().backward()
            optimizer.step()
    return captured


@PATHS
def test_watched_steps_never_wait(path: str, unsynchronised: None) -> None:
    """Forty steps with every signal, from the first on, run without a synchronisation of the device."""
    torch.cuda.set_sync_debug_mode("default")
    network, batches = model().cuda(), torch.randn(40, 32, 64).cuda()
    torch.cuda.set_sync_debug_mode("error")
    captured = train(network, batches)
    assert [record.step for record in captured.records] == list(range(40))


@PATHS
def test_a_card_trains_as_the_host_does(path: str) -> None:
    """Every signal of every parameter and layer has the numbers of the same training on the host."""
    batches = torch.randn(10, 32, 64)
    host = train(model(), batches)
    card = train(model().cuda(), batches.cuda())
    for signal in ("gradient", "update", "weight", "activation", "activation_gradient"):
        one, other = host.recording.panel(signal, 0), card.recording.panel(signal, 0)
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one.sites, other.sites)
        np.testing.assert_allclose(one.l2, other.l2, rtol=2e-2)


def test_a_launch_can_be_captured() -> None:
    """Each replay of a graph with the kernel and its copies to the host gives the numbers of that moment."""
    pytest.importorskip("triton")
    tensor = torch.zeros(CHUNK + 3, device="cuda")
    reduction = Fused([tensor], counts=True, histogram=True)
    pinned = [torch.empty(result.shape, dtype=result.dtype, pin_memory=True) for result in reduction.results]
    reduction.launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        tensor.add_(1)
        reduction.launch()
        for copy, result in zip(pinned, reduction.results, strict=True):
            copy.copy_(result, non_blocking=True)
    n = np.array([CHUNK + 3])
    for turn in (1, 2, 3):
        graph.replay()
        torch.cuda.synchronize()
        rows, bins = (copy.numpy() for copy in pinned)
        found = join([Rows(reduction.owner, rows, bins)], n, counts=True, histogram=True)
        assert found.sum[0] == turn * n[0]


def test_results_arrive_while_a_graph_is_captured() -> None:
    """What was enqueued before is seen to arrive, and the capture stays whole."""
    source = torch.full((1000,), 3.0, device="cuda")
    arrival = Arrival([source])
    other = torch.zeros(5, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        other.add_(1)
        assert arrival.tensors()[0].tolist() == [3.0] * 1000
        other.add_(1)
    graph.replay()
    assert other.tolist() == [2.0] * 5


@PATHS
def test_steps_around_a_graph_of_the_passes_are_watched(path: str, unsynchronised: None) -> None:
    """With forward and backward captured and the optimizer outside, each replay's gradients are recorded."""
    torch.cuda.set_sync_debug_mode("default")
    network, batch = model().cuda(), torch.randn(32, 64, device="cuda")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    norms = []
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            network(batch).square().mean().backward()
    torch.cuda.current_stream().wait_stream(side)
    optimizer.zero_grad(set_to_none=True)
    with capture(network, optimizer) as captured:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            network(batch).square().mean().backward()
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(12):
            graph.replay()
            weight = network[0].weight
            assert isinstance(weight, nn.Parameter)
            assert weight.grad is not None
            norms.append(weight.grad.norm())
            optimizer.step()
        torch.cuda.set_sync_debug_mode("default")
    assert [record.step for record in captured.records] == list(range(12))
    expected = [float(norm) for norm in norms]
    assert captured.series("gradient", "0.weight", "l2") == pytest.approx(expected, rel=1e-5)
