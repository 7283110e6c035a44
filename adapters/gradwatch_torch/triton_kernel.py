"""The kernel that reduces chunks of many tensors in one launch. Imports Triton, so it is imported only where needed.

Each program reads one chunk and writes one row. Sums are taken in plain float32, a lane for each place of a tile, and
added up in float64. Only where the chunk's largest element says that this fails (squares that overflow or vanish, NaN,
infinity) is the chunk, which lies in the cache by then, read again in float64.
"""

from __future__ import annotations

import triton
import triton.language as tl

FLOAT32 = tl.constexpr(0)
BFLOAT16 = tl.constexpr(1)
FLOAT16 = tl.constexpr(2)

PLAIN_LOWEST = tl.constexpr(0x2B800000)  # bits of 2^-40, below which squares of small elements vanish in float32
PLAIN_HIGHEST = tl.constexpr(0x53800000)  # bits of 2^40, above which a chunk's sum of squares may overflow
INFINITE = tl.constexpr(0x7F800000)
SMALLEST_NORMAL = tl.constexpr(0x00800000)
SMALLEST_NORMAL_FLOAT16 = tl.constexpr(0x38800000)  # 2^-14
SUBNORMAL_UNIT = tl.constexpr(2.0**-149)
FIRST_OCTAVE = tl.constexpr(127 - 1 - 40)  # biased exponent of bin 0's open end


