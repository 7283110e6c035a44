"""The file of the site table, and what earlier releases wrote into it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradwatch.record import Site, SiteTable
from gradwatch.store.sitefile import read_sites, write_sites


def stored(run: Path, table: pa.Table) -> str:
    """Writes a site table as another release would."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none")
    data = sink.getvalue().to_pybytes()
    name = f"sites-{hashlib.sha256(data).hexdigest()[:8]}.parquet"
    (run / name).write_bytes(data)
    return name


def test_fan_in_is_kept(tmp_path: Path) -> None:
    """A fan-in, also a large one, comes back as it was, and one that is not known stays unknown."""
    known = (None, 1, 784, 2**40)
    for values in (known, known[:1], known[1:], ()):
        sites = SiteTable(Site("gradient", str(i), str(i), fan_in=fan_in) for i, fan_in in enumerate(values))
        assert list(read_sites(tmp_path, write_sites(tmp_path, sites))) == list(sites)


def test_a_table_without_fan_in_is_read(tmp_path: Path) -> None:
    """Of a file of a release that had no such column nothing is known of the fan-in; the rest is there."""
    sites = SiteTable([Site("gradient", "a", "a", shape=(2, 3), numel=6, fan_in=3), Site("gradient", "b", "b")])
    older = pq.read_table(tmp_path / write_sites(tmp_path, sites)).drop_columns(["fan_in"])
    assert list(read_sites(tmp_path, stored(tmp_path, older))) == [replace(site, fan_in=None) for site in sites]


@pytest.mark.parametrize(
    "column",
    [pa.array([0], pa.uint64()), pa.array([-3], pa.int64()), pa.array(["many"]), pa.array([float("nan")])],
    ids=["zero", "negative", "text", "not a number"],
)
def test_a_fan_in_that_is_none_is_refused(tmp_path: Path, column: pa.Array) -> None:
    """A file whose fan-in is no positive number is damaged."""
    whole = pq.read_table(tmp_path / write_sites(tmp_path, SiteTable([Site("gradient", "a", "a")])))
    damaged = whole.drop_columns(["fan_in"]).append_column("fan_in", column)
    with pytest.raises(ValueError, match=r"fan-in|not a site table|invalid literal|cannot convert"):
        read_sites(tmp_path, stored(tmp_path, damaged))
