"""Torn, damaged, hostile and foreign files: what is intact is read, what is not is said, and nothing is made up."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.errors import RunError
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.record import StepRecord
from gradwatch.recording import Recording, from_records, load_recording
from gradwatch.statistics import NULL
from gradwatch.store import StoreWriter, append, manifest
from gradwatch.store.columns import Rows, rows_of, step_rows_of
from gradwatch.store.layout import MAX_FILE_BYTES, ROWS, RUN_FILE, STEPS, DataFile
from gradwatch.store.read import read_file
from gradwatch.store.verify import verify

BATCHES = 4
STEPS_A_BATCH = 3


@dataclass(frozen=True)
class Run:
    path: Path
    records: Sequence[StepRecord]
    source: SyntheticRun

    @property
    def attempt(self) -> Path:
        return self.path / "rank0000" / "a0001"

    def first(self, steps: int) -> Recording:
        return from_records(self.records[:steps], self.source.sites)


def make(path: Path, *, sealed: bool) -> Run:
    source = SyntheticRun(layers=2, steps=BATCHES * STEPS_A_BATCH)
    records = list(source.records())
    writer = StoreWriter(path, source.sites, {"framework": "none"})
    writer.open()
    for i, record in enumerate(records):
        writer(record)
        if i % STEPS_A_BATCH == STEPS_A_BATCH - 1:
            assert writer.flush()
    if not sealed:
        # Left as a killed process leaves it: hot files, and a manifest that names a process that is no more.
        shutil.copytree(path, path.with_name("copy"))
    writer.close()
    if not sealed:
        shutil.rmtree(path)
        path.with_name("copy").rename(path)
        meta_path = path / "rank0000" / "a0001" / "meta.json"
        meta = manifest.read(meta_path)
        meta_path.write_bytes(manifest.encode({**meta, "pid": 2**22 + 1}))
    return Run(path, records, source)


@pytest.fixture
def hot(tmp_path: Path) -> Run:
    return make(tmp_path / "run", sealed=False)


@pytest.fixture
def sealed(tmp_path: Path) -> Run:
    return make(tmp_path / "run", sealed=True)


def assert_no_wrong_value(got: Recording, wanted: Recording) -> None:
    """Every cell of a recording is null or as wanted."""
    for key, panel in got.panels.items():
        whole = wanted.panels[key]
        t, s = np.searchsorted(whole.steps, panel.steps), np.searchsorted(whole.sites, panel.sites)
        assert np.array_equal(whole.steps[t], panel.steps)
        assert np.array_equal(whole.sites[s], panel.sites)
        there = panel.n != NULL
        for name in ("n", "l2", "sum", "absmax", "nan", "inf", "zeros", "subnormal", "stage"):
            expected = getattr(whole, name)[np.ix_(t, s)]
            np.testing.assert_array_equal(getattr(panel, name)[there], expected[there])
    for optimizer, table in got.step_tables.items():
        whole_table = wanted.step_tables[optimizer]
        t = np.searchsorted(whole_table.steps, table.steps)
        assert np.array_equal(whole_table.steps[t], table.steps)
        for name, column in table.logged.items():
            there = ~np.isnan(column)
            np.testing.assert_array_equal(column[there], whole_table.logged[name][t][there])


def steps_of(recording: Recording) -> int:
    panel = recording.panel("gradient")
    return 0 if panel is None else len(panel.steps)


@pytest.mark.parametrize("kind", [ROWS, STEPS])
def test_cut_at_every_byte(tmp_path: Path, kind: str) -> None:
    """Cut at any byte, a hot file gives every batch before the cut, never an exception and never a wrong value."""
    records = [replace(record, blocks=record.blocks[:1]) for record in SyntheticRun(layers=1, steps=2).records()]
    rows = [rows_of([record]) if kind == ROWS else step_rows_of([record]) for record in records]
    data = append.head(kind) + b"".join(append.encode(part, "sites-00000000.parquet") for part in rows)
    file = DataFile(1, kind, sealed=False)
    ends = batch_ends(data)
    for cut in range(len(data) + 1):
        (tmp_path / file.name).write_bytes(data[:cut])
        part = read_file(tmp_path, file)
        whole = sum(end <= cut for end in ends)
        found = part.chunks[0].rows() if part.chunks else part.steps[0] if part.steps else None
        assert part.problems == []
        assert (part.torn > 0) == (cut > ends[0] and cut not in ends), cut
        assert (found is None) == (whole == 0), cut
        if isinstance(found, Rows):
            assert found.checksum() == rows_of(records[:whole]).checksum()
        elif found is not None:
            assert found.checksum() == step_rows_of(records[:whole]).checksum()


@pytest.mark.parametrize("name", ["hot-000001.arrows", "hotsteps-000001.arrows"])
def test_a_cut_run(hot: Run, name: str) -> None:
    """A run cut off anywhere opens with all batches before the cut, and says when some were lost."""
    path = hot.attempt / name
    data = path.read_bytes()
    ends = batch_ends(data)
    wanted = hot.first(len(hot.records))
    random = np.random.default_rng(2).integers(0, len(data), 30).tolist()
    for cut in [0, *random, *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:-1])]:
        path.write_bytes(data[:cut])
        got = load_recording(hot.path)
        assert_no_wrong_value(got, wanted)
        whole = sum(end <= cut for end in ends) * STEPS_A_BATCH
        found = steps_of(got) if name.startswith("hot-") else int((~np.isnan(got.step_tables[0].time)).sum())
        assert found == whole, cut
        assert any("cut off" in note for note in got.quality) == (cut > ends[0] and cut not in ends), cut


def batch_ends(data: bytes) -> list[int]:
    """Finds the ends of batches the slow way: the file is read by pyarrow alone."""
    import pyarrow as pa

    source = pa.BufferReader(data)
    reader = pa.ipc.open_stream(source)
    ends: list[int] = []
    while True:
        try:
            reader.read_next_batch()
        except StopIteration:
            return ends
        ends.append(source.tell())


def test_zeros_at_the_end(hot: Run) -> None:
    """A tail of zeros, as power loss leaves it, costs only what it covers."""
    path = hot.attempt / "hot-000001.arrows"
    data = path.read_bytes()
    ends = batch_ends(data)
    for keep in (ends[0], ends[1] + 5, ends[2] - 200, ends[3]):
        path.write_bytes(data[:keep] + bytes(len(data) + 4096 - keep))
        got = load_recording(hot.path)
        assert steps_of(got) == sum(end <= keep for end in ends) * STEPS_A_BATCH
        assert_no_wrong_value(got, hot.first(len(hot.records)))


def test_a_damaged_batch_costs_no_other(hot: Run) -> None:
    """With any one byte of a batch destroyed, all batches before and behind it are still read."""
    path = hot.attempt / "hot-000001.arrows"
    data = path.read_bytes()
    ends = batch_ends(data)
    random = np.random.default_rng(0)
    for at in [ends[0], ends[0] + 4, ends[0] + 8, *random.integers(ends[0], ends[1], 40).tolist()]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        got = load_recording(hot.path)
        assert_no_wrong_value(got, hot.first(len(hot.records)))
        assert steps_of(got) >= (BATCHES - 1) * STEPS_A_BATCH, at


@pytest.mark.parametrize("state", ["hot", "sealed"])
def test_flipped_bits(tmp_path: Path, state: str) -> None:
    """A flipped bit in any file of a run is harmless or said, and never gives a wrong value."""
    run = make(tmp_path / "run", sealed=state == "sealed")
    wanted = run.first(len(run.records))
    clean = load_recording(run.path)
    random = np.random.default_rng(1)
    paths = sorted(path for path in run.path.rglob("*") if path.is_file())
    assert len(paths) == (9 if state == "sealed" else 5)
    silent = 0
    for path in paths:
        data = path.read_bytes()
        for bit in random.integers(0, 8 * len(data), 45).tolist():
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(flipped)
            if path.name == RUN_FILE:
                with pytest.raises(RunError):
                    load_recording(run.path)
                continue
            got = load_recording(run.path)
            assert_no_wrong_value(got, wanted)
            lost = steps_of(got) != steps_of(clean)
            silent += lost and got.quality == clean.quality
            assert not verify(run.path).whole or not lost
        path.write_bytes(data)
    assert silent == 0


def test_a_missing_site_table_is_said(sealed: Run) -> None:
    """Without its site table an attempt gives no rows, and the notes and the check say why."""
    next(sealed.path.glob("sites-*.parquet")).unlink()
    got = load_recording(sealed.path)
    assert got.panels == {}
    assert any("site table" in note for note in got.quality)
    assert any("site table" in problem for problem in verify(sealed.path).problems)


def test_a_lost_manifest_costs_no_rows(sealed: Run) -> None:
    """An attempt whose manifest is gone is read by what its data files say of themselves."""
    (sealed.attempt / "meta.json").unlink()
    got = load_recording(sealed.path)
    assert steps_of(got) == len(sealed.records)
    assert any("meta.json" in note for note in got.quality)


def test_the_sealed_file_stands(sealed: Run) -> None:
    """Killed between sealing and unlinking, a run has both files; the sealed one is read and nothing twice."""
    (sealed.attempt / "hot-000001.arrows").write_bytes(b"left behind")
    (sealed.attempt / "L0-000002.parquet.123.tmp").write_bytes(b"half")
    got = load_recording(sealed.path)
    assert steps_of(got) == len(sealed.records)
    assert got.quality == ()


@pytest.mark.parametrize("kind", ["symlink", "pipe", "huge", "directory"])
def test_only_plain_files_are_read(sealed: Run, kind: str) -> None:
    """Symlinks, pipes, directories and files beyond the limit are refused without being read."""
    path = sealed.attempt / "L0-000001.parquet"
    moved = sealed.path.parent / "elsewhere"
    path.rename(moved)
    if kind == "symlink":
        path.symlink_to(moved)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(MAX_FILE_BYTES + 1)
    got = load_recording(sealed.path)
    assert steps_of(got) == 0
    assert any("cannot be read" in note for note in got.quality)


def test_a_bomb_is_refused(sealed: Run) -> None:
    """A small file that states a hundred million rows is refused by its count, before they are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = sealed.attempt / "L0-000001.parquet"
    table = pa.table({"step": pa.array(np.zeros(20_000_000, dtype=np.int64))})
    pq.write_table(table, path, compression="zstd", row_group_size=2**26)
    assert path.stat().st_size < 200_000
    got = load_recording(sealed.path)
    assert any("rows, more than" in note or "it states" in note for note in got.quality)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"format": "gradwatch run"}'])
