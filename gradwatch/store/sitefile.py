"""The site table as a file named by its content. Uncompressed, so that its size bounds what reading it can take."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch.record import Site, SiteTable
from gradwatch.store import arrays, files
from gradwatch.store.layout import MAX_NAME, MAX_SITES, SCHEMA_VERSION, SITES_PATTERN
from gradwatch.store.manifest import clean
from gradwatch.store.schema import VERSION_KEY

_OPTIMIZERS: Final = b"gradwatch.optimizers"
_ORDER: Final = b"gradwatch.order"
_MAX_BYTES: Final = 256 * 2**20
_TEXTS: Final = ("signal", "name", "layer", "role", "dtype", "optimizer", "status", "shape", "aliases")


def write_sites(run: Path, table: SiteTable) -> str:
    """Writes a site table into the run's directory unless it is there; returns the file's name."""
    data = _encode(table)
    name = f"sites-{_hash(data)}.parquet"
    if not (run / name).exists():
        files.replace_whole(run / name, data)
    return name


def read_sites(run: Path, name: str) -> SiteTable:
    """Reads a site table.

    Raises:
        OSError: when the file is missing or not a plain file.
        ValueError: when it is damaged or not a site table.
    """
    if not SITES_PATTERN.fullmatch(name):
        raise ValueError(f"{name!r} does not name a site table")
    data = files.read_plain(run / name, _MAX_BYTES)
    if name != f"sites-{_hash(data)}.parquet":
        raise ValueError("its content does not match its name")
    return _decode(data)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _encode(table: SiteTable) -> bytes:
    layers, optimizers, sites = table.layers, list(table.optimizers) or [""], list(table)
    columns = {
        "site": arrays.primitive(np.arange(len(sites)), pa.uint32()),
        "numel": arrays.primitive(np.array([site.numel for site in sites]), pa.uint64()),
        "fan_in": _fan_in(sites),
        **{name: arrays.texts([_text(site, name) for site in sites]) for name in _TEXTS},
    }
    metadata = {
        VERSION_KEY: str(SCHEMA_VERSION),
        _OPTIMIZERS: json.dumps([clean(name) for name in optimizers]),
        _ORDER: json.dumps([clean(layer) for layer in layers]),
    }
    sink = pa.BufferOutputStream()
    made = pa.Table.from_arrays(list(columns.values()), names=list(columns))
    pq.write_table(made.replace_schema_metadata(metadata), sink, compression="none")
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _text(site: Site, name: str) -> str:
    value = getattr(site, name)
    return clean(value)[:MAX_NAME] if isinstance(value, str) else json.dumps([_plain(item) for item in value])


def _plain(item: str | int) -> str | int:
    return clean(item)[:MAX_NAME] if isinstance(item, str) else item


def _decode(data: bytes) -> SiteTable:
    try:
        return _table_of(_parsed(data))
    except (pa.ArrowException, OSError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a site table: {error}") from error


def _parsed(data: bytes) -> pa.Table:
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(_TEXTS))
    metadata = file.metadata
    if metadata.num_rows > MAX_SITES:
        raise ValueError(f"{metadata.num_rows} sites are more than {MAX_SITES}")
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            if metadata.row_group(group).column(column).compression != "UNCOMPRESSED":
                raise ValueError("it is compressed")
    return file.read()


def _table_of(parsed: pa.Table) -> SiteTable:
    metadata = parsed.schema.metadata or {}
    texts = {name: _texts_of(parsed.column(name)) for name in _TEXTS}
    numel, fan_in = parsed.column("numel").to_pylist(), _known_fan_in(parsed)
    table = SiteTable(optimizers=_names(metadata[_OPTIMIZERS]), order=_names(metadata[_ORDER]))
    for i in range(parsed.num_rows):
        plain = {name: texts[name](i) for name in _TEXTS[:-2]}
        shape = tuple(int(size) for size in json.loads(texts["shape"](i)))
        aliases = tuple(str(alias) for alias in json.loads(texts["aliases"](i)))
        site = Site(**plain, shape=shape, numel=int(numel[i]), aliases=aliases, fan_in=fan_in[i])
        if table.add(site) != i:
            raise ValueError("a site stands in it twice")
    return table


def _fan_in(sites: Sequence[Site]) -> pa.Array:
    known = np.array([site.fan_in is not None for site in sites], dtype=np.bool_)
    return arrays.primitive(np.array([site.fan_in or 0 for site in sites], dtype=np.uint64), pa.uint64(), known)


def _known_fan_in(parsed: pa.Table) -> list[int | None]:
    """Returns the column, null throughout for a file of a release that had none."""
    if "fan_in" not in parsed.column_names:
        return [None] * parsed.num_rows
    values = [None if value is None else int(value) for value in parsed.column("fan_in").to_pylist()]
    if any(value is not None and value < 1 for value in values):
        raise ValueError("a fan-in is below 1")
    return values


def _texts_of(column: pa.ChunkedArray) -> Callable[[int], str]:
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        joined = joined.chunk(0) if joined.num_chunks else pa.array([], joined.type)
    words = [_word(word) for word in joined.dictionary.to_pylist()]
    codes = joined.indices.to_pylist()
    return lambda i: words[codes[i]]


def _word(word: object) -> str:
    if not isinstance(word, str) or len(word) > 16 * MAX_NAME:
        raise ValueError("a name is not text or too long")
    return word


def _names(text: bytes) -> list[str]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("a list of names is not one")
    return names
