"""The C library against the core's definition of every statistic."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradwatch import native
from gradwatch.statistics import Statistics, measure

needs_library = pytest.mark.skipif(
    not native.available(), reason="there was no C compiler when gradwatch was installed"
)

ALL = native.COUNTS | native.HISTOGRAM


def reduced(
    *given_arrays: npt.NDArray[Any], flags: int = ALL, minus: list[npt.NDArray[Any]] | None = None
) -> Statistics:
    def addresses(of: Sequence[npt.NDArray[Any]]) -> list[int]:
        return [array.ctypes.data for array in of]

    known = native.Arrays(
        [array.size for array in given_arrays], [native.KINDS[array.dtype.name] for array in given_arrays]
    )
    others = None if minus is None else addresses(minus)
    return known.reduce(addresses(given_arrays), flags=flags, minus=others).statistics()


def check(found: Statistics, at: int, array: npt.NDArray[Any], smallest_normal: float | None = None) -> None:
    """Compares one row with the definition: floats to 1e-5, sums to rounding of their largest terms, counts exactly."""
    expected = measure(array, smallest_normal=smallest_normal)
    np.testing.assert_allclose(found.l2[at], expected.l2[0], rtol=1e-5)
    np.testing.assert_allclose(found.absmax[at], expected.absmax[0], rtol=0)
    slack = 1e-5 * float(np.nan_to_num(expected.l2[0])) * math.sqrt(max(array.size, 1))
    np.testing.assert_allclose(found.sum[at], expected.sum[0], atol=slack, rtol=1e-6)
    for name in ("n", "nan", "inf", "zeros", "subnormal", "histogram"):
        assert np.array_equal(getattr(found, name)[at], getattr(expected, name)[0]), name


def test_the_library_is_there_where_a_compiler_is() -> None:
    """An installation on a machine with a C compiler has the library, so that nobody measures slowly unawares."""
    if shutil.which("cc") is None or sys.platform == "win32":
        pytest.skip("no C compiler")
    assert native.available()


@needs_library
@settings(max_examples=200)
@given(
    st.one_of(
        arrays.arrays(np.float16, st.integers(0, 40), elements=st.floats(width=16)),
        arrays.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)),
        arrays.arrays(np.float64, st.integers(0, 40), elements=st.floats(-1e150, 1e150)),
    )
)
def test_any_array_is_measured_as_defined(values: npt.NDArray[Any]) -> None:
    """Every float16, float32 and float64 array, special values among them, has the statistics of the definition."""
    check(reduced(values), 0, values)


@needs_library
@pytest.mark.parametrize("exponent", [-140, -126, -100, -64, -41, -40, 0, 40, 41, 63, 100, 126])
@pytest.mark.parametrize("kind", [np.float32, ml_dtypes.bfloat16])
def test_every_magnitude_is_read_rightly_at_every_length(kind: type, exponent: int) -> None:
    """From subnormal to the largest numbers, around the borders of blocks, with zeros, NaN and infinity between."""
    random = np.random.default_rng(exponent + 200)
    smallest = float(np.finfo(np.float32).smallest_normal)
    for n in (1, 3, 1023, 1024, 1025, 5000):
        plain: npt.NDArray[Any]
        with np.errstate(over="ignore"):
            plain = np.ldexp(random.standard_normal(n), exponent).astype(np.float32).astype(kind)
        holed = plain.copy()
        holed[random.random(n) < 0.1] = 0
        holed[random.random(n) < 0.02] = np.nan
        holed[random.random(n) < 0.02] = -np.inf
        found = reduced(plain, holed)
        check(found, 0, plain.astype(np.float32), smallest)
        check(found, 1, holed.astype(np.float32), smallest)


@needs_library
@pytest.mark.parametrize("exponent", [-1074, -1060, -1000, -501, -499, 0, 499, 501, 1000])
def test_float64_is_scaled_where_squares_would_leave_its_range(exponent: int) -> None:
    """The norm is right where sums of squares overflow or vanish even in float64."""
    random = np.random.default_rng(exponent + 2000)
    for n in (1, 1024, 3000):
        values = np.ldexp(random.standard_normal(n), exponent)
        values[random.random(n) < 0.02] = np.inf
        check(reduced(values), 0, values)


@needs_library
@pytest.mark.parametrize("kind", [np.float32, np.float64, ml_dtypes.bfloat16, np.float16])
def test_differences_are_taken_in_float32_or_wider(kind: type) -> None:
    """With ``minus`` the statistics are those of the differences, which narrow types could not hold."""
    random = np.random.default_rng(5)
    for n in (1, 1000, 1025, 4097):
        new: npt.NDArray[Any] = random.standard_normal(n).astype(kind)
        old: npt.NDArray[Any] = random.standard_normal(n).astype(kind)
        wide = np.float64 if kind is np.float64 else np.float32
        check(reduced(new, minus=[old]), 0, new.astype(wide) - old.astype(wide))


@needs_library
def test_what_is_not_asked_for_is_null() -> None:
    """Counts and histogram are taken only when asked for; an array without finite elements has null floats."""
    values = np.array([1.0, np.nan], dtype=np.float32)
    lean = reduced(values, flags=0)
    assert lean.zeros is None
    assert lean.histogram is None
    counted = reduced(values, flags=native.COUNTS)
    assert counted.zeros is not None
    assert counted.histogram is None
    empty = reduced(values[:0], values[1:])
    assert np.isnan([empty.l2, empty.sum, empty.absmax]).all()
    assert empty.nan.tolist() == [0, 1]


def test_the_library_can_be_switched_off() -> None:
    """``GRADWATCH_NATIVE=0`` leaves it unused."""
    code = "from gradwatch import native; raise SystemExit(native.available())"
    root = Path(native.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env={"GRADWATCH_NATIVE": "0"}, check=False)
    assert done.returncode == 0
