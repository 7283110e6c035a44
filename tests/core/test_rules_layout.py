"""The index arrays that rules read off the site table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.record import Site, SiteTable
from gradwatch.rules.layout import lay_out

sizes = st.integers(1, 12)


def initial_rms(*sites: Site) -> list[float]:
    return [float(size) for size in lay_out(SiteTable(sites)).initial_rms]


def weight(shape: tuple[int, ...], fan_in: int | None = None, name: str = "fc.weight") -> Site:
    return Site("gradient", name, "fc", "weight", shape, int(np.prod(shape)), fan_in=fan_in)


@given(inputs=sizes, outputs=sizes)
def test_a_weight_has_the_same_initial_size_however_it_is_laid_out(inputs: int, outputs: int) -> None:
    """With the adapter's fan-in, [in, out] and [out, in] have the size of weights drawn uniformly for that fan-in."""
    first, last = weight((outputs, inputs), inputs, "a.weight"), weight((inputs, outputs), inputs, "a.kernel")
    drawn = np.linspace(-1, 1, 10_001) / np.sqrt(inputs)
    assert initial_rms(first, last) == pytest.approx([np.sqrt(np.mean(drawn**2))] * 2, rel=1e-3)


@given(inputs=sizes, outputs=sizes, kernel=sizes)
def test_without_a_fan_in_the_first_axis_is_the_outputs(inputs: int, outputs: int, kernel: int) -> None:
    """A site that does not know its fan-in counts as [out, in, *kernel]."""
    unknown, known = weight((outputs, inputs, kernel)), weight((outputs, inputs, kernel), inputs * kernel, "known")
    found = initial_rms(unknown, known)
    assert found[0] == pytest.approx(found[1])


def test_empty_parameters_and_scalars_have_a_finite_initial_size() -> None:
    """No shape divides by zero."""
    assert np.isfinite(initial_rms(weight((0, 4)), weight((), name="b"), weight((3, 0), name="c"))).all()
