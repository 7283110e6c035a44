"""Keeps a step's donated buffers from being used for results of ours.

JAX gives a donated buffer up for any result of as many elements, on several devices for any of as many bytes. A donated
array that fits none of the user's results stays alive, and a program may count on that; so none of ours may fit it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from gradwatch_jax.captured import Captured, Ring
from gradwatch_jax.kernel import Rows
from gradwatch_jax.packing import Packed


def padded(captured: Captured | Packed, arguments: Iterable[Any]) -> Captured | Packed:
    """Returns what was captured, with further rows where an array has the size of one of the step's arguments.

    Rows are added at the end, so that readers who know how many there are find theirs.
    """
    arrays = [array for array in jax.tree.leaves(arguments) if hasattr(array, "size") and hasattr(array, "dtype")]
    elements = {int(array.size) for array in arrays}
    parts = [n for n in range(1, jax.device_count() + 1) if jax.device_count() % n == 0]
    sizes = {int(array.size * array.dtype.itemsize) // n for array in arrays for n in parts}

    def fits(array: Any) -> bool:
        return array.size in elements or (len(parts) > 1 and array.size * array.dtype.itemsize in sizes)

    if isinstance(captured, Packed):
        joined: Packed = jax.tree.map(lambda array: _longer(array, 0, fits), captured)
        return joined
    return replace(
        captured,
        gradients=tuple(_ring(ring, fits) for ring in captured.gradients),
        update=_rows(captured.update, fits),
        weight=_rows(captured.weight, fits),
        activations={signal: _rows(rows, fits) for signal, rows in captured.activations.items()},
        rate=None if captured.rate is None else _longer(captured.rate[None], 0, fits),
    )


def _ring(ring: Ring, fits: Callable[[Any], bool]) -> Ring:
    axis = int(ring.count is not None)
    rows = jax.tree.map(lambda column: _longer(column, axis, fits), ring.rows)
    losses, count = jax.tree.map(lambda x: _longer(x if x.ndim else x[None], 0, fits), (ring.losses, ring.count))
    return Ring(rows, losses, count)


def _rows(rows: Rows | None, fits: Callable[[Any], bool]) -> Any:
    return jax.tree.map(lambda column: _longer(column, 0, fits), rows)


def _longer(array: Any, axis: int, fits: Callable[[Any], bool]) -> Any:
    """Returns an array with as many copies of its last row as keep it from fitting."""
    last = jax.lax.slice_in_dim(array, array.shape[axis] - 1, array.shape[axis], axis=axis)
    while fits(array):
        array = jnp.concatenate([array, last], axis)
    return array
