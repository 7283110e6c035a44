"""What goes into a run's files comes out of them."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.guard import Guard
from gradwatch.record import ABSENT, SIGNALS, STAGES, STEP_FACTS, Block, Resolved, Site, SiteTable, StepRecord
from gradwatch.recorder import Recorder
from gradwatch.recording import Recording, from_records, load_recording
from gradwatch.statistics import BINS, NULL, Statistics, UnitCounts
from gradwatch.store import StoreWriter
from gradwatch.store.events import read_events
from gradwatch.store.verify import verify

Cell = dict[str, Any]
COUNTS = ("n", "nan", "inf", "zeros", "subnormal")
VALUES = ("l2", "sum", "absmax")
UNITS = ("units", "silent_units", "silent_delta_units", "saturated")


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    yield path / "run"
    shutil.rmtree(path)


def cells_of(records: Sequence[StepRecord], sites: SiteTable) -> dict[tuple[str, int, int, int], Cell]:
    """The slow, obvious reading of records: one dictionary a row; the last row of a cell wins."""
    cells: dict[tuple[str, int, int, int], Cell] = {}
    for record in records:
        for block in record.blocks:
            for i, site in enumerate(block.sites.tolist()):
                statistics = block.statistics
                cell: Cell = {"stage": block.stage}
                for name in (*COUNTS, *VALUES):
                    column = getattr(statistics, name)
                    cell[name] = NULL if column is None else column[i].item()
                if statistics.histogram is not None:
                    cell["histogram"] = statistics.histogram[i].tolist()
                if block.units is not None:
                    cell.update({name: getattr(block.units, name)[i].item() for name in UNITS})
                cells[sites[site].signal, record.optimizer, record.step, site] = cell
    return cells


def cells_in(recording: Recording) -> dict[tuple[str, int, int, int], Cell]:
    """The cells of a recording that hold a row."""
    cells: dict[tuple[str, int, int, int], Cell] = {}
    for (signal, optimizer), panel in recording.panels.items():
        histograms = dict(zip(panel.histogram_steps.tolist(), panel.histogram, strict=True))
        for t, s in np.argwhere(panel.n != NULL).tolist():
            cell: Cell = {name: getattr(panel, name)[t, s].item() for name in (*COUNTS, *VALUES)}
            cell["stage"] = STAGES[panel.stage[t, s]]
            if t in histograms and histograms[t][s].any():
                cell["histogram"] = histograms[t][s].tolist()
            if panel.units is not None and (panel.units[:, t, s] != NULL).any():
                cell.update(dict(zip(UNITS, panel.units[:, t, s].tolist(), strict=True)))
            cells[signal, optimizer, int(panel.steps[t]), int(panel.sites[s])] = cell
    return cells


def assert_same_cells(got: dict[Any, Cell], wanted: dict[Any, Cell]) -> None:
    assert got.keys() == wanted.keys()
    for key, cell in wanted.items():
        for name, value in cell.items():
            no_units = name in UNITS and all(cell[unit] == NULL for unit in UNITS)
            if no_units or (name == "histogram" and not any(value)):
                assert name not in got[key]
            elif isinstance(value, float) and math.isnan(value):
                assert math.isnan(got[key][name]), (key, name)
            else:
                assert got[key][name] == value, (key, name)


def assert_same(got: Recording, wanted: Recording) -> None:
    """Two recordings are equal, column by column and type by type."""
    assert got.panels.keys() == wanted.panels.keys()
    assert got.step_tables.keys() == wanted.step_tables.keys()
    pairs: list[tuple[Any, Any]] = [(got.panels[key], wanted.panels[key]) for key in wanted.panels]
    pairs += [(got.step_tables[key], wanted.step_tables[key]) for key in wanted.step_tables]
    for first, second in pairs:
        for name in [*second.__dataclass_fields__, *getattr(second, "columns", ())]:
            if name == "columns":
                continue
            x, y = getattr(first, name), getattr(second, name)
            np.testing.assert_equal(x, y, err_msg=name)
            assert getattr(x, "dtype", None) == getattr(y, "dtype", None)


def write(path: Path, records: Sequence[StepRecord], sites: SiteTable, *, close: bool = True) -> StoreWriter:
    writer = StoreWriter(path, sites, {"framework": "none"})
    writer.open()
    for record in records:
        writer(record)
    writer.flush()
    if close:
        writer.close()
    return writer


def single_precision(statistics: Statistics) -> Statistics:
    rounded = {name: getattr(statistics, name).astype(np.float32).astype(np.float64) for name in VALUES}
    return replace(statistics, **rounded)


class RandomRun:
    """Records with everything a record may hold, in no particular order of cadence."""

    def __init__(self, seed: int, steps: int) -> None:
        self.random = np.random.default_rng(seed)
        self.optimizers = int(self.random.integers(1, 4))
        self.sites = SiteTable(optimizers=[f"optimizer {i}" for i in range(self.optimizers)])
        self.records = [record for step in range(steps) for record in self.of_step(step)]

    def of_step(self, step: int) -> Iterator[StepRecord]:
        for optimizer in range(self.optimizers):
            blocks = [self.block(signal) for signal in SIGNALS if self.random.random() < 0.6]
            names = [name for name in STEP_FACTS if self.random.random() < 0.5]
            facts = {name: float(self.random.normal()) for name in names}
            logged = {"loss": self.loss()} if self.random.random() < 0.7 else {}
            skipped = bool(self.random.random() < 0.1)
            yield StepRecord(step, optimizer, 0.1 * step, skipped, tuple(blocks), facts, logged)
            if self.random.random() < 0.3:
                yield StepRecord(step, optimizer, 0.1 * step, logged={"späte Zahl\0": self.loss()}, late=True)
            if self.random.random() < 0.05:
                yield StepRecord(step, optimizer, 0.2 * step, blocks=tuple(blocks), logged={"loss": self.loss()})

    def loss(self) -> float:
        return float(self.random.choice([1.5, -0.0, math.nan, math.inf, -math.inf, 1e308, 5e-324]))

    def block(self, signal: str) -> Block:
        wanted = int(self.random.integers(1, 6))
        names = self.random.choice(12, size=wanted, replace=False).tolist()
        ids = [self.sites.add(Site(signal, f"layer.{i}", f"layer.{i}", numel=i, shape=(i, 2))) for i in names]
        stage = str(self.random.choice(STAGES))
        full = bool(self.random.random() < 0.5)
        units = self.units(wanted) if signal == "activation" else None
        statistics = self.nothing(wanted) if stage == ABSENT else self.statistics(wanted, full=full)
        return Block(signal, np.array(ids, dtype=np.uint32), statistics, stage, units)

    def nothing(self, m: int) -> Statistics:
        zero, null = np.zeros(m, dtype=np.int64), np.full(m, np.nan)
        return Statistics(zero, null, null, null, zero, zero)

    def statistics(self, m: int, *, full: bool) -> Statistics:
        def values() -> npt.NDArray[np.float64]:
            return self.random.choice([0.0, -0.0, 1e-37, 1.1754942e-38, 3.4e38, 1e300, 0.1, np.nan], size=m)

        def counts() -> npt.NDArray[np.int64]:
            return self.random.choice([0, 1, 7, 2**31, 2**40], size=m)

        histogram = self.random.choice([0, 1, 2**32 - 1], size=(m, BINS)).astype(np.uint32) if full else None
        return Statistics(
            *(counts(), np.abs(values()), values(), np.abs(values()), counts(), counts()),
            *(counts() if full else None, np.where(counts() > 1, NULL, counts()) if full else None, histogram),
        )

    def units(self, m: int) -> UnitCounts:
        columns = [self.random.choice([NULL, 0, 5, 2**32 - 1], size=m) for _ in UNITS]
        return UnitCounts(*columns)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), steps=st.integers(0, 25), sealed=st.booleans())
def test_every_record_comes_back(seed: int, steps: int, sealed: bool) -> None:
    """Records of any kind come back equal to the slow reading, from hot and from sealed files."""
    run = RandomRun(seed, steps)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run"
        writer = write(path, run.records, run.sites, close=sealed)
        got = load_recording(path)
        assert verify(path).whole
        writer.close()
    assert_same_cells(cells_in(got), cells_of(run.records, run.sites))
    assert_same(got, from_records(run.records, run.sites))
    assert list(got.sites) == list(run.sites)
    assert got.sites.layers == run.sites.layers
    assert got.sites.optimizers == run.sites.optimizers
    assert got.open != sealed


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 25))
def test_rows_of_steps_come_back(seed: int, steps: int) -> None:
    """Times, skips, facts and logged scalars equal the slow reading; the last value given for a step wins."""
    run = RandomRun(seed, steps)
    got = from_records(run.records, run.sites)
    for optimizer, table in got.step_tables.items():
        mine = [record for record in run.records if record.optimizer == optimizer]
        for t, step in enumerate(table.steps.tolist()):
            rows = [record for record in mine if record.step == step]
            whole = [record for record in rows if not record.late]
            logged = {name: value for record in rows for name, value in record.logged.items()}
            facts = {name: value for record in rows for name, value in record.facts.items()}
            assert table.time[t] == whole[-1].time
            assert table.skipped[t] == whole[-1].skipped
            kept = {name: column[t] for name, column in table.logged.items() if not np.isnan(column[t])}
            assert kept == {name: value for name, value in logged.items() if math.isfinite(value)}
            bad = {name: value for at, name, value in table.nonfinite_logged if at == step}
            np.testing.assert_equal(bad, {name: value for name, value in logged.items() if not math.isfinite(value)})
            assert {n: c[t] for n, c in table.facts.items() if not np.isnan(c[t])} == facts


def test_a_run_of_the_default_schedule_comes_back(place: Path) -> None:
    """A made-up run is the same from hot and from sealed files, and as in memory."""
    run = SyntheticRun(layers=6, steps=150, fault="disconnected")
    records = list(run.records())
    writer = write(place, records, run.sites, close=False)
    wanted = from_records(records, run.sites)
    assert_same(load_recording(place), wanted)
    writer.close()
    sealed = load_recording(place)
    assert_same(sealed, wanted)
    assert sealed.quality == ()
    assert not sealed.open
    assert {path.suffix for path in (place / "rank0000" / "a0001").iterdir()} == {".json", ".parquet"}


def test_through_the_recorder(place: Path) -> None:
    """Handed over on one thread and written on another, a run comes back whole, and closing takes less than 2 s."""
    run = SyntheticRun(layers=4, steps=300)
    records = list(run.records())
    sink = StoreWriter(place, run.sites, {})
    recorder = Recorder([sink], Guard())
    recorder.start()
    assert recorder.wait_open()
    for i in range(0, len(records), 100):
        for record in records[i : i + 100]:
            recorder.put(record.step, Resolved(record))
        time.sleep(0.15)
    assert recorder.close()
    assert_same(load_recording(place), from_records(records, run.sites))
    assert verify(place).whole


def test_a_late_row_may_come_alone(place: Path) -> None:
    """A scalar that came late for a step in an earlier batch joins that step's row."""
    sites = SiteTable()
    records = [
        StepRecord(0, time=1.0, skipped=True, logged={"a": 1.0}),
        StepRecord(0, time=9.0, logged={"a": 2.0, "b": 3.0}, late=True),
        StepRecord(7, time=2.0, logged={"b": 5.0}, late=True),
    ]
    writer = StoreWriter(place, sites, {})
    writer.open()
    for record in records:
        writer(record)
        assert writer.flush()
    table = load_recording(place).step_tables[0]
    writer.close()
    assert table.steps.tolist() == [0, 7]
    assert table.time.tolist() == [1.0, 2.0]
    assert table.skipped.tolist() == [True, False]
    np.testing.assert_equal(table.logged["a"], [2.0, np.nan])
    assert table.logged["b"].tolist() == [3.0, 5.0]


