"""Tensors that are read again and again: whatever takes their place is read rightly, and costs no memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from gradwatch.statistics import Statistics, measure
from gradwatch_torch.gradients import Gradients
from gradwatch_torch.measure import Measured, Reader
from gradwatch_torch.units import alive_units
from gradwatch_torch.weights import Weights

pytestmark = pytest.mark.usefixtures("reading")


class Foreign(Tensor):
    """A subclass whose memory nobody else may interpret."""


def matrix() -> Tensor:
    return torch.randn(6, 4)


OTHERS: dict[str, Callable[[], Tensor]] = {
    "contiguous": matrix,
    "transposed": lambda: torch.randn(4, 6).T,
    "strided": lambda: torch.randn(6, 8)[:, ::2],
    "expanded": lambda: torch.randn(6, 1).expand(6, 4),
    "another size": lambda: torch.randn(3, 5),
    "empty": lambda: torch.randn(0, 4),
    "a scalar": lambda: torch.randn(()),
    "float64": lambda: matrix().double(),
    "bfloat16": lambda: matrix().bfloat16(),
    "float16": lambda: matrix().half(),
    "complex": lambda: torch.randn(6, 2, dtype=torch.complex64),
    "conjugate": lambda: torch.randn(6, 2, dtype=torch.complex64).conj(),
    "negative": lambda: torch._neg_view(matrix()),
    "sparse": lambda: torch.eye(6, 4).to_sparse(),
    "a subclass": lambda: matrix().as_subclass(Foreign),
    "a parameter": lambda: nn.Parameter(matrix()),
    "not finite": lambda: torch.tensor([[1.0, torch.nan], [torch.inf, 0.0]]),
}


def resolved(measured: Measured | None) -> Statistics:
    assert measured is not None
    assert measured.ready()
    return measured.resolve()


def check(found: Statistics, row: int, tensor: Tensor) -> None:
    """Compares l2, sum and counts of a row with the definition."""
    tensor = tensor.detach().as_subclass(Tensor) if isinstance(tensor, Foreign) else tensor.detach()
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    expected = measure(tensor.double().numpy())
    np.testing.assert_allclose(found.l2[row], expected.l2[0], rtol=1e-5)
    np.testing.assert_allclose(found.sum[row], expected.sum[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.absmax[row], expected.absmax[0])
    for name in ("n", "nan", "inf", "zeros", "histogram"):
        assert np.array_equal(getattr(found, name)[row], getattr(expected, name)[0]), name


@pytest.mark.parametrize("first", OTHERS)
def test_what_takes_a_tensors_place_is_read_rightly(first: str) -> None:
    """A reader that has seen one kind of tensor reads every other kind as it is, and the first kind again."""
    reader, beside = Reader(), torch.randn(10)
    for kind in (first, first, *OTHERS, first):
        tensor = OTHERS[kind]()
        found = resolved(reader.reduce((tensor, beside), counts=True, histogram=True))
        check(found, 0, tensor)
        check(found, 1, beside)


def test_gradients_come_and_go() -> None:
    """Only gradients that are there are read; the others are absent where one is required."""
    weights = [nn.Parameter(matrix()) for _ in range(3)]
    weights[2].requires_grad_(False)
    gradients = Gradients(weights, np.array([7, 8, 9], dtype=np.uint32))
    assert gradients.read(full=True) is None
    assert gradients.absent.tolist() == [7, 8]
    for given in ([0], [0], [1], [0, 1], [], [0, 1]):
        for i, weight in enumerate(weights):
            weight.grad = matrix() if i in given else None
        measured = gradients.read(full=True)
        assert gradients.present.tolist() == [7 + i for i in given]
        assert gradients.absent.tolist() == [7 + i for i in (0, 1) if i not in given]
        for row, i in enumerate(given):
            gradient = weights[i].grad
            assert gradient is not None
            check(resolved(measured), row, gradient)


def update_of(weights: Weights) -> Measured | None:
    """Returns what was added to weights since they were copied."""
    return weights.read(update=True, weight=False)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["contiguous", "transposed", "strided", "empty"])
def test_the_update_is_what_was_added(dtype: torch.dtype, kind: str) -> None:
    """Whatever the strides, the update is the difference of the weights, also when the parameter's data is replaced."""
    weights = [nn.Parameter(OTHERS[kind]().to(dtype)), nn.Parameter(torch.ones(3, dtype=dtype))]
    watched = Weights(weights)
    assert update_of(watched) is None
    for replaced in (False, True):
        before = [weight.detach().clone() for weight in weights]
        watched.copy()
        with torch.no_grad():
            for weight in weights:
                weight.add_(0.5)
        if replaced:
            weights[0].data = weights[0].data.clone(memory_format=torch.contiguous_format)
        found = resolved(update_of(watched))
        for row, (weight, old) in enumerate(zip(weights, before, strict=True)):
            difference = (weight.detach() - old).double().numpy()
            expected = measure(difference, full=False)
            np.testing.assert_allclose(found.l2[row], expected.l2[0], rtol=1e-5 if dtype != torch.bfloat16 else 1e-2)
            np.testing.assert_allclose(found.n[row], expected.n[0])
        assert resolved(watched.read(update=False, weight=True)[1]).n.tolist() == [weight.numel() for weight in weights]
    assert update_of(watched) is None


