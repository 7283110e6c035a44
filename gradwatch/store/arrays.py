"""Arrow arrays over numpy columns, made from their buffers.

``pyarrow.array`` would import pandas, which takes a third of a second of the interpreter while somebody trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def primitive(column: npt.NDArray[Any], kind: pa.DataType, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Returns a column of numbers, null where ``valid`` is False."""
    if kind == pa.bool_():
        data = pa.py_buffer(np.packbits(column.astype(np.bool_), bitorder="little"))
    else:
        data = pa.py_buffer(np.ascontiguousarray(column, dtype=kind.to_pandas_dtype()))
    return pa.Array.from_buffers(kind, len(column), [_bits(valid), data])


def binary(column: npt.NDArray[Any], width: int, valid: npt.NDArray[np.bool_]) -> pa.Array:
    """Returns rows of a fixed number of bytes."""
    buffers = [_bits(valid), pa.py_buffer(np.ascontiguousarray(column))]
    return pa.Array.from_buffers(pa.binary(width), len(column), buffers)


def texts(words: Sequence[str]) -> pa.Array:
    """Returns strings."""
    encoded = [word.encode() for word in words]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
    np.cumsum([len(word) for word in encoded], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def values(array: pa.Array) -> npt.NDArray[Any]:
    """Returns the values of an array of numbers, arbitrary where it is null; a view where that is possible."""
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array), dtype=array.type.to_pandas_dtype())
    if array.type == pa.bool_():
        return _unpacked(buffer, array.offset, len(array))
    dtype = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(buffer, dtype=dtype, count=len(array), offset=array.offset * dtype.itemsize)


def validity(array: pa.Array) -> npt.NDArray[np.bool_] | None:
    """Returns where an array is not null, or None when it is null nowhere."""
    buffer = array.buffers()[0]
    if buffer is None or not array.null_count:
        return None
    return _unpacked(buffer, array.offset, len(array))


def _unpacked(buffer: pa.Buffer, offset: int, length: int) -> npt.NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(buffer, dtype=np.uint8), count=offset + length, bitorder="little")
    return bits[offset:].astype(np.bool_)


def _bits(valid: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    if valid is None or valid.all():
        return None
    return pa.py_buffer(np.packbits(valid, bitorder="little"))
