"""The Triton kernel: its arithmetic under Triton's interpreter, and what happens where it is absent or wrong."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gradwatch.statistics import Statistics, concatenate, measure
from gradwatch_torch import fused
from gradwatch_torch.device import OnDevice
from gradwatch_torch.fused import CHUNK, TILE

SCRIPT = Path(__file__).with_name("interpreter_script.py")
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SPECIAL = [0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, 1.0, -2.0]


def random(n: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    return (torch.randn(n, generator=torch.Generator().manual_seed(n)) * scale).to(dtype)


def borders(dtype: torch.dtype) -> list[Tensor]:
    """Returns tensors of lengths around those of tiles and chunks."""
    return [random(n, dtype, 1e-2) for n in (1, TILE - 1, TILE, TILE + 1, CHUNK - 1, CHUNK, CHUNK + 1)]


def specials(dtype: torch.dtype) -> list[Tensor]:
    """Returns tensors with zeros, subnormals, NaN and infinities, alone and among others."""
    info = torch.finfo(dtype)
    tiny = [info.smallest_normal, -info.smallest_normal / 2, info.smallest_normal * info.eps, info.max, -info.max]
    among = random(2 * CHUNK + TILE + 3, dtype)
    among[:: TILE // 2 + 1] = math.nan
    among[1 :: CHUNK - 3] = -math.inf
    among[2::5] = 0
    return [
        torch.tensor(SPECIAL + tiny).to(dtype),
        torch.tensor(tiny[1:3]).to(dtype),
        torch.tensor(SPECIAL[2:6]).to(dtype),
        torch.zeros(TILE + 7, dtype=dtype),
        torch.full((3,), math.inf).to(dtype),
        among,
    ]


def magnitudes() -> list[Tensor]:
    """Returns tensors of every magnitude that l2 is promised for, and one with all of them."""
    exponents = (-37, -30, -20, -13, -12, -11, 0, 11, 12, 13, 20, 30, 37)
    tensors = [random(TILE + 9, torch.float32).clamp(-2, 2) * 10.0**exponent for exponent in exponents]
    return [*tensors, torch.cat(tensors), torch.full((CHUNK,), 1e-37), torch.full((CHUNK,), 1e37)]


def layouts() -> list[Tensor]:
    """Returns tensors that are not aligned, not contiguous, empty, and of kinds that the kernel does not take."""
    base = random(4 * 6 * 5 * 3 + 1, torch.float32)
    image = base[1:].view(4, 6, 5, 3)
    return [
        base[1:],
        image,
        base[0],
        torch._neg_view(random(11, torch.float32)),
        image.to(memory_format=torch.channels_last),
        image[:, ::2],
        torch.zeros(0),
        random(70, torch.float64, 1e-3),
        random(33, torch.bfloat16)[3:],
        random(5, torch.float16),
        torch.complex(random(9, torch.float32), random(9, torch.float32)),
    ]


CASES = {
    **{f"borders, {name}": borders(dtype) for name, dtype in KINDS.items()},
    **{f"specials, {name}": specials(dtype) for name, dtype in KINDS.items()},
    "magnitudes": magnitudes(),
    "layouts": layouts(),
    "several kinds": [random(n, dtype) for n, dtype in zip((10, CHUNK + 1, 300), KINDS.values(), strict=True)],
}


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Returns what the kernel made of all cases, in a process that chose the interpreter before it imported Triton."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: it comes with builds of torch for graphics cards, and has a gigabyte")
    place = tmp_path_factory.mktemp("interpreted")
    torch.save(CASES, place / "cases.pt")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, str(SCRIPT), str(place / "cases.pt"), str(place / "found.pt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = torch.load(place / "found.pt", weights_only=False)
    return found


def oracle(tensors: list[Tensor]) -> Statistics:
    """Returns the core's statistics of each tensor."""
    rows = []
    for tensor in tensors:
        real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        limit = float(torch.finfo(real.dtype).smallest_normal)
        rows.append(measure(real.double().numpy(), smallest_normal=limit))
    return concatenate(rows)


