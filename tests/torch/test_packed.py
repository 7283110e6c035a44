"""Reductions of many tensors in few launches, and how parts join."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradwatch.statistics import concatenate, measure
from gradwatch_torch import packed
from gradwatch_torch.device import OnDevice
from gradwatch_torch.packed import WIDTH
from gradwatch_torch.rows import COLUMNS, Rows, join

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "unique2", "is_nonzero"}
"""Operations of torch that wait for the device, since the host must know their result."""


class Operations(TorchDispatchMode):
    """Takes down the operations that torch is asked for, views aside."""

    names: list[str]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def operations(tensors: list[Tensor]) -> list[str]:
    recorder: Any = Operations
    with recorder() as taken:
        taken.names = []
        OnDevice(tensors, counts=True, histogram=True)
    names: list[str] = taken.names
    return names


def test_launches_do_not_grow_with_the_number_of_tensors() -> None:
    """A hundred small tensors take the operations of two."""
    small = [torch.randn(n + 1) for n in range(100)]
    assert operations(small) == operations(small[:2])
    assert len(operations(small)) < 60


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_no_operation_asks_for_a_result(dtype: torch.dtype) -> None:
    """What is enqueued leaves the host free to go on."""
    names = operations([torch.randn(n, dtype=dtype) for n in (0, 3, 5000)])
    assert "scatter_add_" in names
    assert not WAITING & set(names)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_may_end_anywhere(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that fill, cross and share batches come out as the core sees them, in order."""
    monkeypatch.setattr(packed, "CHUNK", 4 * WIDTH)
    sizes = [1, WIDTH, 3 * WIDTH, 0, 4 * WIDTH, 4 * WIDTH + 1, 13 * WIDTH - 1, 5, 9 * WIDTH]
    tensors = [torch.randn(size, dtype=dtype) * 10.0 ** (i - 4) for i, size in enumerate(sizes)]
    tensors[6][[0, WIDTH, 6 * WIDTH]] = torch.tensor([torch.nan, torch.inf, 0.0], dtype=dtype)
    tensors[8][: 5 * WIDTH] = 0
    found = OnDevice(tensors, counts=True, histogram=True).resolve()
    expected = concatenate([measure(tensor.numpy()) for tensor in tensors])
    for name in ("n", "absmax", "nan", "inf", "zeros", "subnormal", "histogram"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found.l2, expected.l2, rtol=1e-6)
    np.testing.assert_allclose(found.sum, expected.sum, rtol=1e-5, atol=1e-6 * np.nanmax(np.abs(expected.sum)))


@pytest.mark.parametrize("size", [1e-320, 1e-300, 1e-160, 1e160, 1e300])
def test_double_precision_keeps_its_whole_range(size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares that float64 cannot hold do not spoil l2, whatever else stands in the parts of a tensor."""
    monkeypatch.setattr(packed, "CHUNK", WIDTH)
    tensor = torch.full((3 * WIDTH,), size, dtype=torch.float64)
    tensor[WIDTH : 2 * WIDTH] = 0
    tensor[2 * WIDTH :] *= 0.125
    found = OnDevice([tensor], counts=False, histogram=False).resolve()
    assert found.l2[0] == pytest.approx(size * np.sqrt(WIDTH * (1 + 0.125**2)), rel=1e-3 if size == 1e-320 else 1e-9)
    assert found.sum[0] == pytest.approx(size * WIDTH * 1.125, rel=1e-3 if size == 1e-320 else 1e-9)
    assert found.absmax[0] == size


def test_what_was_not_asked_for_is_null() -> None:
    """Lean rows have no counts and no histogram, also where no tensor has an element."""
    for tensors in ([torch.ones(3)], [torch.zeros(0)], [torch.zeros(0), torch.ones(2)]):
        lean = OnDevice(tensors, counts=False, histogram=False).resolve()
        assert (lean.zeros, lean.subnormal, lean.histogram) == (None, None, None)
        counted = OnDevice(tensors, counts=True, histogram=False).resolve()
        assert counted.zeros is not None
        assert counted.histogram is None
        full = OnDevice(tensors, counts=True, histogram=True).resolve()
        assert full.histogram is not None
        assert full.histogram.sum() == full.n.sum()


def test_parts_join_in_any_order() -> None:
    """Parts of a tensor may lie apart and have exponents of their own; each adds to its tensor alone."""
    values = np.zeros((4, COLUMNS))
    values[:, :4] = np.array([[0.25, 2, 0.5, 2], [1, -3, -1, 0.125], [0, 0, 0, 0], [0.25, 1, -0.5, 1]])
    values[:, 4:] = np.array([[1, 0, 2, 3], [0, 1, 0, 0], [0, 0, 5, 0], [4, 4, 4, 4]])
    owner, n = np.array([1, 0, 1, 1]), np.array([9, 40, 0])
    found = join(
        [Rows(owner[:1], values[:1], None), Rows(owner[1:], values[1:], None)], n, counts=True, histogram=False
    )
    np.testing.assert_allclose(found.l2, [0.125, np.sqrt(4 + 1), np.nan])
    np.testing.assert_allclose(found.sum, [-0.125, 2 - 1, np.nan])
    np.testing.assert_array_equal(found.absmax, [0.125, 2, np.nan])
    columns = (found.nan, found.inf, found.zeros, found.subnormal)
    assert [None if column is None else column.tolist() for column in columns] == [
        [0, 5, 0],
        [1, 4, 0],
        [0, 11, 0],
        [0, 7, 0],
    ]
