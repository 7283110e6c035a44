"""Sealed files: Parquet with page checksums, sorted by site and step, put in place whole."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch.record import STEP_FACTS
from gradwatch.store.columns import UNITS, VALUES, Rows, StepRows
from gradwatch.store.layout import GROUP_ROWS, SCHEMA_VERSION
from gradwatch.store.schema import ROW_SCHEMA, STEP_SCHEMA, VERSION_KEY, to_arrow

SITES_KEY: Final = b"gradwatch.sites"
HISTOGRAMS_KEY: Final = b"gradwatch.histograms"
"""The steps at which some row has a histogram: histograms are most of what is to be decoded, and few are asked for."""
_SPLIT: Final = "BYTE_STREAM_SPLIT"
_DELTA: Final = "DELTA_BINARY_PACKED"
_ROW_ENCODING: Final = {**dict.fromkeys(("step", "zeros", "subnormal"), _DELTA), **dict.fromkeys(VALUES, _SPLIT)}
_ROW_DICTIONARY: Final = (*("optimizer", "site", "stage", "n", "nan", "inf"), *UNITS)
_STEP_ENCODING: Final = {"step": _DELTA, "time": _SPLIT}
_STEP_DICTIONARY: Final = ("optimizer", *STEP_FACTS, "logged.key_value.key")


def sealed_bytes(rows: Rows | StepRows, sites: str) -> bytes:
    """Returns rows as the bytes of a sealed file."""
    schema = ROW_SCHEMA if isinstance(rows, Rows) else STEP_SCHEMA
    encoding, dictionary = _options(rows)
    steps = rows["step"]
    metadata = {
        VERSION_KEY: str(SCHEMA_VERSION),
        SITES_KEY: sites,
        b"gradwatch.steps": f"{steps.min()} {steps.max()}" if len(steps) else "",
    }
    if isinstance(rows, Rows):
        metadata[HISTOGRAMS_KEY] = " ".join(map(str, np.unique(steps[rows.histogram_rows]).tolist()))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema.with_metadata(metadata),
        compression="zstd",
        write_page_checksum=True,
        column_encoding=encoding,
        use_dictionary=dictionary,
    ) as writer:
        for group in _groups(rows):
            writer.write_batch(to_arrow(group).replace_schema_metadata(metadata), row_group_size=GROUP_ROWS)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def checksum(data: bytes) -> str:
    """Returns the checksum of a sealed file, as it stands in the attempt's manifest."""
    return f"{zlib.crc32(data):08x}"


def _options(rows: Rows | StepRows) -> tuple[dict[str, str], list[str]]:
    # New ones each time: pyarrow changes what it is given.
    if isinstance(rows, Rows):
        return dict(_ROW_ENCODING), list(_ROW_DICTIONARY)
    return dict(_STEP_ENCODING), list(_STEP_DICTIONARY)


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