@pytest.mark.parametrize("kind", ["lean", "counts", "full"])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_agrees_with_the_core(interpreted: dict[str, Any], case: str, kind: str) -> None:
    """Every count and bin is exact, and l2 right to 1e-5, for all kinds, magnitudes and lengths."""
    found, tensors = dict(interpreted["found"][case, kind]), CASES[case]
    expected = oracle(tensors)
    assert found.pop("launches") == 1
    for name in ("n", "nan", "inf", "absmax", *(["zeros", "subnormal"] if kind != "lean" else [])):
        np.testing.assert_array_equal(found[name], getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found["l2"], expected.l2, rtol=1e-5)
    finite = [t.double().abs().nan_to_num(0, 0, 0).sum().item() for t in map(_real, tensors)]
    assert np.all(~(np.abs(found["sum"] - expected.sum) > 1e-6 * np.array(finite)))
    assert np.isnan(found["sum"]).tolist() == np.isnan(expected.sum).tolist()
    taken = {name for name, column in found.items() if column is not None}
    assert ("zeros" in taken, "histogram" in taken) == (kind != "lean", kind == "full")
    if kind == "full":
        np.testing.assert_array_equal(found["histogram"], expected.histogram)


@pytest.mark.parametrize("case", CASES)
def test_the_kernel_agrees_with_torch(interpreted: dict[str, Any], case: str) -> None:
    """Where the kernel is absent the numbers are the same: l2 to 1e-6 and the counts exactly."""
    found = interpreted["found"][case, "full"]
    other = OnDevice(CASES[case], counts=True, histogram=True).resolve()
    for name in ("n", "nan", "inf", "absmax", "zeros", "subnormal", "histogram"):
        np.testing.assert_array_equal(found[name], getattr(other, name), err_msg=name)
    np.testing.assert_allclose(found["l2"], other.l2, rtol=1e-6)


def test_the_self_test_passes_a_right_kernel(interpreted: dict[str, Any]) -> None:
    """What the kernel is asked before its first use, it answers under the interpreter as it must on a card."""
    assert interpreted["fault"] == ""


@pytest.fixture
def undecided() -> Iterator[torch.device]:
    """Returns a device of which it is not yet known whether the kernel can be used."""
    fused.is_usable.cache_clear()
    yield torch.device("cpu")
    fused.is_usable.cache_clear()


def test_without_triton_nothing_is_said(undecided: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of torch without Triton is no fault of the user's."""

    def absent() -> types.ModuleType:
        raise ImportError

    monkeypatch.setattr(fused, "_kernel", absent)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not fused.is_usable(undecided)


@pytest.mark.parametrize("what", ["fills nothing in", "cannot be compiled"])
def test_a_wrong_kernel_is_not_used(what: str, undecided: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that fails its self-test gives way to torch, with one warning that says why."""

    def launch(table: Tensor, rows: Tensor, bins: Tensor, **_: Any) -> None:
        if what == "cannot be compiled":
            raise RuntimeError("no compiler")
        rows.zero_()
        bins.zero_()

    module = types.SimpleNamespace(reduce_chunks={(n,): launch for n in range(100)})
    monkeypatch.setattr(fused, "_kernel", lambda: module)
    with pytest.warns(RuntimeWarning, match="no compiler" if "compiled" in what else "l2 is"):
        assert not fused.is_usable(undecided)
    assert not fused.is_usable(undecided)


def test_triton_is_not_imported_for_tensors_on_the_host() -> None:
    """Reducing on the host, and importing the adapter, leave Triton alone."""
    program = (
        "import sys, torch; before = 'triton' in sys.modules\n"
        "from gradwatch_torch.device import OnDevice\n"
        "OnDevice([torch.ones(3)], counts=True, histogram=True).resolve()\n"
        "assert before or 'triton' not in sys.modules\n"
        "assert 'gradwatch_torch.triton_kernel' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=100)


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