def test_an_empty_run_opens(place: Path) -> None:
    """A run that was opened and nothing else has empty panels; closing it changes nothing."""
    writer = StoreWriter(place, SyntheticRun(layers=2, steps=0).sites, {"framework": "none"})
    assert not place.exists()
    writer.open()
    for _ in range(2):
        recording = load_recording(place)
        assert recording.panels == {}
        assert len(recording.steps()) == 0
        assert recording.facts["framework"] == "none"
        assert verify(place).whole
        writer.close()


def test_the_site_table_may_grow(place: Path) -> None:
    """Sites, layers and optimizers that appear during training are in the run, and ids stay."""
    sites = SiteTable([Site("gradient", "a", "a")], optimizers=["first"])
    writer = StoreWriter(place, sites, {})
    writer.open()
    one = Statistics(*(np.array([value]) for value in (3, 2.0, 1.0, 1.5, 0, 0)))
    writer(StepRecord(0, blocks=(Block("gradient", np.array([0], dtype=np.uint32), one),)))
    writer.flush()
    sites.add(Site("gradient", "b", "b", aliases=("c", "d")))
    sites.optimizers.append("second")
    sites.set_order(["b", "a"])
    writer(StepRecord(0, 1, blocks=(Block("gradient", np.array([1], dtype=np.uint32), replace(one, n=one.n + 1)),)))
    writer.flush()
    for _ in range(2):
        got = load_recording(place)
        assert [site.name for site in got.sites] == ["a", "b"]
        assert got.sites[1].aliases == ("c", "d")
        assert got.sites.layers == ("b", "a")
        assert got.sites.optimizers == ["first", "second"]
        assert got.panels["gradient", 0].n.tolist() == [[3]]
        assert got.panels["gradient", 1].n.tolist() == [[4]]
        writer.close()