def test_a_damaged_run_file_is_one_sentence(sealed: Run, content: bytes) -> None:
    """A damaged run.json is a RunError that names the file and says what to do."""
    (sealed.path / RUN_FILE).write_bytes(content)
    for read in (load_recording, verify):
        with pytest.raises(RunError, match=r"run\.json is damaged .*restore it"):
            read(sealed.path)


def test_a_newer_run_is_refused(sealed: Run) -> None:
    """A run of a newer schema is refused with the version to install, by readers and by writers."""
    content = manifest.read(sealed.path / RUN_FILE)
    (sealed.path / RUN_FILE).write_bytes(manifest.encode({**content, "schema_version": 2}))
    sentence = "written by gradwatch schema 2; this release reads 1; install a newer gradwatch"
    with pytest.raises(RunError, match=sentence):
        load_recording(sealed.path)
    with pytest.raises(RunError, match=sentence):
        StoreWriter(sealed.path, sealed.source.sites, {})


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    """A missing path, a file and a foreign directory are each one sentence, for readers and for writers."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="does not exist"):
        load_recording(tmp_path / "missing")
    with pytest.raises(RunError, match="is a file"):
        load_recording(tmp_path / "file")
    with pytest.raises(RunError, match="is not a run"):
        load_recording(tmp_path / "foreign")
    sites = SyntheticRun(layers=1, steps=0).sites
    with pytest.raises(RunError, match="is a file"):
        StoreWriter(tmp_path / "file", sites, {})
    with pytest.raises(RunError, match="something else"):
        StoreWriter(tmp_path / "foreign", sites, {})
    with pytest.raises(RunError, match="cannot be created"):
        StoreWriter(tmp_path / "file" / "run", sites, {})
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.tex"]


@settings(max_examples=200)
@given(data=st.data())
def test_any_bytes_are_a_hot_file(data: st.DataObject) -> None:
    """Whatever bytes a hot file holds, reading gives whole batches or none, and never an exception."""
    records = [replace(record, blocks=record.blocks[:1]) for record in SyntheticRun(layers=1, steps=2).records()]
    whole = append.head(ROWS) + b"".join(append.encode(rows_of([record]), "") for record in records)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), min_size=2, max_size=2)))
    middle = data.draw(st.binary(max_size=64) | st.just(b"\xff" * 64))
    mixed = whole[: cuts[0]] + middle + data.draw(st.sampled_from([whole[cuts[1] :], whole[cuts[0] :], whole]))
    with tempfile.TemporaryDirectory() as directory:
        file = DataFile(1, ROWS, sealed=False)
        (Path(directory) / file.name).write_bytes(mixed)
        part = read_file(Path(directory), file)
    singles = [rows_of([record]).checksum() for record in records]
    for chunk in part.chunks:
        rows = chunk.rows()
        for step in np.unique(rows["step"]).tolist():
            at = np.flatnonzero(rows["step"] == step)
            assert rows.take(at[: len(rows_of([records[step]]))]).checksum() in singles
