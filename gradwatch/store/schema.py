"""The Arrow schemas of rows of sites and rows of steps, and the way between them and numpy columns."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from gradwatch.record import STEP_FACTS
from gradwatch.statistics import BINS, NULL, Float, Histogram, Integer
from gradwatch.store import arrays
from gradwatch.store.columns import COUNTS, KEYS, ROW_COLUMNS, STEP_COLUMNS, UNITS, VALUES, Column, Rows, StepRows
from gradwatch.store.layout import SCHEMA_VERSION, STEPS

VERSION_KEY: Final = b"gradwatch.schema"
_METADATA: Final = {VERSION_KEY: str(SCHEMA_VERSION).encode()}
_HISTOGRAM_BYTES: Final = 4 * BINS
_SMALL: Final = frozenset(UNITS) - {"saturated"}


def _row_type(name: str) -> pa.DataType:
    if name in KEYS:
        return pa.from_numpy_dtype(KEYS[name])
    if name in VALUES:
        return pa.float64()
    return pa.uint32() if name in _SMALL else pa.uint64()


ROW_SCHEMA: Final = pa.schema(
    [pa.field(name, _row_type(name), nullable=name not in (*KEYS, "n")) for name in ROW_COLUMNS]
    + [pa.field("histogram", pa.binary(_HISTOGRAM_BYTES))],
    metadata=_METADATA,
)
STEP_SCHEMA: Final = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("optimizer", pa.uint8(), nullable=False),
        pa.field("time", pa.float64(), nullable=False),
        pa.field("skipped", pa.bool_(), nullable=False),
        pa.field("late", pa.bool_(), nullable=False),
        *(pa.field(name, pa.float64()) for name in STEP_FACTS),
        pa.field("logged", pa.map_(pa.string(), pa.float64())),
    ],
    metadata=_METADATA,
)


def to_arrow(rows: Rows | StepRows) -> pa.RecordBatch:
    """Returns rows as one record batch of ``ROW_SCHEMA`` or ``STEP_SCHEMA``."""
    if isinstance(rows, Rows):
        columns = [_to_array(rows[name], ROW_SCHEMA.field(name).type) for name in ROW_COLUMNS]
        return pa.RecordBatch.from_arrays([*columns, _histograms(rows)], schema=ROW_SCHEMA)
    columns = [_to_array(rows[name], STEP_SCHEMA.field(name).type) for name in STEP_COLUMNS]
    return pa.RecordBatch.from_arrays([*columns, _logged(rows)], schema=STEP_SCHEMA)


def from_arrow(kind: str, batch: pa.RecordBatch) -> Rows | StepRows:
    """Returns a record batch as rows; columns that an older release did not write are null.

    Raises:
        ValueError: (``pa.ArrowInvalid`` is one) when types or values are not those of the schema.
    """
    schema = STEP_SCHEMA if kind == STEPS else ROW_SCHEMA
    for field in schema:
        at = batch.schema.get_all_field_indices(field.name)
        if len(at) > 1 or (at and not _same_type(batch.schema.field(at[0]).type, field.type)):
            raise ValueError(f"column {field.name} is not {field.type}")
        if not at and not field.nullable:
            raise ValueError(f"column {field.name} is missing")
    batch.validate(full=True)
    return _step_rows_from(batch) if kind == STEPS else _rows_from(batch)


def _same_type(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_map(wanted):
        return bool(
            pa.types.is_map(found) and _plain(found.key_type) == wanted.key_type and found.item_type == pa.float64()
        )
    return bool(found == wanted)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _to_array(column: Column, kind: pa.DataType) -> pa.Array:
    if column.dtype.kind == "f":
        return arrays.primitive(column, kind, ~np.isnan(column))
    if pa.types.is_unsigned_integer(kind) and column.dtype == np.int64:
        valid = column != NULL
        if not valid.any():
            return pa.nulls(len(column), kind)
        return arrays.primitive(column, kind, valid)
    return arrays.primitive(column, kind)


def _histograms(rows: Rows) -> pa.Array:
    if not len(rows.histogram_rows):
        return pa.nulls(len(rows), pa.binary(_HISTOGRAM_BYTES))
    counts = np.zeros((len(rows), BINS), dtype="<u4")
    counts[rows.histogram_rows] = rows.histogram
    valid = np.zeros(len(rows), dtype=np.bool_)
    valid[rows.histogram_rows] = True
    return arrays.binary(counts, _HISTOGRAM_BYTES, valid)


def _logged(rows: StepRows) -> pa.Array:
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum(np.bincount(rows.logged_row, minlength=len(rows)), out=offsets[1:])
    keys = arrays.texts([rows.names[code] for code in rows.logged_name.tolist()])
    values = arrays.primitive(rows.logged_value, pa.float64())
    return pa.MapArray.from_arrays(arrays.primitive(offsets, pa.int32()), keys, values)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    return batch.column(name) if name in batch.schema.names else None


def _rows_from(batch: pa.RecordBatch) -> Rows:
    columns: dict[str, Column] = {name: _required(batch, name) for name in KEYS}
    columns |= {name: _floats(_column(batch, name), len(batch)) for name in VALUES}
    columns |= {name: _integers(_column(batch, name), len(batch)) for name in COUNTS}
    return Rows(columns, *histograms_from(_column(batch, "histogram")))


def histograms_from(held: pa.Array | None) -> tuple[Integer, Histogram]:
    """Returns the positions of the rows that have a histogram, shape [h], and these, shape [h, 64]."""
    if held is None or held.null_count == len(held):
        return np.zeros(0, dtype=np.int64), np.zeros((0, BINS), dtype=np.uint32)
    valid = arrays.validity(held)
    data = np.frombuffer(held.buffers()[1], dtype="<u4", offset=held.offset * _HISTOGRAM_BYTES)
    counts = data[: len(held) * BINS].reshape(-1, BINS)
    rows = np.arange(len(held)) if valid is None else np.flatnonzero(valid)
    return rows, (counts if valid is None else counts[rows]).astype(np.uint32, copy=False)


def column_from(held: pa.Array, name: str) -> Column | None:
    """Returns one column of rows of sites; None when it is null throughout.

    Raises:
        ValueError: when its type or values are not those of the schema.
    """
    if held.type != ROW_SCHEMA.field(name).type:
        raise ValueError(f"column {name} is not {ROW_SCHEMA.field(name).type}")
    if name in KEYS:
        return _whole(held, name)
    if held.null_count == len(held):
        return None
    return _floats(held, len(held)) if name in VALUES else _integers(held, len(held))


def _step_rows_from(batch: pa.RecordBatch) -> StepRows:
    columns: dict[str, Column] = {name: _required(batch, name) for name in STEP_COLUMNS if name not in STEP_FACTS}
    columns |= {name: _floats(_column(batch, name), len(batch)) for name in STEP_FACTS}
    logged = _column(batch, "logged")
    if logged is None:
        logged = pa.nulls(len(batch), STEP_SCHEMA.field("logged").type)
    offsets = arrays.values(logged.offsets).astype(np.int64)
    counts = np.diff(offsets)
    valid = arrays.validity(logged)
    if valid is not None:
        counts[~valid] = 0
    row = np.repeat(np.arange(len(batch)), counts)
    at = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(offsets[:-1], counts)
    codes, names = _names(logged.keys)
    values = _floats(logged.items, len(logged.items))
    return StepRows(columns, row, codes[at], values[at], names)


def _names(keys: pa.Array) -> tuple[Integer, tuple[str, ...]]:
    if pa.types.is_dictionary(keys.type):
        return arrays.values(keys.indices).astype(np.int64), tuple(keys.dictionary.to_pylist())
    words = keys.to_pylist()
    known = {word: i for i, word in enumerate(dict.fromkeys(words))}
    return np.array([known[word] for word in words], dtype=np.int64), tuple(known)


def _required(batch: pa.RecordBatch, name: str) -> Column:
    return _whole(batch.column(name), name)


def _whole(column: pa.Array, name: str) -> Column:
    if column.null_count:
        raise ValueError(f"column {name} holds nulls")
    return arrays.values(column)


def _floats(column: pa.Array | None, length: int) -> Float:
    if column is None:
        return np.full(length, np.nan)
    valid = arrays.validity(column)
    values = arrays.values(column)
    return values if valid is None else np.where(valid, values, np.nan)


def _integers(column: pa.Array | None, length: int) -> Integer:
    if column is None or column.null_count == length:
        return np.full(length, NULL, dtype=np.int64)
    values = arrays.values(column)
    valid = arrays.validity(column)
    known = values if valid is None else values[valid]
    if len(known) and known.max() > np.iinfo(np.int64).max:
        raise ValueError("a count is larger than any can be")
    counts: Integer = values.astype(np.int64)
    return counts if valid is None else np.where(valid, counts, NULL)