def test_null_is_not_nan(place: Path) -> None:
    """A statistic over no element is null in the file, and a logged NaN is a value there."""
    import pyarrow.parquet as pq

    sites = SiteTable([Site("gradient", "a", "a")])
    nothing = Statistics(*(np.array([v]) for v in (0, np.nan, np.nan, np.nan, 0, 0)))
    block = Block("gradient", np.array([0], dtype=np.uint32), nothing, ABSENT)
    write(place, [StepRecord(0, blocks=(block,), logged={"loss": math.nan})], sites)
    directory = place / "rank0000" / "a0001"
    rows = pq.read_table(directory / "L0-000001.parquet").to_pylist()
    steps = pq.read_table(directory / "steps-000001.parquet").to_pylist()
    assert rows[0]["l2"] is rows[0]["zeros"] is rows[0]["histogram"] is None
    assert rows[0]["stage"] == STAGES.index(ABSENT)
    assert math.isnan(dict(steps[0]["logged"])["loss"])
    assert steps[0]["learning_rate"] is None


def test_sealed_files_are_small_and_sorted(place: Path) -> None:
    """Sealed rows are ordered by site and step, and a lean row of float32 values takes less than 14 bytes."""
    import pyarrow.parquet as pq

    run = SyntheticRun(layers=100, steps=200)
    records = [
        replace(record, blocks=(replace(block, statistics=single_precision(block.statistics.lean())),))
        for record in run.records()
        for block in record.blocks[:1]
    ]
    write(place, records, run.sites)
    path = place / "rank0000" / "a0001" / "L0-000001.parquet"
    table = pq.read_table(path, columns=["site", "step"])
    order = table.column("site").to_numpy() * 1000 + table.column("step").to_numpy()
    assert (np.diff(order) > 0).all()
    assert path.stat().st_size < 14 * len(table) + 20_000


def test_events_are_lines(place: Path) -> None:
    """Events come back in order with the time since the start; a torn last line is skipped and reported."""
    writer = StoreWriter(place, SiteTable(), {})
    writer.open()
    writer.event({"kind": "finding", "value": math.nan})
    writer.event({"kind": "note", "text": "</script>"})
    writer.tick()
    writer.close()
    assert [event["kind"] for event in read_events(place)] == ["finding", "note"]
    assert read_events(place)[0]["value"] == "nan"
    with (place / "rank0000" / "a0001" / "events.jsonl").open("ab") as file:
        file.write(b'{"kind": "to')
    assert len(read_events(place)) == 2
    assert "events.jsonl" in verify(place).problems[0]


def test_importing_the_writer_imports_no_arrow() -> None:
    """Neither the writer nor the reader costs the import of pyarrow before it works."""
    import subprocess
    import sys

    code = "import sys, gradwatch.store, gradwatch.recording; assert 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
