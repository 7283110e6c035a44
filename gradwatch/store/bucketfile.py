"""Files of roll-ups: Parquet as the sealed rows are, with rounded values and histograms as logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch.statistics import BINS, NULL, Float, Integer
from gradwatch.store import arrays
from gradwatch.store.buckets import (
    BUCKET_COLUMNS,
    BUCKET_COUNTS,
    BUCKET_KEYS,
    BUCKET_VALUES,
    BucketRows,
    join_buckets,
    no_buckets,
)
from gradwatch.store.columns import Column
from gradwatch.store.layout import GROUP_ROWS, SCHEMA_VERSION
from gradwatch.store.schema import VERSION_KEY
from gradwatch.store.sealed import HISTOGRAM, one_value

SITES_KEY: Final = b"gradwatch.sites"
STEPS_KEY: Final = b"gradwatch.steps"
REPLACES_KEY: Final = b"gradwatch.replaces"
"""First serial of the files of this level that are merged in a file, its own where it replaces none."""

WIDTH_KEY: Final = b"gradwatch.width"
_BATCH_ROWS: Final = 16_384

MANTISSA_BITS: Final = 16
"""Bits kept of a value: an error of at most 2^-17, relative."""
_DROPPED: Final = 52 - MANTISSA_BITS
_LOGARITHM: Final = 8.0
"""Histogram counts c are kept as round(8 log2(1 + c)): 4.4 % a bin."""

_TYPES: Final = {
    **{name: pa.from_numpy_dtype(np.uint32 if name == "samples" else kind) for name, kind in BUCKET_KEYS.items()},
    **dict.fromkeys(BUCKET_VALUES, pa.float64()),
    **dict.fromkeys(BUCKET_COUNTS, pa.uint64()),
}
BUCKET_SCHEMA: Final = pa.schema(
    [pa.field(name, _TYPES[name], nullable=name not in BUCKET_KEYS) for name in BUCKET_COLUMNS]
    + [pa.field("histogram", pa.binary(BINS))]
)


def bucket_bytes(rows: BucketRows, sites: str, *, width: int, replaces: int) -> bytes:
    """Returns roll-up rows over windows of ``width`` steps, sorted by site, as the bytes of a file."""
    metadata = {
        VERSION_KEY: str(SCHEMA_VERSION),
        SITES_KEY: sites,
        STEPS_KEY: f"{rows['step_lo'].min()} {rows['step_hi'].max()}" if len(rows) else "",
        REPLACES_KEY: str(replaces),
        WIDTH_KEY: str(width),
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        BUCKET_SCHEMA.with_metadata(metadata),
        compression="zstd",
        write_page_checksum=True,
        column_encoding={
            **dict.fromkeys(BUCKET_VALUES, "BYTE_STREAM_SPLIT"),
            **dict.fromkeys(("step_lo", "step_hi"), "DELTA_BINARY_PACKED"),
        },
        use_dictionary=[name for name in BUCKET_COLUMNS if name not in (*BUCKET_VALUES, "step_lo", "step_hi")],
    ) as writer:
        for start in range(0, len(rows), GROUP_ROWS):
            group = rows.take(np.arange(start, min(start + GROUP_ROWS, len(rows))))
            writer.write_batch(_to_arrow(group).replace_schema_metadata(metadata), row_group_size=GROUP_ROWS)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def rounded(values: Float) -> Float:
    """Rounds to ``MANTISSA_BITS`` bits of mantissa; NaN and infinity stay."""
    bits = np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
    half = np.int64(1) << np.int64(_DROPPED - 1)
    result = ((bits + half) & ~np.int64((1 << _DROPPED) - 1)).view(np.float64)
    return np.where(np.isfinite(values) & np.isfinite(result), result, values)


def _to_arrow(rows: BucketRows) -> pa.RecordBatch:
    columns = [_to_array(rows[name], name) for name in BUCKET_COLUMNS]
    return pa.RecordBatch.from_arrays([*columns, _histograms(rows)], schema=BUCKET_SCHEMA)


def _to_array(column: Column, name: str) -> pa.Array:
    if name in BUCKET_VALUES:
        return arrays.primitive(rounded(column), pa.float64(), ~np.isnan(column))
    if name in BUCKET_COUNTS:
        return arrays.primitive(column, pa.uint64(), column != NULL)
    return arrays.primitive(column, _TYPES[name])


def _histograms(rows: BucketRows) -> pa.Array:
    codes = np.zeros((len(rows), BINS), dtype=np.uint8)
    valid = np.zeros(len(rows), dtype=np.bool_)
    at = rows.histogram_rows
    mean = rows.histogram / np.maximum(rows["histograms"][at], 1)[:, None]
    codes[at] = np.minimum(np.rint(_LOGARITHM * np.log2(1.0 + mean)), 255)
    valid[at] = True
    return arrays.binary(codes, BINS, valid)


def load(opened: pq.ParquetFile, columns: Sequence[str] | None = None) -> BucketRows:
    """Reads a file of roll-ups, or its keys and some of its columns; the others are null then.

    Raises:
        ValueError: when types or values are not those of the schema, and others of ``sealed.BAD``.
    """
    if max((opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)), default=0) > 4 * GROUP_ROWS:
        raise ValueError("it states too many rows")
    wanted = None if columns is None else list(dict.fromkeys([*BUCKET_KEYS, *columns]))
    return buckets_from(opened.read(columns=wanted))


def columns(opened: pq.ParquetFile, names: Sequence[str], *, trusted: bool) -> dict[str, Column | None]:
    """Reads some columns of a file of roll-ups; None for one that is null throughout.

    Args:
        opened: the file.
        names: some of ``BUCKET_COLUMNS``.
        trusted: whether the footer is believed where it states that a column is one value.

    Raises:
        ValueError: when types or values are not those of the schema, and others of ``sealed.BAD``.
    """
    found = {name: one_value(opened, name, _kind(name)) if trusted else None for name in names}
    read = [name for name, column in found.items() if column is None and name in opened.schema_arrow.names]
    if read:
        table = opened.read(columns=read, use_threads=False).combine_chunks()
        for name in read:
            held = table.column(name)
            array = held.combine_chunks() if held.num_chunks != 1 else held.chunk(0)
            found[name] = None if array.null_count == len(array) else _values(array, name)
    return {name: None if column is None or not len(column) else column for name, column in found.items()}


def histogram_codes(opened: pq.ParquetFile) -> tuple[Integer, npt.NDArray[np.uint8]]:
    """Reads the mean histograms as they are kept: the rows that have one, shape [h], and their codes, shape [h, 64]."""
    if HISTOGRAM not in opened.schema_arrow.names:
        return _no_codes()
    parts, begin = [_no_codes()], 0
    for batch in opened.iter_batches(_BATCH_ROWS, columns=[HISTOGRAM]):
        rows, codes = _codes(batch.column(0))
        parts.append((rows + begin, codes.copy()))
        begin += len(batch)
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([codes for _, codes in parts])


def _no_codes() -> tuple[Integer, npt.NDArray[np.uint8]]:
    return np.zeros(0, dtype=np.int64), np.zeros((0, BINS), dtype=np.uint8)


def _codes(held: pa.Array) -> tuple[Integer, npt.NDArray[np.uint8]]:
    if held.type != BUCKET_SCHEMA.field(HISTOGRAM).type:
        raise ValueError(f"column {HISTOGRAM} is not {BUCKET_SCHEMA.field(HISTOGRAM).type}")
    valid = arrays.validity(held)
    rows = np.arange(len(held)) if valid is None else np.flatnonzero(valid)
    if not len(rows) or held.null_count == len(held):
        return _no_codes()
    data = np.frombuffer(held.buffers()[1], dtype=np.uint8, offset=held.offset * BINS)
    return rows, data[: len(held) * BINS].reshape(-1, BINS)[rows]


def buckets_from(table: pa.Table) -> BucketRows:
    """Returns a table as roll-up rows; columns that it lacks are null.

    Raises:
        ValueError: when types or values are not those of the schema.
    """
    parts = [_buckets_from(batch) for batch in table.combine_chunks().to_batches()]
    return join_buckets(parts) if parts else no_buckets()


def _buckets_from(batch: pa.RecordBatch) -> BucketRows:
    for field in BUCKET_SCHEMA:
        at = batch.schema.get_all_field_indices(field.name)
        if len(at) > 1 or (at and batch.schema.field(at[0]).type != field.type) or not (at or field.nullable):
            raise ValueError(f"column {field.name} is missing or not {field.type}")
    batch.validate(full=True)
    columns = {name: _column(batch, name) for name in BUCKET_COLUMNS}
    if (columns["step_lo"] > columns["step_hi"]).any():
        raise ValueError("a bucket ends before it begins")
    if "histogram" not in batch.schema.names:
        return BucketRows(columns, np.zeros(0, dtype=np.int64), np.zeros((0, BINS)))
    rows, codes = _codes(batch.column("histogram"))
    counts = _COUNTS[codes] * np.maximum(columns["histograms"][rows], 1)[:, None]
    return BucketRows(columns, rows, counts)


def _kind(name: str) -> type[np.generic]:
    return BUCKET_KEYS.get(name, np.float64 if name in BUCKET_VALUES else np.int64)


def _column(batch: pa.RecordBatch, name: str) -> Column:
    if name not in batch.schema.names:
        null = np.array(np.nan if name in BUCKET_VALUES else NULL, dtype=_kind(name))
        return np.broadcast_to(null, (len(batch),))
    return _values(batch.column(name), name)


def _values(column: pa.Array, name: str) -> Column:
    if column.type != BUCKET_SCHEMA.field(name).type:
        raise ValueError(f"column {name} is not {BUCKET_SCHEMA.field(name).type}")
    values, valid = arrays.values(column), arrays.validity(column)
    if name in BUCKET_KEYS and valid is not None:
        raise ValueError(f"column {name} holds nulls")
    if (
        values.dtype == np.uint64
        and len(values)
        and (values if valid is None else values[valid]).max(initial=0) >= 2**63
    ):
        raise ValueError("a count is larger than any can be")
    values = values.astype(_kind(name), copy=False)
    return values if valid is None else np.where(valid, values, np.nan if name in BUCKET_VALUES else NULL)


_COUNTS: Final = np.exp2(np.arange(256) / _LOGARITHM) - 1.0
