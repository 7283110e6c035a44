"""The reduction as one custom call on CPU, which reads every array once and takes the compiler no time.

Separate reductions of XLA read an array several times and cost most of a network's compilation. The call is one of C,
inside the program; Python is not called. It is left out on other devices, where the library was not built, and on
sharded arrays, which a custom call would gather.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from gradwatch import native

TARGET: Final = "gradwatch_reduce"

SHARE: Final = 2**20
"""Elements of one call, about; XLA runs several calls side by side."""

_Shape: Any = jax.ShapeDtypeStruct


def fits(arrays: Sequence[jax.Array]) -> bool:
    """Tells whether these arrays can be read by the call."""
    return all(array.dtype.name in native.KINDS for array in arrays) and _registered()


def reduce(
    arrays: Sequence[jax.Array], results: Sequence[Any], wanted: Any, flags: Any, *, minus: Sequence[jax.Array] | None
) -> list[jax.Array]:
    """Returns columns of ``kernel.Rows``.

    Args:
        arrays: floating-point arrays of any shapes.
        results: shapes of the columns: floats and integers, then counts, then bins, as far as they are asked for.
        wanted: whether to read them, possibly known only when the program runs; zeros otherwise.
        flags: those of ``gradwatch.native``, possibly known only when the program runs.
        minus: arrays of the same shapes; then the differences are reduced.
    """
    control = jnp.stack([jnp.asarray(word, jnp.int32) for word in (wanted, flags, minus is not None)])
    return list(jax.ffi.ffi_call(TARGET, results)(control, *arrays, *(minus or ())))


def shares(sizes: Sequence[int]) -> list[list[int]]:
    """Divides positions of arrays of these sizes into one list for each call."""
    shares: list[list[int]] = [[]]
    filled = 0
    for i, size in enumerate(sizes):
        if filled >= SHARE:
            shares.append([])
            filled = 0
        shares[-1].append(i)
        filled += size
    return shares


@functools.cache
def _registered() -> bool:
    """Makes the call known to XLA, and tries it."""
    library = native.load(Path(__file__).with_name("_xla.so"))
    if library is None or jax.default_backend() != "cpu":
        return False
    try:
        jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(library.gradwatch_xla_reduce), platform="cpu")
        with jax.ensure_compile_time_eval():
            results = [_Shape((1, 3), jnp.float32), _Shape((1, 3), jnp.int32)]
            floats, integers = reduce([jnp.asarray([3.0, -4.0], jnp.float32)], results, True, 0, minus=None)
            found = np.asarray(floats)[0] * np.exp2([2.0 * int(integers[0, 0]), int(integers[0, 0]), 0])
    except Exception:  # another XLA than the call was written for; its own operations do the same
        return False
    return bool(np.allclose(found, [25, -1, 4]))
