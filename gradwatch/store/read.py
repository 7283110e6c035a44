"""Reading one data file. Everything is checked before it is believed; what is damaged is left out and said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch.errors import RunError
from gradwatch.statistics import Integer
from gradwatch.store import append, bucketfile, files, seal
from gradwatch.store.buckets import WIDTHS, BucketRows
from gradwatch.store.chunk import Chunk, chunk_of
from gradwatch.store.columns import Column, Rows, StepRows, join_rows, join_step_rows
from gradwatch.store.frames import Frame, frames
from gradwatch.store.held import Held
from gradwatch.store.layout import (
    LEVELS,
    MAX_FILE_BYTES,
    MAX_FILE_ROWS,
    SCHEMA_VERSION,
    STEPS,
    DataFile,
)
from gradwatch.store.schema import VERSION_KEY, from_arrow
from gradwatch.store.sealed import BAD, SealedGroup, parquet, read_group

Read = TypeVar("Read")

_ROW_BYTES: Final = 1024
_LOGGED_BYTES: Final = 64 * 2**20
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
        columns: reads some columns alone; None for one that is null throughout.
        codes: reads which rows have a histogram, and these as they are kept.
    """

    level: str
    width: int
    first: int
    last: int
    rows: int
    load: Callable[..., BucketRows]
    columns: Callable[[Sequence[str]], Mapping[str, Column | None]]
    codes: Callable[[], tuple[Integer, npt.NDArray[np.uint8]]]


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


def read_file(directory: Path, file: DataFile, checksum: str | None = None, *, trust: bool = False) -> Part:
    """Reads a data file of an attempt; never raises for its content.

    Args:
        directory: of the attempt.
        file: which file.
        checksum: of the sealed file by the attempt's manifest, or None when it names none.
        trust: whether sealed rows that match their checksum are taken to be whole. Then their values are not read now,
            and reading them later raises ``RunError`` when they are no values after all.

    Raises:
        FileNotFoundError: when it is gone: sealed or evicted since it was listed.
    """
    part = Part(file)
    try:
        if file.kind in LEVELS:
            _read_buckets(part, directory / file.name, checksum)
        elif file.sealed:
            _read_sealed(part, directory / file.name, checksum, trust)
        else:
            _read_hot(part, files.read_plain(directory / file.name, MAX_FILE_BYTES))
    except FileNotFoundError:
        raise
    except BAD as error:
        part.problems.append(f"{file.name} cannot be read: {_short(error)}")
    return part


def _read_sealed(part: Part, path: Path, checksum: str | None, trust: bool) -> None:
    held, found = _held(part, path, checksum)
    opened = parquet(held.source(), part.file.kind)
    _check_footer(part, opened)
    trusted = trust and found == checksum
    for group in range(opened.metadata.num_row_groups):
        try:
            if part.file.kind == STEPS:
                rows = read_group(STEPS, opened, group)
                assert isinstance(rows, StepRows)
                part.steps.append(rows)
            else:
                source = SealedGroup(held, part.file.kind, opened.metadata, group, trusted=trusted)
                part.chunks.append(source.chunk(opened))
        except BAD as error:
            part.problems.append(f"{part.file.name}: row group {group} is damaged and left out: {_short(error)}")
    held.release()


def _held(part: Part, path: Path, checksum: str | None) -> tuple[Held, str]:
    """Returns a sealed file and its checksum, and notes when that is not the one of the manifest."""
    held = Held(path, MAX_FILE_BYTES)
    found = seal.checksum(held.content or b"")
    if checksum is not None and found != checksum:
        part.problems.append(f"{part.file.name} does not match its checksum; its intact pages are used")
    return held, found


def _check_footer(part: Part, opened: pq.ParquetFile) -> dict[bytes, bytes]:
    """Takes the name of the site table, and returns the file's facts."""
    metadata: dict[bytes, bytes] = opened.schema_arrow.metadata or {}
    if opened.metadata.num_rows > MAX_FILE_ROWS:
        raise ValueError(f"it states {opened.metadata.num_rows} rows, more than {MAX_FILE_ROWS}")
    if int(metadata.get(VERSION_KEY, b"0")) > SCHEMA_VERSION:
        raise ValueError("it is of a newer schema")
    part.sites = metadata.get(seal.SITES_KEY, b"").decode()
    return metadata


def _read_buckets(part: Part, path: Path, checksum: str | None) -> None:
    held, found = _held(part, path, checksum)
    opened = parquet(held.source(), part.file.kind)
    metadata = _check_footer(part, opened)
    # Read once as a whole: what is damaged is to be known now, and not when a series of it is drawn.
    if checksum is None or found != checksum:
        bucketfile.load(opened)
    part.replaces = int(metadata.get(bucketfile.REPLACES_KEY, b"0"))
    width = int(metadata.get(bucketfile.WIDTH_KEY, WIDTHS[part.file.kind]))
    if width < 1:
        raise ValueError(f"it states windows of {width} steps")
    first, last = (int(step) for step in metadata.get(bucketfile.STEPS_KEY, b"").split())
    read = _Buckets(held, trusted=found == checksum)
    rows = opened.metadata.num_rows
    part.buckets.append(BucketFile(part.file.kind, width, first, last, rows, read.load, read.columns, read.codes))
    held.release()


class _Buckets:
    """Roll-ups in a file whose content is held."""

    def __init__(self, held: Held, *, trusted: bool) -> None:
        self._held = held
        self._trusted = trusted
        self._opened: pq.ParquetFile | None = None

    def load(self, columns: Sequence[str] | None = None) -> BucketRows:
        return self._read(lambda: bucketfile.load(self._parquet(), columns))

    def columns(self, names: Sequence[str]) -> Mapping[str, Column | None]:
        return self._read(lambda: bucketfile.columns(self._parquet(), names, trusted=self._trusted))

    def codes(self) -> tuple[Integer, npt.NDArray[np.uint8]]:
        return self._read(lambda: bucketfile.histogram_codes(self._parquet()))

    def _parquet(self) -> pq.ParquetFile:
        # Columns are asked for one by one: the footer is read once.
        if self._opened is None:
            self._opened = parquet(self._held.source(), "")
        return self._opened

    def _read(self, read: Callable[[], Read]) -> Read:
        try:
            return read()
        except BAD as error:
            raise RunError(f"{self._held.path} cannot be read: {_short(error)}") from error


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
        except (*BAD, StopIteration):
            continue
    return None


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