def test_the_update_of_large_weights_is_what_was_added() -> None:
    """Copies in huge pages hold every weight in its own place, whatever its dtype and strides."""
    weights = [
        nn.Parameter(torch.randn(1000, 2000).T),
        nn.Parameter(torch.randn(0)),
        nn.Parameter(torch.randn(3, dtype=torch.float64)),
        nn.Parameter(torch.randn(1001).bfloat16()),
        nn.Parameter(torch.randn(500, 500)),
    ]
    watched = Weights(weights)
    for _ in range(2):
        watched.copy()
        with torch.no_grad():
            weights[0][1999, 999] += 4.0
            for weight in weights[2:]:
                weight.view(-1)[-1] += 1.0
        found = resolved(update_of(watched))
        np.testing.assert_allclose(found.l2[[0, 2, 3, 4]], [4.0, 1.0, 1.0, 1.0], rtol=1e-2)
    watched.forget()
    assert update_of(watched) is None


def test_an_update_without_the_weights_it_began_with_is_none() -> None:
    """Weights of another size since the copy have no update."""
    weight = nn.Parameter(torch.ones(4))
    watched = Weights([weight])
    watched.copy()
    weight.data = torch.ones(5)
    assert update_of(watched) is None


def test_an_update_takes_no_memory_beside_the_copy() -> None:
    """Reducing the update and the weights allocates less than 64 MB, and far less than the weights."""
    weights = [nn.Parameter(torch.ones(4_000_000)), nn.Parameter(torch.ones(4_000_000))]
    watched = Weights(weights)
    watched.copy()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        watched.read(update=True, weight=True)
    assert max((event.self_cpu_memory_usage for event in prof.events() or ()), default=0) < 4_000_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_units_are_alive_where_any_sample_is_not_zero(dtype: torch.dtype, axis: int, channels_last: bool) -> None:
    """Along any axis, in any order of memory; a NaN is not zero, and -0.0 is."""
    values = torch.zeros(40, 5, 3, 7, dtype=dtype)
    values[39, 1, 0, 2], values[0, 3, 2, 6], values[5, 0, 0, 0] = 1.0, torch.nan, -0.0
    if channels_last:
        values = values.to(memory_format=torch.channels_last)
    others = [d for d in range(4) if d != axis]
    reader = Reader()
    reader.reduce((values,))
    found = alive_units(values, axis, plain=reader.form is not None).array()
    assert found.tolist() == (values != 0).sum(dim=others).bool().tolist()
