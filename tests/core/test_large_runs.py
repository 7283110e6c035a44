"""Large runs: judging one takes little time and room, and it is read from its files when somebody asks."""

from __future__ import annotations

import copy
import gc
import pickle
import shutil
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradwatch
from gradwatch.analyze import analyze
from gradwatch.errors import RunError
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.record import StepRecord
from gradwatch.recording import from_records, load_recording
from gradwatch.recording.stored import KEPT_BYTES, Kept
from gradwatch.statistics import NULL, Statistics
from gradwatch.store import StoreWriter, held, manifest, opened, seal
from gradwatch.store.chunk import Chunk, InMemory
from gradwatch.store.columns import rows_of
from gradwatch.testing import long_run

LAYERS = 200
SHORT, LONG = 300, 1000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Path]]:
    """Runs of 200 layers and 300 or 1,000 steps, in files of 50,000 rows."""
    path = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "HOT_ROWS", 50_000)
        yield {steps: long_run(path / str(steps), layers=LAYERS, steps=steps, whole=steps) for steps in (SHORT, LONG)}


def small(path: Path, steps: int = 100) -> list[StepRecord]:
    """Writes a run of three layers; returns its records."""
    run = SyntheticRun(layers=3, steps=steps)
    records = list(run.records())
    writer = StoreWriter(path, run.sites, {"framework": "none"})
    writer.open()
    for record in records:
        writer(record)
        writer.tick()
    writer.close()
    return records


def peak(path: Path) -> int:
    """Returns the bytes that loading and judging a run takes at most."""
    tracemalloc.start()
    try:
        assert gradwatch.load(path).analysis.judged
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_wide_run_is_judged_soon(runs: dict[int, Path]) -> None:
    """A fiftieth of 1,000 layers by 10,000 steps takes a fiftieth of 10 s, five times over."""
    began = time.process_time()
    assert gradwatch.load(runs[LONG]).analysis.judged
    assert time.process_time() - began < 5 * 10 / 50


def test_the_room_that_judging_takes_does_not_grow_with_the_steps(runs: dict[int, Path]) -> None:
    """A row more takes less than 50 bytes to judge: less than its columns, of which at most a few files' are there."""
    rows = {
        steps: sum(int((panel.n != NULL).sum()) for panel in load_recording(path).panels.values())
        for steps, path in runs.items()
    }
    assert peak(runs[LONG]) - peak(runs[SHORT]) < 50 * (rows[LONG] - rows[SHORT])