@triton.jit
def load(address, kind, at, length, ALIGNED: tl.constexpr, WHOLE: tl.constexpr):  # noqa: N803
    """Returns elements of any kind as float32, 0 beyond the length; by their bits where that keeps subnormals."""
    if kind == FLOAT32:
        bits = _load(address.to(tl.pointer_type(tl.int32)), at, length, ALIGNED, WHOLE)
        values = bits.to(tl.float32, bitcast=True)
    elif kind == BFLOAT16:
        halves = _load(address.to(tl.pointer_type(tl.int16)), at, length, ALIGNED, WHOLE)
        values = (halves.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        values = _load(address.to(tl.pointer_type(tl.float16)), at, length, ALIGNED, WHOLE).to(tl.float32)
    return values


@triton.jit
def _load(pointer, at, length, ALIGNED: tl.constexpr, WHOLE: tl.constexpr):  # noqa: N803
    """Whole tiles are read without a mask, whose unknown end would forbid instructions that load 16 bytes."""
    pointers = pointer + at
    if ALIGNED:
        pointers = tl.multiple_of(pointers, 16)
    if WHOLE:
        return tl.load(pointers)
    return tl.load(pointers, mask=at < length, other=0)


@triton.jit
def exact(size):
    """Returns the value of float32 bits in float64, also where the processor takes subnormals for zero."""
    subnormal = size.to(tl.float64) * SUBNORMAL_UNIT
    return tl.where(size < SMALLEST_NORMAL, subnormal, size.to(tl.float32, bitcast=True).to(tl.float64))


@triton.jit
def add(
    values,
    limit,
    squares,
    total,
    largest,
    zeros,
    below,
    counted,
    COUNTS: tl.constexpr,  # noqa: N803
    HISTOGRAM: tl.constexpr,  # noqa: N803
):
    """Adds a tile to the accumulators of ``reduce_chunks`` and returns them."""
    size = values.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    squares += values * values
    total += values
    largest = tl.maximum(largest, size)
    if COUNTS:
        zeros += (size == 0).to(tl.int32)
        below += (size < limit).to(tl.int32)
    if HISTOGRAM:
        octave = (size >> 23) - FIRST_OCTAVE
        counted += tl.histogram(tl.minimum(tl.maximum(octave, 0), 63), 64)
    return squares, total, largest, zeros, below, counted


@triton.jit
def reduce_carefully(address, kind, length, ALIGNED: tl.constexpr, TILE: tl.constexpr):  # noqa: N803
    """Returns sum of squares, sum, bits of the absmax, and counts of NaN and infinities, of any chunk."""
    squares = tl.zeros([TILE], dtype=tl.float64)
    total = tl.zeros([TILE], dtype=tl.float64)
    largest = tl.zeros([TILE], dtype=tl.int32)
    nan = tl.zeros([TILE], dtype=tl.int32)
    inf = tl.zeros([TILE], dtype=tl.int32)
    for start in range(0, length, TILE):
        bits = load(address, kind, start + tl.arange(0, TILE), length, ALIGNED, False).to(tl.int32, bitcast=True)
        size = bits & 0x7FFFFFFF
        nan += (size > INFINITE).to(tl.int32)
        inf += (size == INFINITE).to(tl.int32)
        finite = tl.where(size < INFINITE, size, 0)
        wide = exact(finite)
        squares += wide * wide
        total += tl.where(bits < 0, -wide, wide)
        largest = tl.maximum(largest, finite)
    return (
        tl.sum(squares, axis=0),
        tl.sum(total, axis=0),
        tl.max(largest, axis=0),
        tl.sum(nan, axis=0),
        tl.sum(inf, axis=0),
    )


@triton.jit
def reduce_chunks(
    table,
    rows,
    bins,
    COUNTS: tl.constexpr,  # noqa: N803
    HISTOGRAM: tl.constexpr,  # noqa: N803
    ALIGNED: tl.constexpr,  # noqa: N803
    TILE: tl.constexpr,  # noqa: N803
):
    """Reduces the chunk of this program.

    Args:
        table: address, elements and kind of each program's chunk, int64, shape [programs, 3].
        rows: the columns of ``rows.Rows``, float64, shape [programs, 8].
        bins: counts of the histogram, int32, shape [programs, 64].
        COUNTS: whether to count zeros and subnormals.
        HISTOGRAM: whether to count bins; needs COUNTS.
        ALIGNED: whether every address is a multiple of 16.
        TILE: elements read at a time.
    """
    program = tl.program_id(0).to(tl.int64)
    address = tl.load(table + program * 3)
    length = tl.load(table + program * 3 + 1).to(tl.int32)
    kind = tl.load(table + program * 3 + 2).to(tl.int32)
    limit = tl.where(kind == FLOAT16, SMALLEST_NORMAL_FLOAT16, SMALLEST_NORMAL)
    squares = tl.zeros([TILE], dtype=tl.float32)
    total = tl.zeros([TILE], dtype=tl.float32)
    largest = tl.zeros([TILE], dtype=tl.int32)
    zeros = tl.zeros([TILE], dtype=tl.int32)
    below = tl.zeros([TILE], dtype=tl.int32)
    counted = tl.zeros([64], dtype=tl.int32)
    whole = length // TILE * TILE
    for start in range(0, whole, TILE):
        values = load(address, kind, start + tl.arange(0, TILE), length, ALIGNED, True)
        squares, total, largest, zeros, below, counted = add(
            values, limit, squares, total, largest, zeros, below, counted, COUNTS, HISTOGRAM
        )
    if whole < length:
        values = load(address, kind, whole + tl.arange(0, TILE), length, ALIGNED, False)
        squares, total, largest, zeros, below, counted = add(
            values, limit, squares, total, largest, zeros, below, counted, COUNTS, HISTOGRAM
        )
    sum_of_squares = tl.sum(squares.to(tl.float64), axis=0)
    sum_of_values = tl.sum(total.to(tl.float64), axis=0)
    top = tl.max(largest, axis=0)
    nan = top * 0
    inf = top * 0
    if ((top < PLAIN_LOWEST) | (top > PLAIN_HIGHEST)) & (top > 0):
        sum_of_squares, sum_of_values, top, nan, inf = reduce_carefully(address, kind, length, ALIGNED, TILE)
    filled = (length + TILE - 1) // TILE * TILE - length  # zeros that stand in for what lies beyond the end
    zero_count = tl.sum(zeros, axis=0) - filled
    row = rows + program * 8
    tl.store(row, sum_of_squares)
    tl.store(row + 1, sum_of_squares * 0.0)
    tl.store(row + 2, sum_of_values)
    tl.store(row + 3, exact(top))
    tl.store(row + 4, nan.to(tl.float64))
    tl.store(row + 5, inf.to(tl.float64))
    tl.store(row + 6, zero_count.to(tl.float64))
    tl.store(row + 7, (tl.sum(below, axis=0) - filled - zero_count).to(tl.float64))
    if HISTOGRAM:
        bin_ = tl.arange(0, 64)
        counted -= tl.where(bin_ == 0, zero_count + filled, 0)
        counted -= tl.where(bin_ == 63, nan + inf, 0)
        tl.store(bins + program * 64 + bin_, counted)
