"""Memory of the compiled step for gradients that are taken deeper inside it: in a loop, a branch, a nested function."""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import lax

from gradwatch_jax.captured import Ring
from gradwatch_jax.kernel import Rows

LOOP: Final = 64
"""Gradients kept of one call of the step where it takes them in a loop."""

NESTED: Final = 8
"""Gradients kept where a nested function takes them, which may be called more than once."""


def new_ring(rows: Rows, loss: Any, kept: int) -> Ring:
    """Returns memory for the last ``kept`` rows and losses of these shapes, and a counter."""

    def memory(x: Any) -> Any:
        return jax.new_ref(jnp.zeros((kept, *x.shape), x.dtype))

    count: Any = jax.new_ref(jnp.zeros((), jnp.int32))
    return Ring(jax.tree.map(memory, rows), jax.tree.map(memory, loss), count)


def write(ring: Ring, rows: Rows, loss: Any, kept: int) -> None:
    """Adds one row for each site, in place of the oldest."""
    count: Any = ring.count
    written = count[...]
    refs, values = jax.tree.leaves((ring.rows, ring.losses)), jax.tree.leaves((rows, loss))
    for ref, value in zip(refs, values, strict=True):
        ref[lax.rem(written, kept)] = value
    count[...] = written + 1


def freeze(ring: Ring) -> Ring:
    """Returns the arrays of memory that is not used any more."""
    return Ring(*jax.tree.map(jax.freeze, (ring.rows, ring.losses, ring.count)))


def take(ring: Ring) -> Ring:
    """Returns copies of the arrays of memory that lives on, and sets its counter to 0."""
    copied = Ring(*jax.tree.map(lambda ref: ref[...], (ring.rows, ring.losses, ring.count)))
    count: Any = ring.count
    count[...] = jnp.zeros((), jnp.int32)
    return copied
