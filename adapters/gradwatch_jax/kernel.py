"""The statistics of arrays, as operations inside a traced program.

Nothing here flattens, joins or samples an array, because on a sharded one that would gather all of it; reductions run
over all axes. What the statistics read stands behind an optimization barrier, so that the compiler fuses the training
step as it would without them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwatch import native
from gradwatch.statistics import BINS, LOWEST_EXPONENT
from gradwatch_jax import custom_call

Array = jax.Array
Tree = TypeVar("Tree")

SMALL: Final = 2**16
"""Elements up to which arrays of one shape are stacked and reduced together: that keeps the compilation of networks
with hundreds of layers short, at the price of a copy. Stacking four of 65,536 elements cost more than it saved (capture
of an MLP step: 24 % of its processor time stacked, 14 % apart)."""

_PLAIN_RANGE: Final = (2.0**-40, 2.0**40)
"""Largest elements for which a sum of squares in float32 keeps 1e-5; outside, elements are scaled first."""

_Shape: Any = jax.ShapeDtypeStruct
_ZERO_SLOT, _NO_SLOT = BINS, BINS + 1


class Rows(NamedTuple):
    """Statistics of m arrays on the device; sums are those of the elements divided by 2^exponent.

    Attributes:
        floats: sum of squares, sum, largest size (itself not scaled), shape [m, 3].
        integers: exponent, NaN, infinite, shape [m, 3], int32.
        counts: zeros, subnormal, shape [m, 2], int32, or None.
        bins: the histogram of ``gradwatch.statistics``, shape [m, 64], int32, or None.
    """

    floats: Array
    integers: Array
    counts: Array | None = None
    bins: Array | None = None


def reduce(
    arrays: Sequence[Array],
    *,
    full: Array | bool | None,
    histogram: bool = False,
    grouped: bool = True,
    minus: Sequence[Array] | None = None,
    wanted: Array | bool = True,
) -> Rows:
    """Returns the statistics of real, non-empty arrays, in their order.

    Args:
        arrays: floating-point arrays of any shapes.
        full: whether to count zeros and subnormals too, possibly known only when the program runs; None never does.
        histogram: whether counting includes the histogram.
        grouped: whether arrays may be brought together in memory; False for sharded ones.
        minus: arrays of the same shapes; then the differences are measured, in float32 or wider.
        wanted: whether to read the arrays at all, possibly known only when the program runs; zeros otherwise.
    """
    if grouped and custom_call.fits(arrays):
        return _one_read(arrays, full, histogram, minus, wanted)
    if wanted is True:
        return separate_reductions(arrays, full=full, histogram=histogram, grouped=grouped, minus=minus)
    shapes = shapes_of_rows(arrays, full=full, histogram=histogram)
    rows: Rows = only_if(
        wanted,
        lambda: separate_reductions(arrays, full=full, histogram=histogram, grouped=grouped, minus=minus),
        shapes,
    )
    return rows


def _one_read(
    arrays: Sequence[Array],
    full: Array | bool | None,
    histogram: bool,
    minus: Sequence[Array] | None,
    wanted: Array | bool,
) -> Rows:
    flags = 0 if full is None else jnp.where(full, native.HISTOGRAM if histogram else native.COUNTS, 0)
    parts = []
    for share in custom_call.shares([array.size for array in arrays]):
        read = [arrays[i] for i in share]
        shapes = [shape for shape in shapes_of_rows(read, full=full, histogram=histogram) if shape is not None]
        others = None if minus is None else _apart([minus[i] for i in share])
        parts.append(custom_call.reduce(_apart(read), shapes, wanted, flags, minus=others))
    return Rows(*(column[0] if len(column) == 1 else jnp.concatenate(column) for column in zip(*parts, strict=True)))


def separate_reductions(
    arrays: Sequence[Array],
    *,
    full: Array | bool | None,
    histogram: bool = False,
    grouped: bool = True,
    minus: Sequence[Array] | None = None,
) -> Rows:
    """Returns the same by operations of XLA alone, which can stand where a custom call cannot.

    Under ``vmap`` or on arrays that only the compiler spreads over devices; it also keeps more of the user's program
    as it was, because an operand of a call must be written out.
    """
    groups = _groups(arrays, grouped)
    parts = []
    for group in groups:
        stacked = _stack([arrays[i] for i in group])
        if minus is not None:
            stacked = _wide(stacked) - _wide(_stack([minus[i] for i in group]))
        parts.append(_reduce_group(stacked, full, histogram))
    order = np.argsort([i for group in groups for i in group])
    floats, integers, counts, bins = (_join([part[i] for part in parts], order) for i in range(len(Rows._fields)))
    assert floats is not None
    assert integers is not None
    return Rows(floats, integers, counts, bins)


def only_if(flag: Array | bool, compute: Callable[[], Any], shapes: Any) -> Any:
    """Computes arrays only where the flag is set when the program runs; zeros of the given shapes otherwise."""

    def nothing() -> Any:
        return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    return lax.cond(flag, compute, nothing)


def shapes_of_rows(arrays: Sequence[Array] | Array, *, full: Array | bool | None, histogram: bool = False) -> Rows:
    """Returns the shapes of what ``reduce`` returns."""
    kinds = {arrays.dtype} if isinstance(arrays, Array) else {array.dtype for array in arrays}
    m, floats = len(arrays), jnp.result_type(jnp.float32, *kinds)
    return Rows(
        _Shape((m, 3), floats),
        _Shape((m, 3), jnp.int32),
        None if full is None else _Shape((m, 2), jnp.int32),
        None if full is None or not histogram else _Shape((m, BINS), jnp.int32),
    )


def _groups(arrays: Sequence[Array], grouped: bool) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for i, array in enumerate(arrays):
        key = (array.shape, array.dtype) if grouped and array.size <= SMALL else i
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _stack(arrays: Sequence[Array]) -> Array:
    apart = [_apart(array) for array in arrays]
    return jnp.stack(apart) if len(apart) > 1 else apart[0][None]


def _apart(arrays: Tree) -> Tree:
    """Returns an array, or the arrays of one call, behind a barrier: one each would take a third of the compilation."""
    apart: Tree = lax.optimization_barrier(lax.stop_gradient(arrays))
    return apart


def _reduce_group(stacked: Array, full: Array | bool | None, histogram: bool) -> Rows:
    floats, integers = _lean(stacked)
    if full is None:
        return Rows(floats, integers)
    shapes = shapes_of_rows(stacked, full=full, histogram=histogram)
    counts, bins = only_if(full, lambda: _count(stacked, histogram), (shapes.counts, shapes.bins))
    return Rows(floats, integers, counts, bins)


def _join(parts: Sequence[Array | None], order: np.ndarray[Any, np.dtype[np.intp]]) -> Array | None:
    known = [part for part in parts if part is not None]
    if not known:
        return None
    joined = jnp.concatenate(known)
    return joined if (np.diff(order) > 0).all() else joined[order]


def _lean(stacked: Array) -> tuple[Array, Array]:
    """Returns floats and integers of each row of the first axis.

    Where a row's largest element leaves the range in which plain sums are right, or a sum is not finite, the rows are
    read again: first for the largest finite element by its bits, because subnormals are flushed to zero in arithmetic,
    then, unless all such rows are exactly zero, scaled by the power of two of that element.
    """
    x, axes = _wide(stacked), tuple(range(1, stacked.ndim))
    largest, squares = jnp.max(jnp.abs(x), axes), jnp.sum(x * x, axes)
    fine = (largest >= _PLAIN_RANGE[0]) & (largest <= _PLAIN_RANGE[1]) & jnp.isfinite(squares)

    def plain() -> tuple[Array, Array]:
        floats = jnp.stack([squares, jnp.sum(_wide(stacked), axes), largest], 1)
        return floats, jnp.zeros_like(floats, jnp.int32)

    def careful() -> tuple[Array, Array]:
        size = _size_bits(_wide(stacked))
        exact = lax.bitcast_convert_type(jnp.max(jnp.where(size < _infinity(size), size, 0), axes), x.dtype)
        zero = (lax.bitcast_convert_type(exact, size.dtype) == 0) & jnp.isfinite(squares)
        rows: tuple[Array, Array] = lax.cond(jnp.all(fine | zero), plain, lambda: _scaled(_wide(stacked), exact, axes))
        return rows

    floats, integers = lax.cond(jnp.all(fine), plain, careful)
    return floats, integers


def _scaled(x: Array, largest: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    nan, inf = jnp.isnan(x), jnp.isinf(x)
    exponent = jnp.where(largest > 0, jnp.frexp(largest)[1], 0)
    half = jnp.expand_dims(exponent // 2, axes)
    rest = jnp.expand_dims(exponent, axes) - half
    scaled = jnp.ldexp(jnp.ldexp(jnp.where(nan | inf, 0, x), -half), -rest)
    floats = jnp.stack([jnp.sum(scaled * scaled, axes), jnp.sum(scaled, axes), largest], 1)
    columns = [exponent, jnp.sum(nan, axes, dtype=jnp.int32), jnp.sum(inf, axes, dtype=jnp.int32)]
    return floats, jnp.stack([column.astype(jnp.int32) for column in columns], 1)


def _count(stacked: Array, histogram: bool) -> tuple[Array, Array | None]:
    """Counts by the bits of each element, so that nothing is flushed; counts are integers, exact above 2^24."""
    axes = tuple(range(1, stacked.ndim))
    x = _wide(stacked)
    size = _size_bits(x)
    smallest = np.asarray(jnp.finfo(stacked.dtype).smallest_normal, x.dtype).view(size.dtype)
    subnormal = jnp.sum((size > 0) & (size < smallest), axes, dtype=jnp.int32)
    if not histogram:
        return jnp.stack([jnp.sum(size == 0, axes, dtype=jnp.int32), subnormal], 1), None
    fraction = jnp.finfo(x.dtype).nmant
    octave = (size >> fraction) - (jnp.finfo(x.dtype).maxexp - 1) + 1 - LOWEST_EXPONENT
    slot = jnp.where(size == 0, _ZERO_SLOT, jnp.clip(octave, 0, BINS - 1))
    slot = jnp.where(size < _infinity(size), slot, _NO_SLOT).astype(jnp.int32)
    row = lax.broadcasted_iota(jnp.int32, slot.shape, 0)
    slots = jnp.zeros((len(stacked), BINS + 2), jnp.int32).at[row, slot].add(1)
    return jnp.stack([slots[:, _ZERO_SLOT], subnormal], 1), slots[:, :BINS]


def _wide(x: Array) -> Array:
    """Returns float32, or float64 as it is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _size_bits(x: Array) -> Array:
    """Returns the bits of |x| as an integer; they are ordered as |x| is, with infinity and NaN at the end."""
    kind = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
    bits: Array = lax.bitcast_convert_type(x, kind) & jnp.iinfo(kind).max
    return bits


def _infinity(size: Array) -> Any:
    kind = np.float64 if size.dtype == jnp.int64 else np.float32
    return np.asarray(np.inf, kind).view(size.dtype)
