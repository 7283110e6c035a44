"""Reductions of tensors against a slow float64 oracle, on every path."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradwatch import native
from gradwatch.statistics import Statistics
from gradwatch_torch.device import OnDevice
from gradwatch_torch.host import reduce_on_host
from gradwatch_torch.layout import EXACT, flat
from gradwatch_torch.measure import InC, reduce

Path = Callable[[list[Tensor]], Statistics]


needs_library = pytest.mark.skipif(
    not native.available(), reason="there was no C compiler when gradwatch was installed"
)


def in_c(tensors: list[Tensor]) -> Statistics:
    measured = reduce(tensors, counts=True, histogram=True)
    assert isinstance(measured, InC)
    return measured.resolve()


def on_host(tensors: list[Tensor]) -> Statistics:
    return reduce_on_host(tensors, counts=True, histogram=True)


def on_device(tensors: list[Tensor]) -> Statistics:
    return OnDevice(tensors, counts=True, histogram=True).resolve()


PATHS = pytest.mark.parametrize("path", [pytest.param(in_c, marks=needs_library), on_host, on_device])


def check(found: Statistics, tensor: Tensor, i: int = 0, *, exact: int = EXACT) -> None:
    """Compares row i with Python arithmetic over every element."""
    values = [float(v) for v in tensor.double().flatten().tolist()]
    finite = [v for v in values if math.isfinite(v)]
    tiny = torch.finfo(tensor.dtype).smallest_normal
    assert found.zeros is not None
    assert found.subnormal is not None
    assert found.histogram is not None
    assert found.n[i] == len(values)
    assert found.nan[i] == sum(math.isnan(v) for v in values)
    assert found.inf[i] == sum(math.isinf(v) for v in values)
    assert found.zeros[i] == sum(v == 0 for v in finite)
    assert found.subnormal[i] == sum(0 < abs(v) < tiny for v in finite)
    if not finite:
        assert np.isnan([found.l2[i], found.sum[i], found.absmax[i]]).all()
        return
    largest = max(abs(v) for v in finite)
    assert found.absmax[i] == largest
    l2 = largest * math.sqrt(math.fsum((v / largest) ** 2 for v in finite)) if largest else 0.0
    assert found.l2[i] == pytest.approx(l2, rel=1e-5)
    assert found.sum[i] == pytest.approx(math.fsum(finite), rel=1e-5, abs=2e-6 * math.fsum(map(abs, finite)))
    if len(values) <= exact:
        bins = [0] * 64
        for v in finite:
            if v:
                bins[min(max(math.frexp(abs(v))[1] + 40, 0), 63)] += 1
        assert found.histogram[i].tolist() == bins


@PATHS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [1, 7, 1000, 300_000])
def test_statistics_match_the_oracle(path: Path, dtype: torch.dtype, n: int) -> None:
    """Every dtype and size agrees with arithmetic done element by element."""
    tensor = (torch.randn(n, generator=torch.Generator().manual_seed(n)) * 1e-3).to(dtype)
    tensor[:: max(1, n // 5)] = 0
    check(path([tensor]), tensor, exact=n if path is in_c else EXACT)


@PATHS
@pytest.mark.parametrize("exponent", [-37, -30, -20, -12, 0, 12, 20, 30, 37])
def test_l2_holds_from_1e_37_to_1e37(path: Path, exponent: int) -> None:
    """Squares that float32 cannot hold do not spoil l2, and tiny elements are not taken for zero."""
    tensor = torch.full((1000,), 10.0**exponent)
    found = path([tensor])
    check(found, tensor)
    assert found.absmax[0] > 0


@PATHS
def test_l2_of_a_million_elements_at_the_ends_of_the_range(path: Path) -> None:
    """The promise of 1e-5 holds for many elements as well."""
    for size in (1e-37, 1e37):
        assert path([torch.full((1_000_000,), size)]).l2[0] == pytest.approx(size * 1e3, rel=1e-5)


@PATHS
@given(
    values=st.lists(
        st.floats(width=32) | st.sampled_from([0.0, -0.0, 1e-42, math.nan, math.inf, -math.inf, 3e38]), max_size=40
    )
)
def test_any_floats_match_the_oracle(path: Path, values: list[float]) -> None:
    """Zeros, subnormals, NaN, infinities and the largest floats are told apart; empty tensors are null."""
    tensor = torch.tensor(values, dtype=torch.float32)
    check(path([tensor]), tensor)


@PATHS
def test_strides_do_not_matter(path: Path) -> None:
    """Transposed, channels-last, strided and expanded tensors give the numbers of their contiguous copies."""
    base = torch.randn(4, 6, 5, 3)
    views = [
        base.to(memory_format=torch.channels_last),
        base.permute(3, 1, 0, 2),
        base[:, ::2],
        torch.randn(5, 1).expand(5, 4),
        torch.randn(()),
    ]
    found = path(views)
    for i, view in enumerate(views):
        check(found, view.contiguous(), i)


def test_dense_permutations_are_read_without_a_copy() -> None:
    """Channels-last gradients are read where they lie."""
    tensor = torch.randn(4, 6, 5, 3).to(memory_format=torch.channels_last)
    assert flat(tensor).data_ptr() == tensor.data_ptr()
    assert flat(tensor.t() if tensor.ndim == 2 else tensor.permute(1, 0, 3, 2)).data_ptr() == tensor.data_ptr()


@PATHS
def test_several_dtypes_and_sizes_in_one_call(path: Path) -> None:
    """Rows keep the order of the tensors whatever path each takes."""
    tensors = [
        torch.randn(10),
        torch.randn(300_000),
        torch.randn(3).double(),
        torch.tensor([math.nan, 1.0]),
        torch.randn(20).bfloat16(),
        torch.zeros(5),
        torch.zeros(0),
    ]
    found = path(tensors)
    for i, tensor in enumerate(tensors):
        check(found, tensor, i)


@PATHS
def test_complex_tensors_count_both_parts(path: Path) -> None:
    """The norm of a complex gradient is that of its real and imaginary parts together."""
    tensor = torch.randn(50, dtype=torch.complex64)
    assert path([tensor]).l2[0] == pytest.approx(float(torch.linalg.vector_norm(tensor)), rel=1e-6)


def test_large_histograms_are_sampled_fairly() -> None:
    """The sampled histogram's distribution stays within KS 0.02 of the exact one, for row-structured tensors too."""
    scale = torch.logspace(-6, 3, 512)[:, None]
    for tensor in (torch.randn(512, 512), torch.randn(512, 512) * scale, torch.randn(512, 512) * scale.T):
        found = on_host([tensor]).histogram
        assert found is not None
        exact = np.bincount(np.clip(np.frexp(tensor.abs().numpy().ravel())[1] + 40, 0, 63), minlength=64)
        distance = np.abs(np.cumsum(found[0]) / found[0].sum() - np.cumsum(exact) / exact.sum()).max()
        assert distance <= 0.02


def test_reducing_allocates_no_copy_of_a_gradient() -> None:
    """Peak memory of the every-step reduction stays far below the tensor's own size."""
    from torch.profiler import ProfilerActivity, profile

    tensor = torch.randn(8_000_000)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        reduce([tensor])
    largest = max(event.self_cpu_memory_usage for event in prof.key_averages())
    assert largest < tensor.numel() * 4 / 100
