"""Sealed files: Parquet with page checksums, sorted by site and step, put in place whole."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch.record import STEP_FACTS
from gradwatch.store.columns import VALUES, Rows, StepRows
from gradwatch.store.layout import SCHEMA_VERSION
from gradwatch.store.schema import ROW_SCHEMA, STEP_SCHEMA, VERSION_KEY, to_arrow

GROUP_ROWS: Final = 131_072
SITES_KEY: Final = b"gradwatch.sites"
_ROW_OPTIONS: Final[dict[str, Any]] = {
    "use_byte_stream_split": list(VALUES),
    "column_encoding": dict.fromkeys(("step", "zeros", "subnormal"), "DELTA_BINARY_PACKED"),
    "use_dictionary": [
        *("optimizer", "site", "stage", "n", "nan", "inf"),
        *("units", "silent_units", "silent_delta_units", "saturated"),
    ],
}
_STEP_OPTIONS: Final[dict[str, Any]] = {
    "use_byte_stream_split": ["time"],
    "column_encoding": {"step": "DELTA_BINARY_PACKED"},
    "use_dictionary": ["optimizer", *STEP_FACTS, "logged.key_value.key"],
}


def sealed_bytes(rows: Rows | StepRows, sites: str) -> bytes:
    """Returns rows as the bytes of a sealed file."""
    schema = ROW_SCHEMA if isinstance(rows, Rows) else STEP_SCHEMA
    options = _ROW_OPTIONS if isinstance(rows, Rows) else _STEP_OPTIONS
    steps = rows["step"]
    metadata = {
        VERSION_KEY: str(SCHEMA_VERSION),
        SITES_KEY: sites,
        b"gradwatch.steps": f"{steps.min()} {steps.max()}" if len(steps) else "",
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink, schema.with_metadata(metadata), compression="zstd", write_page_checksum=True, **options
    ) as writer:
        for group in _groups(rows):
            writer.write_batch(to_arrow(group).replace_schema_metadata(metadata), row_group_size=GROUP_ROWS)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def checksum(data: bytes) -> str:
    """Returns the checksum of a sealed file, as it stands in the attempt's manifest."""
    return f"{zlib.crc32(data):08x}"


def _groups(rows: Rows | StepRows) -> Iterator[Rows | StepRows]:
    order = sorted_by_site(rows) if isinstance(rows, Rows) else np.arange(len(rows))
    for start in range(0, len(order), GROUP_ROWS):
        yield rows.take(order[start : start + GROUP_ROWS])


def sorted_by_site(rows: Rows) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the order by site, then step, then arrival."""
    steps = rows["step"]
    if len(steps) and (np.diff(steps) >= 0).all():
        return np.argsort(rows["site"], kind="stable")
    return np.lexsort((steps, rows["site"]))
