"""The statistics against element-by-element arithmetic, and the laws by which they merge."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.statistics import (
    BINS,
    NULL,
    Statistics,
    bin_edges,
    concatenate,
    empty,
    histogram,
    measure,
    median,
    medians,
    merge,
)

SPECIAL = [0.0, -0.0, 1e-45, 1e-39, 2.0**-40, 2.0**22, 3e38, math.nan, math.inf, -math.inf]
floats = st.floats(width=32) | st.sampled_from(SPECIAL)
arrays = st.lists(floats, max_size=30).map(lambda values: np.array(values, dtype=np.float32))


def oracle(values: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Computes every statistic with Python floats, one element at a time."""
    numbers = [float(v) for v in values]
    finite = [v for v in numbers if math.isfinite(v)]
    bins = [0] * BINS
    for v in finite:
        if v != 0:
            octave = 0
            while octave < BINS - 1 and abs(v) >= 2.0 ** (octave - 40):
                octave += 1
            bins[octave] += 1
    return {
        "n": len(numbers),
        "l2": math.sqrt(math.fsum(v * v for v in finite)) if finite else None,
        "sum": math.fsum(finite) if finite else None,
        "absmax": max(map(abs, finite)) if finite else None,
        "nan": sum(map(math.isnan, numbers)),
        "inf": sum(map(math.isinf, numbers)),
        "zeros": sum(v == 0 for v in finite),
        "subnormal": sum(0 < abs(v) < 2.0**-126 for v in finite),
        "histogram": bins,
    }


def same(found: Statistics, truth: dict[str, Any]) -> bool:
    for name, value in truth.items():
        column = getattr(found, name)[0]
        if value is None:
            assert np.isnan(column), name
        elif name in ("l2", "sum"):
            scale = max(float(found.absmax[0]), 1e-300)
            assert column == pytest.approx(value, rel=1e-9, abs=1e-9 * scale), name
        else:
            assert np.array_equal(column, value), name
    return True


@given(arrays)
def test_measure_matches_the_oracle(values: npt.NDArray[np.float32]) -> None:
    """Every statistic of any array equals plain arithmetic over its elements."""
    assert same(measure(values), oracle(values))


@pytest.mark.parametrize("size", [1e-37, 1e-19, 1.0, 1e19, 1e37])
def test_l2_holds_over_the_promised_range(size: float) -> None:
    """l2 of a million equal elements is right to 1e-5 from 1e-37 to 1e37."""
    values = np.full(1_000_000, size, dtype=np.float32)
    assert measure(values, full=False).l2[0] == pytest.approx(float(values[0]) * 1000, rel=1e-5)


def test_l2_holds_at_the_ends_of_float64() -> None:
    """Squares that float64 cannot hold do not spoil l2 either."""
    for size in (1e-300, 1e300):
        assert measure(np.full(4, size)).l2[0] == pytest.approx(2 * size)


def close(a: Statistics, b: Statistics) -> bool:
    for field in fields(Statistics):
        first, second = getattr(a, field.name), getattr(b, field.name)
        assert (first is None) == (second is None), field.name
        if first is not None:
            scale = np.nan_to_num(a.absmax).max(initial=0) or 1.0
            np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-9 * scale, err_msg=field.name)
    return True


@given(arrays, arrays)
def test_merging_parts_equals_measuring_the_whole(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> None:
    """Shards, ranks and micro-batches merge to what one reading of all elements gives."""
    assert close(merge(measure(a), measure(b)), measure(np.concatenate([a, b])))


@given(arrays, arrays, arrays)
def test_merging_is_associative_and_commutative(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], c: npt.NDArray[np.float32]
) -> None:
    """The order in which parts arrive does not matter."""
    x, y, z = measure(a), measure(b), measure(c)
    assert close(merge(merge(x, y), z), merge(x, merge(y, z)))
    assert close(merge(x, y), merge(y, x))


@given(arrays)
def test_empty_is_the_identity(values: npt.NDArray[np.float32]) -> None:
    """Merging with no elements changes nothing."""
    assert close(merge(measure(values), empty(1)), measure(values))


def test_an_unknown_statistic_stays_unknown() -> None:
    """A null over finite elements cannot be completed by another part; a part without elements does no harm."""
    known = measure(np.ones(4))
    unknown = Statistics(known.n, known.l2, known.sum, np.array([np.nan]), known.nan, known.inf, np.array([NULL]))
    merged = merge(known, unknown)
    assert np.isnan(merged.absmax[0])
    assert merged.zeros is not None
    assert merged.zeros[0] == NULL
    assert merged.histogram is None
    assert merge(known, measure(np.array([np.nan]))).absmax[0] == 1.0


def test_mean_and_rms_are_over_the_finite_elements() -> None:
    """Non-finite elements are counted and left out; over none the result is null."""
    found = concatenate([measure(np.array([3.0, -1.0, np.nan])), measure(np.array([np.inf]))])
    assert found.mean()[0] == 1.0
    assert found.rms()[0] == pytest.approx(math.sqrt(5))
    assert np.isnan([found.mean()[1], found.rms()[1]]).all()


def test_bins_are_octaves() -> None:
    """Each edge belongs to the bin that it opens."""
    edges = bin_edges()
    assert edges[1] == 2.0**-40
    assert edges[-1] == 2.0**22
    for i, edge in enumerate(edges[1:], start=1):
        assert histogram(np.array([edge])).argmax() == i
        assert histogram(np.array([np.nextafter(edge, 0)])).argmax() == i - 1


def test_concatenate_keeps_only_what_all_parts_have() -> None:
    """A column that one part lacks is not invented."""
    joined = concatenate([measure(np.ones(2)), measure(np.ones(3), full=False)])
    assert joined.n.tolist() == [2, 3]
    assert joined.zeros is None
    assert joined.histogram is None


def test_subnormals_are_those_of_the_arrays_own_dtype() -> None:
    """1e-40 is subnormal in float32 and normal in float64; a limit may be given for types numpy lacks."""
    assert measure(np.array([1e-40], dtype=np.float32)).subnormal == [1]
    assert measure(np.array([1e-40])).subnormal == [0]
    assert measure(np.array([1e-5], dtype=np.float32), smallest_normal=2.0**-14).subnormal == [1]


@given(st.lists(st.floats() | st.sampled_from(SPECIAL), max_size=12))
def test_medians_are_those_of_numpy(values: list[float]) -> None:
    """The median of a list, and of each column of a table, has every digit of numpy's, null included."""
    column = np.array(values, dtype=np.float64)
    with np.errstate(all="ignore"):
        expected = float(np.median(column)) if values else math.nan
        assert [median(values), median(column)] == pytest.approx([expected] * 2, abs=0, rel=0, nan_ok=True)
        if values:
            table = np.stack([column, column[::-1], column[0] + column], axis=1)
            np.testing.assert_array_equal(medians(table), np.median(table, axis=0))
