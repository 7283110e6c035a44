"""Reading one data file. Everything is checked before it is believed; what is damaged is left out and said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch.store import append, bucketfile, files, seal
from gradwatch.store.buckets import WIDTHS, BucketRows
from gradwatch.store.chunk import Chunk, chunk_of
from gradwatch.store.columns import Rows, StepRows, join_rows, join_step_rows
from gradwatch.store.frames import Frame, frames
from gradwatch.store.layout import (
    GROUP_ROWS,
    LEVELS,
    MAX_FILE_BYTES,
    MAX_FILE_ROWS,
    SCHEMA_VERSION,
    STEPS,
    DataFile,
)
from gradwatch.store.schema import VERSION_KEY, from_arrow

_BAD: Final = (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, MemoryError, pa.ArrowException)
_ROW_BYTES: Final = 1024
_LOGGED_BYTES: Final = 64 * 2**20
_MAX_LOGGED: Final = 64_000_000
_BATCH_ROWS: Final = 16_384
_MAX_BATCHES: Final = 1_000_000
_MAX_DAMAGED: Final = 1000
_OPTIONS: Final = pa.ipc.IpcReadOptions(use_threads=False)


@dataclass(frozen=True, slots=True)
class BucketFile:
    """A file of roll-ups, loaded when it is needed.

    Attributes:
        level, width: its level and the steps of its windows.
        first, last: first and last step in it.
        rows: how many it holds.
        load: reads them, or some of their columns; the others are null then.
    """

    level: str
    width: int
    first: int
    last: int
    rows: int
    load: Callable[..., BucketRows]


@dataclass(slots=True)
class Part:
    """What one data file gave.

    Attributes:
        file: which file.
        chunks: its rows of sites, in order of arrival (hot) or by site and step (sealed).
        steps: its rows of steps, in order of arrival.
        buckets: its roll-ups, one file or none.
        replaces: serial of the first file of its level that is merged in it.
        problems: what was damaged or refused, a sentence each.
        torn: bytes at the end that are no whole batch: not yet written, if the attempt is still open.
        sites: name of the site table the file was written under, "" when it says none.
    """

    file: DataFile
    chunks: list[Chunk] = field(default_factory=list)
    steps: list[StepRows] = field(default_factory=list)
    buckets: list[BucketFile] = field(default_factory=list)
    replaces: int = 0
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
        if file.kind in LEVELS:
            _read_buckets(part, directory / file.name, checksum)
        elif file.sealed:
            _read_sealed(part, directory / file.name, checksum)
        else:
            _read_hot(part, files.read_plain(directory / file.name, MAX_FILE_BYTES))
    except FileNotFoundError:
        raise
    except _BAD as error:
        part.problems.append(f"{file.name} cannot be read: {_short(error)}")
    return part


class Changed(Exception):
    """A file was evicted or replaced between the look at its keys and the loading of its values."""


class _Sealed:
    """A sealed file that is opened again for its values, group by group."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._kind = kind
        self._opened: pq.ParquetFile | None = None
        data = files.read_plain(path, MAX_FILE_BYTES)
        self.checksum = seal.checksum(data)
        self.opened = _parquet(data, kind)
        self.groups = int(self.opened.metadata.num_row_groups)

    def load(self, group: int) -> Rows:
        """Returns a group's rows; groups are loaded in order."""
        try:
            if self._opened is None:
                data = files.read_plain(self._path, MAX_FILE_BYTES)
                if seal.checksum(data) != self.checksum:
                    raise Changed(str(self._path))
                self._opened = _parquet(data, self._kind)
            rows = _read_group(self._kind, self._opened, group)
        except OSError as error:
            raise Changed(str(self._path)) from error
        if group == self.groups - 1:
            self._opened = None
        assert isinstance(rows, Rows)
        return rows


def _parquet(data: bytes, kind: str) -> pq.ParquetFile:
    return pq.ParquetFile(
        pa.BufferReader(data),
        page_checksum_verification=True,
        read_dictionary=["logged.key_value.key"] if kind == STEPS else None,
        thrift_string_size_limit=2**20,
        thrift_container_size_limit=2**20,
    )


def _read_sealed(part: Part, path: Path, checksum: str | None) -> None:
    sealed = _Sealed(path, part.file.kind)
    if checksum is not None and sealed.checksum != checksum:
        part.problems.append(f"{part.file.name} does not match its checksum; its intact pages are used")
    if sealed.opened.metadata.num_rows > MAX_FILE_ROWS:
        raise ValueError(f"it states {sealed.opened.metadata.num_rows} rows, more than {MAX_FILE_ROWS}")
    metadata = sealed.opened.schema_arrow.metadata or {}
    part.sites = metadata.get(seal.SITES_KEY, b"").decode()
    if int(metadata.get(VERSION_KEY, b"0")) > SCHEMA_VERSION:
        raise ValueError("it is of a newer schema")
    for group in range(sealed.groups):
        try:
            rows = _read_group(part.file.kind, sealed.opened, group)
        except _BAD as error:
            part.problems.append(f"{part.file.name}: row group {group} is damaged and left out: {_short(error)}")
        else:
            if isinstance(rows, Rows):
                part.chunks.append(Chunk(rows, partial(sealed.load, group)))
            else:
                part.steps.append(rows)
    del sealed.opened