def test_the_steps_of_several_files_replay_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read file by file, a run gives the records that were written, and so the findings of these."""
    monkeypatch.setattr(opened, "HOT_ROWS", 400)
    records = small(tmp_path / "run", steps=300)
    assert len(list((tmp_path / "run").rglob("L0-*"))) > 3
    got = load_recording(tmp_path / "run")
    replayed = list(got.records(0))
    assert [record.step for record in replayed] == [record.step for record in records]
    for mine, wanted in zip(replayed, records, strict=True):
        assert (mine.facts, mine.logged) == (wanted.facts, wanted.logged)
        assert [block.signal for block in mine.blocks] == [block.signal for block in wanted.blocks]
        for block, other in zip(mine.blocks, wanted.blocks, strict=True):
            np.testing.assert_array_equal(block.sites, other.sites)
            for field in fields(Statistics):
                name = field.name
                np.testing.assert_array_equal(getattr(block.statistics, name), getattr(other.statistics, name))
    whole = from_records(records, got.sites)
    assert analyze(got).findings == analyze(whole).findings


def test_replayed_statistics_are_like_others(tmp_path: Path) -> None:
    """Statistics whose histograms are read late can be copied, pickled, selected from and made lean."""
    small(tmp_path / "run", steps=3)
    statistics = next(load_recording(tmp_path / "run").records(0)).blocks[0].statistics
    for other in (copy.deepcopy(statistics), pickle.loads(pickle.dumps(statistics))):
        np.testing.assert_array_equal(other.histogram, statistics.histogram)
        np.testing.assert_array_equal(other.l2, statistics.l2)
    assert statistics.histogram is not None
    np.testing.assert_array_equal(statistics.take(np.array([1])).histogram, statistics.histogram[[1]])
    assert statistics.lean().histogram is None


@pytest.mark.parametrize("descriptors", [128, 0])
def test_a_loaded_run_outlives_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, descriptors: int) -> None:
    """What was loaded can be read after the run is gone, whether files are kept open or in memory."""
    monkeypatch.setattr(held, "DESCRIPTORS", descriptors)
    monkeypatch.setattr(held, "IN_MEMORY", 0)
    records = small(tmp_path / "run")
    got = load_recording(tmp_path / "run")
    wanted = from_records(records, got.sites)
    before = held.Held.kept_open()
    shutil.rmtree(tmp_path / "run")
    for key, panel in wanted.panels.items():
        np.testing.assert_array_equal(got.panels[key].l2, panel.l2)
        np.testing.assert_array_equal(got.panels[key].histogram, panel.histogram)
    assert (before > 0) == (descriptors > 0)
    del got
    gc.collect()
    assert held.Held.kept_open() < before or descriptors == 0


def test_a_file_that_is_not_what_its_checksum_says(tmp_path: Path) -> None:
    """A sealed file whose checksum was made to fit its damage is one sentence when its values are asked for."""
    small(tmp_path / "run")
    path = next((tmp_path / "run").rglob("L0-*"))
    data = bytearray(path.read_bytes())
    metadata = pq.ParquetFile(path).metadata.row_group(0)
    column = next(metadata.column(i) for i in range(18) if metadata.column(i).path_in_schema == "l2")
    at = column.data_page_offset + column.total_compressed_size // 2
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    meta = manifest.read(path.parent / "meta.json")
    meta["sealed"][path.name] = seal.checksum(bytes(data))
    (path.parent / "meta.json").write_bytes(manifest.encode(meta))
    recording = load_recording(tmp_path / "run")
    with pytest.raises(RunError, match="cannot be read"):
        _ = recording.panels["gradient", 0].l2
    with pytest.raises(RunError, match="cannot be read"):
        analyze(recording)


def test_columns_are_kept_while_there_is_room() -> None:
    """The columns asked for latest are kept up to a limit, two of any size, and views of one value always."""
    kept, reads = Kept(), list[str]()

    def read(name: str, size: int) -> None:
        def made() -> np.ndarray[Any, np.dtype[np.uint8]]:
            reads.append(name)
            return np.zeros(size, dtype=np.uint8) if size else np.broadcast_to(np.zeros(1, dtype=np.uint8), (10, 10))

        kept.get(("gradient", 0), name, made)

    third = KEPT_BYTES // 3
    for name, size in (("view", 0), ("a", third), ("b", third), ("c", third), ("a", third), ("d", third)):
        read(name, size)
    assert reads == ["view", "a", "b", "c", "d"]
    for name, size in (("view", 0), ("a", third), ("b", third), ("huge", 2 * KEPT_BYTES), ("b", third)):
        read(name, size)
    assert reads == ["view", "a", "b", "c", "d", "b", "huge"]


keys = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 5)), max_size=40)


@given(keys=keys, in_order=st.booleans())
def test_grids_hold_each_row_once(keys: list[tuple[int, int, int]], in_order: bool) -> None:
    """Whatever the keys and their order, every row is a cell of one grid, with its own step, site and optimizer."""
    if in_order:
        keys = sorted(keys, key=lambda key: (key[1], key[2]))
    columns = [np.array([key[i] for key in keys], dtype=np.int64) for i in range(3)]
    optimizer, site, step = columns
    chunk = Chunk(step, optimizer, site.astype(np.uint32), InMemory(rows_of([])))
    value = chunk.in_order(np.arange(len(keys)))
    found = []
    for grid in chunk.grids:
        cells = grid.cells(value)
        for s, t in np.ndindex(*cells.shape):
            row = int(cells[s, t])
            found.append(row)
            assert keys[row] == (grid.optimizer, int(grid.sites[s]), int(grid.steps[t]))
    assert sorted(found) == list(range(len(keys)))


@given(keys=keys, limit=st.integers(0, 6))
def test_grids_are_cut_as_their_rows_are(keys: list[tuple[int, int, int]], limit: int) -> None:
    """Cut at a step, a chunk keeps the rows before it, and tells how many went and the first step of them."""
    optimizer, site, step = (np.array([key[i] for key in keys], dtype=np.int64) for i in range(3))
    chunk = Chunk(step, optimizer, site.astype(np.uint32), InMemory(rows_of([])))
    gone = [key[2] for key in keys if key[2] >= limit]
    assert chunk.keep_before(np.full(256, limit)) == (len(gone), min(gone, default=None))
    value = chunk.in_order(np.arange(len(keys)))
    left = sorted(row for grid in chunk.grids for row in grid.cells(value).ravel().tolist())
    assert left == [row for row, key in enumerate(keys) if key[2] < limit]
