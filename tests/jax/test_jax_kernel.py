"""The statistics inside a program, against the core's definition and against plain Python floats."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradwatch.statistics import Statistics, measure
from gradwatch_jax import custom_call
from gradwatch_jax.host import statistics
from gradwatch_jax.kernel import Rows, reduce


@pytest.fixture(params=["one read", "separate reductions"], scope="module", autouse=True)
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test holds for the custom call and for operations of XLA."""
    if request.param == "one read" and not custom_call.fits([jnp.zeros(1)]):
        pytest.skip("there was no C compiler when gradwatch was installed")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "separate reductions":
            patch.setattr(custom_call, "fits", lambda _: False)
        jax.clear_caches()
        yield


@functools.partial(jax.jit, static_argnames="grouped")
def program(flag: jax.Array, tree: Sequence[jax.Array], *, grouped: bool) -> Rows:
    return reduce(tree, full=flag, histogram=True, grouped=grouped)


def reduced(*given_arrays: Any, full: bool = True, grouped: bool = True) -> Statistics:
    """Reduces arrays inside a compiled program."""
    sizes = np.array([array.size for array in given_arrays], dtype=np.int64)
    rows = program(np.bool_(full), [jnp.asarray(array) for array in given_arrays], grouped=grouped)
    return statistics(rows, sizes, full=full)


def check(found: Statistics, expected: list[Statistics], tolerance: float = 1e-5) -> None:
    """Compares with one row per array; a sum may be off by rounding of its largest terms."""
    for i, row in enumerate(expected):
        np.testing.assert_allclose(found.l2[i], row.l2[0], rtol=tolerance)
        np.testing.assert_allclose(found.absmax[i], row.absmax[0], rtol=1e-7)
        slack = tolerance * float(np.nan_to_num(row.l2[0])) * math.sqrt(max(int(row.n[0]), 1))
        np.testing.assert_allclose(found.sum[i], row.sum[0], atol=slack)
        for name in ("n", "nan", "inf", "zeros", "subnormal"):
            column = getattr(found, name)
            if column is not None:
                assert column[i] == getattr(row, name)[0], name
        if found.histogram is not None:
            assert row.histogram is not None
            assert found.histogram[i].tolist() == row.histogram[0].tolist()


MAGNITUDES = np.array([1e-37, 1e-30, 1e-19, 1e-12, 1e-6, 1.0, 1e6, 1e13, 1e19, 1e30, 1e37], dtype=np.float32)


@pytest.mark.parametrize("n", [1, 1000, 2**20])
def test_l2_is_right_from_tiny_to_huge(n: int) -> None:
    """For elements from 1e-37 to 1e37 the norm equals sqrt(n) times the element to 1e-5."""
    exact = MAGNITUDES
    found = reduced(*(np.full(n, value) for value in exact), grouped=False)
    np.testing.assert_allclose(found.l2, math.sqrt(n) * exact.astype(np.float64), rtol=1e-5)
    np.testing.assert_allclose(found.sum, n * exact.astype(np.float64), rtol=1e-5)
    assert found.absmax.tolist() == exact.tolist()


@settings(max_examples=60)
@given(
    arrays.arrays(
        np.float32,
        st.sampled_from([(), (5,), (2, 3, 4)]),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    )
)
def test_any_float32_array_is_measured_as_defined(values: npt.NDArray[np.float32]) -> None:
    """Whatever bits an array holds, every statistic equals the core's definition."""
    with np.errstate(all="ignore"):
        expected = measure(values)
    found = reduced(values)
    normal = float(np.nan_to_num(expected.absmax[0])) >= np.finfo(np.float32).smallest_normal
    if normal:
        check(found, [expected])
    for name in ("nan", "inf", "zeros", "subnormal", "absmax", "histogram"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_low_precision_is_measured_in_its_own_terms(dtype: Any) -> None:
    """Zeros and subnormals are those of the array's own dtype, and the histogram covers all the rest."""
    rng = np.random.default_rng(0)
    smallest = float(jnp.finfo(dtype).smallest_normal)
    values = np.concatenate([rng.normal(size=500) * 10.0 ** rng.uniform(-4, 3, 500), [0.0] * 7, [smallest / 4] * 5])
    array = jnp.asarray(values, dtype)
    expected = measure(np.asarray(array, dtype=np.float64), smallest_normal=smallest)
    found = reduced(array)
    check(found, [expected])
    assert found.subnormal is not None
    assert int(found.subnormal[0]) >= 5


def test_equal_shapes_are_reduced_together_and_apart_alike() -> None:
    """Stacking small arrays of one shape changes no statistic, also when one of them is zero, tiny or not finite."""
    rng = np.random.default_rng(1)
    tree = [rng.normal(size=(8, 4)).astype(np.float32) for _ in range(6)]
    tree[1][:] = 0
    tree[2] *= np.float32(1e-30)
    tree[3][0, 0], tree[3][1, 1] = np.nan, np.inf
    tree.insert(2, rng.normal(size=3).astype(np.float32))
    expected = [measure(array) for array in tree]
    check(reduced(*tree), expected)
    check(reduced(*tree, grouped=False), expected)


def test_zero_arrays_are_exactly_zero() -> None:
    """A zero array and one of subnormals are told apart by absmax."""
    tiny = np.full(10, 1e-40, dtype=np.float32)
    found = reduced(np.zeros(10, np.float32), tiny)
    assert found.absmax.tolist() == [0.0, float(tiny[0])]
    assert found.zeros is not None
    assert found.zeros.tolist() == [10, 0]


def test_what_the_flag_leaves_out_is_null() -> None:
    """Without the flag the lean statistics are the same and the counts are null."""
    values = np.random.default_rng(2).normal(size=(33, 5)).astype(np.float32)
    found = reduced(values, full=False)
    check(found, [measure(values)])
    assert found.zeros is None
    assert found.histogram is None


def test_double_precision_keeps_its_range() -> None:
    """With x64 enabled an array of 1e-200 is measured in float64."""
    with jax.enable_x64(True):
        found = reduced(jnp.full(100, 1e-200, dtype=jnp.float64))
    assert float(found.l2[0]) == pytest.approx(1e-199, rel=1e-9)


def test_what_is_not_wanted_is_not_read() -> None:
    """Where the program learns at run time that rows are not wanted, they are zeros; else those of the differences."""
    tree = [jnp.full(5, 3.0), jnp.full((2, 2), 2.0)]

    def differences(wanted: jax.Array) -> Rows:
        return reduce(tree, minus=[array / 2 for array in tree], full=True, wanted=wanted)

    compiled = jax.jit(differences)
    assert all(not np.asarray(column).any() for column in jax.tree.leaves(compiled(np.bool_(False))))
    found = statistics(compiled(np.bool_(True)), np.array([5, 4]), full=True)
    check(found, [measure(np.full(5, 1.5, np.float32)), measure(np.full(4, 1.0, np.float32))])
