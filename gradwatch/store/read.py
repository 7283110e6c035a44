"""Reading one data file. Everything is checked before it is believed; what is damaged is left out and said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch.store import append, files, seal
from gradwatch.store.columns import Rows, StepRows, join_rows, join_step_rows
from gradwatch.store.frames import Frame, frames
from gradwatch.store.layout import MAX_FILE_BYTES, MAX_FILE_ROWS, ROWS, SCHEMA_VERSION, STEPS, DataFile
from gradwatch.store.schema import VERSION_KEY, from_arrow

_BAD: Final = (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, MemoryError, pa.ArrowException)
_ROW_BYTES: Final = 1024
_LOGGED_BYTES: Final = 64 * 2**20
_MAX_LOGGED: Final = 64_000_000


@dataclass(slots=True)
class Part:
    """What one data file gave.

    Attributes:
        file: which file.
        rows: its rows in order of arrival (hot) or by site and step (sealed).
        problems: what was damaged or refused, a sentence each.
        torn: bytes at the end that are no whole batch: not yet written, if the attempt is still open.
        sites: name of the site table the file was written under, "" when it says none.
    """

    file: DataFile
    rows: list[Rows | StepRows] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    torn: int = 0
    sites: str = ""


def read_file(directory: Path, file: DataFile, checksum: str | None = None) -> Part:
    """Reads a data file of an attempt; never raises for its content.

    Args:
        directory: of the attempt.
        file: which file.
        checksum: of the sealed file by the attempt's manifest, or None when it names none.

    Raises:
        FileNotFoundError: when it is gone: sealed or evicted since it was listed.
    """
    part = Part(file)
    try:
        data = files.read_plain(directory / file.name, MAX_FILE_BYTES)
        if file.sealed:
            _read_sealed(part, data, checksum)
        else:
            _read_hot(part, data)
    except FileNotFoundError:
        raise
    except _BAD as error:
        part.problems.append(f"{file.name} cannot be read: {_short(error)}")
    return part


def _read_sealed(part: Part, data: bytes, checksum: str | None) -> None:
    if checksum is not None and seal.checksum(data) != checksum:
        part.problems.append(f"{part.file.name} does not match its checksum; its intact pages are used")
    opened = pq.ParquetFile(
        pa.BufferReader(data),
        page_checksum_verification=True,
        read_dictionary=["logged.key_value.key"] if part.file.kind == STEPS else None,
        thrift_string_size_limit=2**20,
        thrift_container_size_limit=2**20,
    )
    if opened.metadata.num_rows > MAX_FILE_ROWS:
        raise ValueError(f"it states {opened.metadata.num_rows} rows, more than {MAX_FILE_ROWS}")
    metadata = opened.schema_arrow.metadata or {}
    part.sites = metadata.get(seal.SITES_KEY, b"").decode()
    if int(metadata.get(VERSION_KEY, b"0")) > SCHEMA_VERSION:
        raise ValueError("it is of a newer schema")
    for group in range(opened.metadata.num_row_groups):
        try:
            part.rows.extend(_read_group(part.file.kind, opened, group))
        except _BAD as error:
            part.problems.append(f"{part.file.name}: row group {group} is damaged and left out: {_short(error)}")


def _read_group(kind: str, opened: pq.ParquetFile, group: int) -> Iterator[Rows | StepRows]:
    stated = opened.metadata.row_group(group)
    if stated.num_rows > 4 * seal.GROUP_ROWS:
        raise ValueError(f"it states {stated.num_rows} rows")
    if max((stated.column(i).num_values for i in range(stated.num_columns)), default=0) > _MAX_LOGGED:
        raise ValueError("it states too many values")
    table = opened.read_row_group(group)
    if table.num_rows != stated.num_rows:
        raise ValueError(f"it holds {table.num_rows} rows and states {stated.num_rows}")
    for batch in table.combine_chunks().to_batches():
        rows = from_arrow(kind, batch)
        yield rows.compact() if isinstance(rows, Rows) else rows


def _read_hot(part: Part, data: bytes) -> None:
    found = list(frames(data))
    whole = found[0].end if found else 0
    heads = [data[: found[0].start], append.head(part.file.kind)] if found else []
    refused = 0
    for i, frame in enumerate(found):
        if frame.end > len(data):
            refused += i < len(found) - 1
            continue
        whole = frame.end
        rows = _read_frame(part, data, frame, heads)
        if rows is None:
            refused += 1
        else:
            part.rows.append(rows)
    if refused:
        part.problems.append(f"{part.file.name}: {refused} damaged batches are left out")
    whole = max((frame.end for frame in found if frame.end <= len(data)), default=0)
    part.torn = len(data) - whole if found and whole else 0
    part.rows = [_joined(part.file.kind, part.rows)] if part.rows else []


def _read_frame(part: Part, data: bytes, frame: Frame, heads: list[bytes]) -> Rows | StepRows | None:
    if not 0 <= frame.rows <= MAX_FILE_ROWS or frame.size > frame.rows * _ROW_BYTES + _LOGGED_BYTES:
        return None
    for head in heads:
        try:
            with pa.ipc.open_stream(head + data[frame.start : frame.end]) as stream:
                batch, metadata = stream.read_next_batch_with_custom_metadata()
                rows = from_arrow(part.file.kind, batch)
            if metadata is not None and f"{rows.checksum():08x}".encode() == metadata[append.CHECKSUM_KEY]:
                part.sites = metadata.get(append.SITES_KEY, b"").decode() or part.sites
                return rows
        except (*_BAD, StopIteration):
            continue
    return None


def _joined(kind: str, parts: list[Rows | StepRows]) -> Rows | StepRows:
    if kind == ROWS:
        return join_rows([part for part in parts if isinstance(part, Rows)])
    return join_step_rows([part for part in parts if isinstance(part, StepRows)])


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
