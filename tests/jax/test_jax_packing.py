"""A captured step in two arrays holds every bit of the many it is made of, and a lean step reads one of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradwatch.schedule import Plan
from gradwatch_jax.captured import Captured, Layout, Ring
from gradwatch_jax.kernel import Rows
from gradwatch_jax.packing import Packed, pack
from gradwatch_jax.padding import padded

LEAN = Plan(gradient=True, histogram=False, signals=frozenset({"gradient"}))
SAMPLED = Plan(gradient=True, histogram=True, signals=frozenset({"gradient"}))
UPDATES = Plan(gradient=True, histogram=False, signals=frozenset({"gradient", "update"}))
LAYOUT = Layout()


def rows(rng: np.random.Generator, *leading: int) -> Rows:
    """Returns rows of any bits, NaN and subnormal numbers among them."""
    bits = rng.integers(-(2**31), 2**31, size=(*leading, 3, 72), dtype=np.int64).astype(np.int32)
    floats = bits[..., :3].view(np.float32)
    return Rows(*(jnp.asarray(part) for part in (floats, bits[..., 3:6], bits[..., 6:8], bits[..., 8:])))


def captured() -> Captured:
    """Returns what a step with a gradient of its own, one in a loop, and a layer could have captured."""
    rng = np.random.default_rng(0)
    rings = (
        Ring(rows(rng), jnp.float32(1.5)),
        Ring(rows(rng, 4), jnp.arange(4, dtype=jnp.float32), jnp.int32(3)),
    )
    return Captured(LAYOUT, rings, rows(rng), None, {"activation": rows(rng)}, jnp.float32(0.1))


def bits(tree: Any) -> list[tuple[tuple[int, ...], str, bytes]]:
    """Returns shape, type and bytes of each array."""
    return [(array.shape, array.dtype.name, np.asarray(array).tobytes()) for array in jax.tree.leaves(tree)]


def packed(given: Captured) -> Packed:
    """Packs inside a compiled program."""
    found = jax.jit(pack)(given)
    assert isinstance(found, Packed)
    return found


@pytest.mark.parametrize("plan", [SAMPLED, UPDATES], ids=["histogram", "update"])
def test_what_is_packed_comes_back_bit_by_bit(plan: Plan) -> None:
    """A plan that fills more than a lean step's columns gives back all arrays, with their shapes, types and bits."""
    given = captured()
    found = packed(given).of(plan).unpacked()
    assert bits(found) == bits(given)
    structure: Any = jax.tree.structure(found)
    assert structure == jax.tree.structure(given)


def test_a_lean_step_reads_one_array() -> None:
    """A plan of gradients alone lets go of the second array, and still gives the rows, losses, counter and rate."""
    given = captured()
    step = packed(given).of(LEAN)
    assert len(step.arrays()) == 1
    found = step.unpacked()
    assert bits(found) == bits(Captured(LAYOUT, tuple(ring.lean() for ring in given.gradients), rate=given.rate))
    assert bits(found) == bits(given.of(LEAN))


def test_padding_a_packed_step_changes_nothing_that_is_read() -> None:
    """Neither array has the size of an argument that is given up, and what is read is the same."""
    given = captured()
    sizes = [array.size for array in packed(given).arrays()]
    arguments = [jnp.zeros(size + more) for size in sizes for more in (0, 1)]

    @jax.jit
    def program(given: Captured) -> Any:
        return padded(pack(given), arguments)

    found = program(given)
    assert not {array.size for array in found.arrays()} & {array.size for array in arguments}
    assert bits(found.unpacked()) == bits(given)


def test_wide_elements_are_left_as_they_are() -> None:
    """What holds elements of 8 bytes, or nothing, is not packed."""
    with jax.enable_x64(True):
        wide = Captured(LAYOUT, (Ring(Rows(jnp.zeros((2, 3), jnp.float64), jnp.zeros((2, 3), jnp.int32))),))
        assert pack(wide) is wide
    empty = Captured(LAYOUT)
    assert pack(empty) is empty