def _read_buckets(part: Part, path: Path, checksum: str | None) -> None:
    data = files.read_plain(path, MAX_FILE_BYTES)
    found = seal.checksum(data)
    if checksum is not None and found != checksum:
        part.problems.append(f"{part.file.name} does not match its checksum; its intact pages are used")
    opened = _parquet(data, part.file.kind)
    metadata = opened.schema_arrow.metadata or {}
    if opened.metadata.num_rows > MAX_FILE_ROWS:
        raise ValueError(f"it states {opened.metadata.num_rows} rows, more than {MAX_FILE_ROWS}")
    if int(metadata.get(VERSION_KEY, b"0")) > SCHEMA_VERSION:
        raise ValueError("it is of a newer schema")
    # Read once as a whole: what is damaged is to be known now, and not when a series of it is drawn.
    if checksum is None or found != checksum:
        _loaded_buckets(data)
    part.sites = metadata.get(bucketfile.SITES_KEY, b"").decode()
    part.replaces = int(metadata.get(bucketfile.REPLACES_KEY, b"0"))
    width = int(metadata.get(bucketfile.WIDTH_KEY, WIDTHS[part.file.kind]))
    if width < 1:
        raise ValueError(f"it states windows of {width} steps")
    first, last = (int(step) for step in metadata.get(bucketfile.STEPS_KEY, b"").split())
    load = partial(_load_buckets, path, found)
    part.buckets.append(BucketFile(part.file.kind, width, first, last, opened.metadata.num_rows, load))


def _load_buckets(path: Path, checksum: str, columns: list[str] | None = None) -> BucketRows:
    try:
        data = files.read_plain(path, MAX_FILE_BYTES)
    except OSError as error:
        raise Changed(str(path)) from error
    if seal.checksum(data) != checksum:
        raise Changed(str(path))
    return _loaded_buckets(data, columns)


def _loaded_buckets(data: bytes, columns: list[str] | None = None) -> BucketRows:
    opened = _parquet(data, "")
    if max((opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)), default=0) > 4 * GROUP_ROWS:
        raise ValueError("it states too many rows")
    return bucketfile.buckets_from(opened.read(columns=columns))


def _read_group(kind: str, opened: pq.ParquetFile, group: int) -> Rows | StepRows:
    stated = opened.metadata.row_group(group)
    if stated.num_rows > 4 * GROUP_ROWS:
        raise ValueError(f"it states {stated.num_rows} rows")
    if max((stated.column(i).num_values for i in range(stated.num_columns)), default=0) > _MAX_LOGGED:
        raise ValueError("it states too many values")
    parts = [from_arrow(kind, batch) for batch in opened.iter_batches(_BATCH_ROWS, row_groups=[group])]
    read = sum(len(part) for part in parts)
    if read != stated.num_rows:
        raise ValueError(f"it holds {read} rows and states {stated.num_rows}")
    if kind == STEPS:
        return join_step_rows([part for part in parts if isinstance(part, StepRows)])
    return join_rows([part for part in parts if isinstance(part, Rows)])


def _read_hot(part: Part, data: bytes) -> None:
    found = list(islice(frames(data), _MAX_BATCHES))
    heads = [data[: found[0].start], append.head(part.file.kind)] if found else []
    rows: list[Rows] = []
    refused = whole = 0
    for i, frame in enumerate(found):
        if frame.end > len(data):
            refused += i < len(found) - 1
            continue
        if refused > _MAX_DAMAGED:
            break
        whole = frame.end
        read = _read_frame(part, data, frame, heads)
        if isinstance(read, Rows):
            rows.append(read)
        elif read is not None:
            part.steps.append(read)
        else:
            refused += 1
    if refused:
        part.problems.append(f"{part.file.name}: {refused} damaged batches are left out")
    part.torn = len(data) - whole if whole else 0
    part.chunks = [chunk_of(join_rows(rows).compact())] if rows else []
    part.steps = [join_step_rows(part.steps)] if part.steps else []


def _read_frame(part: Part, data: bytes, frame: Frame, heads: list[bytes]) -> Rows | StepRows | None:
    if not 0 <= frame.rows <= MAX_FILE_ROWS or frame.size > frame.rows * _ROW_BYTES + _LOGGED_BYTES:
        return None
    for head in heads:
        try:
            with pa.ipc.open_stream(head + data[frame.start : frame.end], options=_OPTIONS) as stream:
                batch, metadata = stream.read_next_batch_with_custom_metadata()
                rows = from_arrow(part.file.kind, batch)
            if metadata is not None and f"{rows.checksum():08x}".encode() == metadata[append.CHECKSUM_KEY]:
                part.sites = metadata.get(append.SITES_KEY, b"").decode() or part.sites
                return rows
        except (*_BAD, StopIteration):
            continue
    return None


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
