"""Sealed rows as a source that is read column by column, when somebody asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch.errors import RunError
from gradwatch.statistics import BINS, Histogram, Integer
from gradwatch.store.chunk import Chunk
from gradwatch.store.columns import KEYS, VALUES, Column, Rows, StepRows, join_rows, join_step_rows
from gradwatch.store.held import Held
from gradwatch.store.layout import GROUP_ROWS, STEPS
from gradwatch.store.schema import ROW_SCHEMA, column_from, from_arrow, histograms_from
from gradwatch.store.seal import HISTOGRAMS_KEY

BAD: Final = (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, MemoryError, pa.ArrowException)
"""What reading a damaged or hostile file may raise."""
_MAX_LOGGED: Final = 64_000_000
_BATCH_ROWS: Final = 16_384
HISTOGRAM: Final = "histogram"
_HISTOGRAMS: Final = 4096


class SealedGroup:
    """The rows of one row group of a sealed file, whose content is held.

    Its methods raise ``RunError`` when the file is not what its checksum or an earlier look made it appear.
    """

    def __init__(self, held: Held, kind: str, metadata: Any, group: int, *, trusted: bool) -> None:
        """Names the group.

        Args:
            held: the file.
            kind: of its rows.
            metadata: its footer.
            group: number of the group.
            trusted: whether the file matches its checksum: then the footer is believed, and a column of which it
                states one value is not read.
        """
        self._held = held
        self._kind = kind
        self._metadata = metadata
        self._group = group
        self._trusted = trusted

    def rows(self) -> Rows:
        """Reads all columns."""
        try:
            rows = read_group(self._kind, self._parquet(), self._group)
        except BAD as error:
            raise self._damaged(error) from error
        assert isinstance(rows, Rows)
        return rows

    def columns(self, names: Sequence[str]) -> dict[str, Column | None]:
        """Reads columns; None for one that is null throughout, or that an older release did not write."""
        try:
            return self._columns(self._parquet(), names)
        except BAD as error:
            raise self._damaged(error) from error

    def histogram(self) -> tuple[Integer, Histogram]:
        """Reads the histograms."""
        try:
            return self._histograms(self._parquet())
        except BAD as error:
            raise self._damaged(error) from error

    def histogram_steps(self) -> Integer | None:
        """Returns steps beside which none has a histogram; None when that is not known without reading them."""
        stated = (self._metadata.metadata or {}).get(HISTOGRAMS_KEY) if self._trusted else None
        try:
            return None if stated is None else np.array([int(step) for step in stated.split()], dtype=np.int64)
        except (ValueError, OverflowError) as error:
            raise self._damaged(error) from error

    def histogram_count(self) -> int | None:
        """Returns how many rows have a histogram; None when that is not known without reading them."""
        held = self._metadata.row_group(self._group)
        at = self._metadata.schema.to_arrow_schema().get_field_index(HISTOGRAM) if self._trusted else -1
        found = held.column(at).statistics if at >= 0 else None
        return None if found is None or not found.has_null_count else int(held.num_rows - found.null_count)

    def chunk(self, opened: pq.ParquetFile) -> Chunk:
        """Returns the group as a chunk: of a trusted file only the keys are read now, of another one everything.

        Raises:
            ValueError: when it is damaged, and others of ``BAD``.
        """
        checked(opened, self._group)
        keys: Mapping[str, Column | None]
        keys = self._columns(opened, _KEYS) if self._trusted else read_group(self._kind, opened, self._group).columns
        step, optimizer, site = (keys[name] for name in _KEYS)
        assert step is not None
        assert optimizer is not None
        assert site is not None
        chunk = Chunk(step, optimizer, site, self)
        chunk.settle()
        return chunk

    def _parquet(self) -> pq.ParquetFile:
        return parquet(self._held.source(), self._kind, self._metadata)

    def _columns(self, opened: pq.ParquetFile, names: Sequence[str]) -> dict[str, Column | None]:
        stated = {name: self._stated(opened, name) for name in names}
        wanted = [name for name, column in stated.items() if column is None]
        found: dict[str, Column | None] = dict.fromkeys(names)
        found |= {name: column for name, column in stated.items() if column is not None and len(column)}
        if wanted:
            table = opened.read_row_group(self._group, columns=wanted, use_threads=False)
            found |= {name: column_from(self._whole(table.column(name)), name) for name in wanted}
        return found

    def _stated(self, opened: pq.ParquetFile, name: str) -> Column | None:
        """Returns what the footer states of a column: one value, or nothing for nulls; None when it is to be read."""
        at = opened.schema_arrow.get_field_index(name)
        if at < 0:
            if name in _KEYS:
                raise ValueError(f"column {name} is missing")
            return np.zeros(0)
        if opened.schema_arrow.field(at).type != ROW_SCHEMA.field(name).type:
            raise ValueError(f"column {name} is not {ROW_SCHEMA.field(name).type}")
        return one_value(opened, name, _kind(name), self._group) if self._trusted else None

    def _histograms(self, opened: pq.ParquetFile) -> tuple[Integer, Histogram]:
        stated = self._stated(opened, HISTOGRAM)
        rows, parts = [np.zeros(0, dtype=np.int64)], [np.zeros((0, BINS), dtype=np.uint32)]
        if stated is None:
            begin = 0
            # Few rows at a time: nulls take as much room as histograms do, and this much stays in the cache.
            for batch in opened.iter_batches(_HISTOGRAMS, row_groups=[self._group], columns=[HISTOGRAM]):
                at, counts = histograms_from(batch.column(0))
                rows.append(at + begin)
                parts.append(counts.copy())
                begin += len(batch)
        return np.concatenate(rows), np.concatenate(parts)

    def _whole(self, column: pa.ChunkedArray) -> pa.Array:
        held = column.combine_chunks()
        held = held.chunk(0) if isinstance(held, pa.ChunkedArray) else held
        stated = self._metadata.row_group(self._group).num_rows
        if len(held) != stated:
            raise ValueError(f"it holds {len(held)} rows and states {stated}")
        return held

    def _damaged(self, error: BaseException) -> RunError:
        return RunError(f"{self._held.path} cannot be read: {' '.join(str(error).split())[:200]}")


_KEYS: Final = ("step", "optimizer", "site")


def _kind(name: str) -> type[np.generic]:
    return KEYS.get(name, np.float64 if name in VALUES else np.int64)


def parquet(source: pa.NativeFile, kind: str, metadata: Any = None) -> pq.ParquetFile:
    """Opens a sealed file; ``metadata`` is its footer, when that was read before."""
    return pq.ParquetFile(
        source,
        metadata=metadata,
        page_checksum_verification=True,
        read_dictionary=["logged.key_value.key"] if kind == STEPS else None,
        thrift_string_size_limit=2**20,
        thrift_container_size_limit=2**20,
    )


def one_value(opened: pq.ParquetFile, name: str, kind: type[np.generic], group: int | None = None) -> Column | None:
    """Returns what the footer states of a column of whole numbers that is one value throughout, or empty when null.

    None when it is to be read.

    Args:
        opened: the file.
        name: of the column.
        kind: the type that it has in memory.
        group: the row group that is meant, or all of them.
    """
    at = opened.schema_arrow.get_field_index(name)
    groups = range(opened.metadata.num_row_groups) if group is None else [group]
    if at < 0:
        return np.zeros(0)
    held = [opened.metadata.row_group(i) for i in groups]
    found = [one.column(at).statistics for one in held]
    rows = sum(one.num_rows for one in held)
    if not rows or any(one is None or not one.has_null_count for one in found):
        return None
    if sum(one.null_count for one in found) == rows:
        return np.zeros(0)
    plain = np.issubdtype(kind, np.integer) and opened.schema_arrow.field(at).type != ROW_SCHEMA.field(HISTOGRAM).type
    if not plain or any(one.null_count or not one.has_min_max for one in found):
        return None
    values = {value for one in found for value in (one.min, one.max)}
    if len(values) > 1 or not all(isinstance(value, int) for value in values):
        return None
    return np.broadcast_to(np.array(values.pop(), dtype=kind), (rows,))


def checked(opened: pq.ParquetFile, group: int) -> Any:
    """Returns the footer of a group that states no more than a group may hold.

    Raises:
        ValueError: when it states more.
    """
    stated = opened.metadata.row_group(group)
    if stated.num_rows > 4 * GROUP_ROWS:
        raise ValueError(f"it states {stated.num_rows} rows")
    if max((stated.column(i).num_values for i in range(stated.num_columns)), default=0) > _MAX_LOGGED:
        raise ValueError("it states too many values")
    return stated


def read_group(kind: str, opened: pq.ParquetFile, group: int) -> Rows | StepRows:
    """Reads all columns of a row group.

    Raises:
        ValueError: when it is damaged, and others of ``BAD``.
    """
    stated = checked(opened, group)
    parts = [from_arrow(kind, batch) for batch in opened.iter_batches(_BATCH_ROWS, row_groups=[group])]
    read = sum(len(part) for part in parts)
    if read != stated.num_rows:
        raise ValueError(f"it holds {read} rows and states {stated.num_rows}")
    if kind == STEPS:
        return join_step_rows([part for part in parts if isinstance(part, StepRows)])
    return join_rows([part for part in parts if isinstance(part, Rows)])
