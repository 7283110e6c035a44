"""The hot file: an Arrow IPC stream of record batches, each with a checksum of its values, written by one call each."""

from __future__ import annotations

import io
from typing import Final

import pyarrow as pa

from gradwatch.store.columns import Rows, StepRows
from gradwatch.store.layout import ROWS, STEPS
from gradwatch.store.schema import ROW_SCHEMA, STEP_SCHEMA, to_arrow

CHECKSUM_KEY: Final = b"crc32"
SITES_KEY: Final = b"sites"
_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
"""On messages this small zstd takes twice the time, most of it to set up a context for each buffer, for 15 % fewer
bytes; the sealed files are zstd."""
_HEADS: Final = {ROWS: bytes(ROW_SCHEMA.serialize()), STEPS: bytes(STEP_SCHEMA.serialize())}


def head(kind: str) -> bytes:
    """Returns the bytes with which a hot file begins: the schema."""
    return _HEADS[kind]


def encode(rows: Rows | StepRows, sites: str) -> bytes:
    """Returns rows as one encapsulated message, labelled with its checksum and the site table in force."""
    batch = to_arrow(rows)
    metadata = {CHECKSUM_KEY: f"{rows.checksum():08x}".encode(), SITES_KEY: sites.encode()}
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema, options=_OPTIONS) as writer:
        writer.write_batch(batch, custom_metadata=metadata)
        end = sink.tell()
    return sink.getvalue()[len(head(ROWS if isinstance(rows, Rows) else STEPS)) : end]
