"""Rows of sites and rows of steps as numpy columns: what the files hold, apart from any file format.

In integer columns ``NULL`` (-1) is null; in ``l2``, ``sum``, ``absmax`` and the facts of steps NaN is null.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import STAGES, STEP_FACTS, Block, StepRecord
from gradwatch.statistics import BINS, NULL, Float, Histogram, Integer

Column = npt.NDArray[Any]

KEYS: Final[dict[str, type[np.generic]]] = {
    "step": np.int64,
    "optimizer": np.uint8,
    "site": np.uint32,
    "stage": np.uint8,
}
VALUES: Final = ("l2", "sum", "absmax")
UNITS: Final = ("units", "silent_units", "silent_delta_units", "saturated")
COUNTS: Final = ("n", "nan", "inf", "zeros", "subnormal", *UNITS)
ROW_COLUMNS: Final = (*KEYS, "n", *VALUES, *COUNTS[1:])
STEP_KEYS: Final[dict[str, type[np.generic]]] = {
    "step": np.int64,
    "optimizer": np.uint8,
    "time": np.float64,
    "skipped": np.bool_,
    "late": np.bool_,
}
STEP_COLUMNS: Final = (*STEP_KEYS, *STEP_FACTS)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of sites.

    Attributes:
        columns: ``ROW_COLUMNS`` to columns of shape [r].
        histogram_rows: positions of the rows that have a histogram, ascending, shape [h].
        histogram: their counts, uint32, shape [h, 64].
    """

    columns: Mapping[str, Column]
    histogram_rows: Integer
    histogram: Histogram

    def __len__(self) -> int:
        return len(self.columns["step"])

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def take(self, index: npt.NDArray[np.int64]) -> Rows:
        """Selects rows by position, each at most once, in the order given."""
        place = np.full(len(self), NULL, dtype=np.int64)
        place[self.histogram_rows] = np.arange(len(self.histogram_rows))
        source = place[index]
        rows = np.flatnonzero(source != NULL)
        return Rows({name: column[index] for name, column in self.columns.items()}, rows, self.histogram[source[rows]])

    def compact(self) -> Rows:
        """Keeps columns that hold one value throughout as a view of that value; they cost no memory then."""
        columns = {name: compact(column) for name, column in self.columns.items()}
        return Rows(columns, self.histogram_rows, self.histogram)

    def checksum(self) -> int:
        """Returns the CRC-32 of all values, the same whatever format carried them."""
        crc = 0
        for name in ROW_COLUMNS:
            column = self.columns[name]
            null = np.isnan(column) if name in VALUES else column == NULL if name in COUNTS else None
            if null is not None and null.all():
                crc = zlib.crc32(b"null", crc)
            else:
                crc = zlib.crc32(np.ascontiguousarray(column).data, crc)
        crc = zlib.crc32(np.ascontiguousarray(self.histogram_rows, dtype=np.int64).data, crc)
        return zlib.crc32(np.ascontiguousarray(self.histogram).data, crc)


@dataclass(frozen=True, slots=True)
class StepRows:
    """Rows of steps; a scalar that came late is a second row of its step.

    Attributes:
        columns: ``STEP_COLUMNS`` to columns of shape [r].
        logged_row: position of the row that each logged scalar belongs to, ascending, shape [k].
        logged_name: its name as a position in ``names``, shape [k].
        logged_value: float64, shape [k]; NaN is a value here, not null.
        names: names of logged scalars.
    """

    columns: Mapping[str, Column]
    logged_row: Integer
    logged_name: Integer
    logged_value: Float
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.columns["step"])

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def take(self, index: npt.NDArray[np.int64]) -> StepRows:
        """Selects rows by ascending position."""
        place = np.full(len(self), NULL, dtype=np.int64)
        place[index] = np.arange(len(index))
        kept = place[self.logged_row] != NULL
        return StepRows(
            {name: column[index] for name, column in self.columns.items()},
            place[self.logged_row[kept]],
            self.logged_name[kept],
            self.logged_value[kept],
            self.names,
        )

    def checksum(self) -> int:
        """Returns the CRC-32 of all values, the same whatever format carried them."""
        crc = 0
        for name in STEP_COLUMNS:
            crc = zlib.crc32(np.ascontiguousarray(self.columns[name]).data, crc)
        crc = zlib.crc32(np.ascontiguousarray(self.logged_row, dtype=np.int64).data, crc)
        crc = zlib.crc32(np.ascontiguousarray(self.logged_value, dtype=np.float64).data, crc)
        return zlib.crc32("\0".join(self.names[i] for i in self.logged_name.tolist()).encode(), crc)


def rows_of(records: Iterable[StepRecord]) -> Rows:
    """Returns the rows of sites of records, in their order."""
    blocks = [(record, block) for record in records for block in record.blocks]
    lengths = np.array([len(block.sites) for _, block in blocks], dtype=np.int64)
    columns: dict[str, Column] = {
        "step": np.repeat(np.array([record.step for record, _ in blocks], dtype=np.int64), lengths),
        "optimizer": np.repeat(np.array([record.optimizer for record, _ in blocks], dtype=np.uint8), lengths),
        "site": _join([block.sites for _, block in blocks], np.uint32),
        "stage": np.repeat(np.array([STAGES.index(block.stage) for _, block in blocks], dtype=np.uint8), lengths),
    }
    columns |= {name: _value_column(blocks, name) for name in VALUES}
    columns |= {name: _count_column(blocks, name) for name in COUNTS}
    rows = Rows(columns, *_histograms(blocks, lengths))
    known = columns["n"] >= 0
    return rows if known.all() else rows.take(np.flatnonzero(known))


def step_rows_of(records: Sequence[StepRecord]) -> StepRows:
    """Returns the rows of steps of records, in their order."""
    columns: dict[str, Column] = {
        name: np.array([getattr(record, name) for record in records], dtype=kind) for name, kind in STEP_KEYS.items()
    }
    for name in STEP_FACTS:
        columns[name] = one_nan(np.array([record.facts.get(name, np.nan) for record in records], dtype=np.float64))
    logged = [(row, _text(name), value) for row, record in enumerate(records) for name, value in record.logged.items()]
    names = {name: i for i, name in enumerate(dict.fromkeys(name for _, name, _ in logged))}
    return StepRows(
        columns,
        np.array([row for row, _, _ in logged], dtype=np.int64),
        np.array([names[name] for _, name, _ in logged], dtype=np.int64),
        one_nan(np.array([value for _, _, value in logged], dtype=np.float64)),
        tuple(names),
    )


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Joins rows in order."""
    offsets = np.cumsum([0, *(len(part) for part in parts)])
    columns = {name: _join([part[name] for part in parts], _kind(name)) for name in ROW_COLUMNS}
    at = _join([part.histogram_rows + offset for part, offset in zip(parts, offsets, strict=False)], np.int64)
    return Rows(columns, at, _join_histograms([part.histogram for part in parts]))


def join_step_rows(parts: Sequence[StepRows]) -> StepRows:
    """Joins rows of steps in order."""
    offsets = np.cumsum([0, *(len(part) for part in parts)])
    names = {name: i for i, name in enumerate(dict.fromkeys(name for part in parts for name in part.names))}
    columns = {name: _join([part[name] for part in parts], STEP_KEYS.get(name, np.float64)) for name in STEP_COLUMNS}
    codes = [np.array([names[name] for name in part.names], dtype=np.int64) for part in parts]
    return StepRows(
        columns,
        _join([part.logged_row + offset for part, offset in zip(parts, offsets, strict=False)], np.int64),
        _join([code[part.logged_name] for part, code in zip(parts, codes, strict=True)], np.int64),
        _join([part.logged_value for part in parts], np.float64),
        tuple(names),
    )


def one_nan(column: Float) -> Float:
    """Gives every NaN the same bits, in place: files keep no payload of a null."""
    column[np.isnan(column)] = np.nan
    return column


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _kind(name: str) -> type[np.generic]:
    return KEYS.get(name, np.float64 if name in VALUES else np.int64)


def _join(parts: Sequence[Column], kind: type[np.generic]) -> Column:
    return np.concatenate(parts).astype(kind, copy=False) if parts else np.zeros(0, dtype=kind)


def _join_histograms(parts: Sequence[Column]) -> Histogram:
    return np.concatenate(parts).astype(np.uint32, copy=False) if parts else np.zeros((0, BINS), dtype=np.uint32)


def _value_column(blocks: list[tuple[StepRecord, Block]], name: str) -> Float:
    column = _join([getattr(block.statistics, name) for _, block in blocks], np.float64)
    return one_nan(column.astype(np.float64))


def _count_column(blocks: list[tuple[StepRecord, Block]], name: str) -> Integer:
    parts = []
    for _, block in blocks:
        source = block.units if name in UNITS else block.statistics
        counts = None if source is None else getattr(source, name)
        parts.append(counts)
    if all(counts is None for counts in parts):
        return np.full(sum(len(block.sites) for _, block in blocks), NULL, dtype=np.int64)
    sizes = [len(block.sites) for _, block in blocks]
    nulls = {size: np.full(size, NULL, dtype=np.int64) for size in set(sizes)}
    return _join(
        [nulls[size] if counts is None else counts for counts, size in zip(parts, sizes, strict=True)], np.int64
    )


def _histograms(blocks: list[tuple[StepRecord, Block]], lengths: Integer) -> tuple[Integer, Histogram]:
    starts = np.cumsum(lengths) - lengths
    taken = [(start, block.statistics.histogram) for start, (_, block) in zip(starts, blocks, strict=True)]
    found = [(start, counts) for start, counts in taken if counts is not None]
    at = _join([start + np.arange(len(counts)) for start, counts in found], np.int64)
    return at, _join_histograms([counts for _, counts in found])


def compact(column: Column) -> Column:
    """Returns a column that holds one value throughout as a view of that value, any other one as it is."""
    if not len(column):
        return column
    same = np.isnan(column).all() if column.dtype.kind == "f" and np.isnan(column[0]) else (column == column[0]).all()
    return np.broadcast_to(column[0].copy(), column.shape) if same else column
