"""Roll-ups: what a bucket says, that no split of a run changes it, and that the whole run stays in sight."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.analyze import Stream
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.findings import Finding
from gradwatch.record import STAGES, StepRecord
from gradwatch.recording import load_recording
from gradwatch.run import load
from gradwatch.schedule import Schedule
from gradwatch.statistics import BINS, NULL
from gradwatch.store import StoreWriter, files, opened, rollups
from gradwatch.store.bucketfile import bucket_bytes, rounded
from gradwatch.store.buckets import WIDTHS, BucketRows, buckets_of, join_buckets, merged
from gradwatch.store.columns import ROW_COLUMNS, UNITS, Rows
from gradwatch.store.layout import data_files
from gradwatch.store.read import read_file
from gradwatch.store.rollups import Rollups
from gradwatch.store.stored import read_attempts
from gradwatch.store.verify import verify
from gradwatch.told import analysis_event, finding_event

ABSENT = STAGES.index("absent")


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    """Rows of a few sites in order of steps, with nulls, absent gradients and histograms here and there."""
    count = draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = np.sort(random.integers(0, 3 * 64, count))
    n = random.integers(1, 1000, count)
    bad = np.where(random.random(count) < 0.2, random.integers(0, n + 1), 0)
    null = (bad == n) | (random.random(count) < 0.1)
    taken = random.random(count) < 0.5
    columns: dict[str, Any] = {
        "step": steps,
        "optimizer": random.integers(0, 2, count).astype(np.uint8),
        "site": random.integers(0, 3, count).astype(np.uint32),
        "stage": random.choice([1, 2, ABSENT], count).astype(np.uint8),
        "n": n,
        "nan": bad,
        "inf": np.zeros(count, dtype=np.int64),
        "zeros": np.where(taken, random.integers(0, 9, count), NULL),
        "subnormal": np.where(taken, random.integers(0, 9, count), NULL),
        **{name: np.where(null, np.nan, random.lognormal(0, 3, count)) for name in ("l2", "absmax")},
        "sum": np.where(null, np.nan, random.normal(0, 1, count)),
        **{name: np.where(taken, random.integers(0, 99, count), NULL) for name in UNITS},
    }
    having = np.flatnonzero(taken)
    histogram = random.integers(0, 1000, (len(having), BINS)).astype(np.uint32)
    return Rows({name: columns[name] for name in ROW_COLUMNS}, having, histogram)


def oracle(rows: Rows, width: int) -> dict[tuple[int, int, int], dict[str, Any]]:
    """Returns the bucket of each (optimizer, site, window), by the words of the definition."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for i in range(len(rows)):
        key = (int(rows["optimizer"][i]), int(rows["site"][i]), int(rows["step"][i]) // width)
        groups.setdefault(key, []).append(i)
    at = {int(row): counts for row, counts in zip(rows.histogram_rows, rows.histogram, strict=True)}
    return {key: _bucket(rows, group, at) for key, group in groups.items()}


def _bucket(rows: Rows, group: list[int], at: dict[int, Any]) -> dict[str, Any]:
    def known(name: str) -> list[float]:
        return [float(rows[name][i]) for i in group if rows[name][i] == rows[name][i] and rows[name][i] != NULL]

    finite = {i: int(rows["n"][i] - rows["nan"][i] - rows["inf"][i]) for i in group}
    rms = [float(rows["l2"][i]) / math.sqrt(finite[i]) for i in group if finite[i] and not math.isnan(rows["l2"][i])]
    present = [i for i in group if rows["stage"][i] != ABSENT]
    taken = [i for i in group if rows["zeros"][i] != NULL]
    return {
        "step_lo": min(rows["step"][i] for i in group),
        "step_hi": max(rows["step"][i] for i in group),
        "samples": len(group),
        "stage": rows["stage"][present[-1]] if present else ABSENT,
        "n": sum(known("n")),
        "nan": sum(known("nan")),
        "zeros": sum(known("zeros")) if taken else NULL,
        "counted": sum(finite[i] for i in taken) if taken else NULL,
        "l2": math.sqrt(sum(x * x for x in known("l2"))) if known("l2") else math.nan,
        "sum": sum(x for x in rows["sum"][group] if not math.isnan(x)) if known("l2") else math.nan,
        "absmax": max(known("absmax"), default=math.nan),
        "rms_min": min(rms, default=math.nan),
        "rms_max": max(rms, default=math.nan),
        "nonfinite_max": max(int(rows["nan"][i] + rows["inf"][i]) for i in group),
        "zeros_max": max(known("zeros"), default=NULL),
        "saturated": max(known("saturated"), default=NULL),
        "histograms": len(taken),
        "histogram": sum((at[i].astype(np.int64) for i in taken), np.zeros(BINS)),
    }


def assert_like(got: BucketRows, wanted: dict[tuple[int, int, int], dict[str, Any]], width: int) -> None:
    assert len(got) == len(wanted)
    place = {int(row): i for i, row in enumerate(got.histogram_rows)}
    for i in range(len(got)):
        bucket = wanted[int(got["optimizer"][i]), int(got["site"][i]), int(got["step_lo"][i]) // width]
        for name, value in bucket.items():
            if name != "histogram":
                np.testing.assert_allclose(got[name][i], value, rtol=1e-9, atol=1e-9, err_msg=name)
        assert (i in place) == (bucket["histograms"] > 0)
        if i in place:
            np.testing.assert_array_equal(got.histogram[place[i]], bucket["histogram"])


@given(rows(), st.lists(st.integers(0, 40), max_size=4), st.sampled_from(sorted(WIDTHS.values())))
@settings(max_examples=150)
def test_any_split_merges_to_the_definition(rows: Rows, cuts: list[int], width: int) -> None:
    """However rows are split and merged, level by level or at once, a bucket is what its definition says."""
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    parts = [rows.take(np.arange(low, high)) for low, high in pairwise(edges)]
    wanted = oracle(rows, width)
    assert_like(merged(join_buckets([buckets_of(part) for part in parts]), width), wanted, width)
    assert_like(merged(join_buckets([merged(buckets_of(part), 8) for part in parts]), width), wanted, width)


@given(rows(), st.lists(st.integers(0, 40), max_size=4), st.booleans())
@settings(max_examples=80)
def test_every_row_is_in_every_level_once(rows: Rows, cuts: list[int], between: bool) -> None:
    """Whenever files are written of it, a level holds each row exactly once."""
    levels = Rollups()
    written: dict[str, list[BucketRows]] = {level: [] for level in WIDTHS}
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    for low, high in pairwise(edges):
        levels.feed(rows.take(np.arange(low, high)))
        for level in WIDTHS:
            written[level].append(levels.take(level, everything=between))
            levels.written(level, everything=between)
    for level, width in WIDTHS.items():
        written[level].append(levels.take(level, everything=True))
        assert_like(merged(join_buckets(written[level]), width), oracle(rows, width), width)


@given(rows())
@settings(max_examples=60)
def test_a_file_keeps_what_it_says(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> None:
    """Through a file counts stay equal, values within 2^-17, and histograms within 4.4 % a bin."""
    directory = tmp_path_factory.mktemp("level")
    wanted = merged(buckets_of(rows), 64)
    (directory / "L2-000001.parquet").write_bytes(bucket_bytes(wanted, "sites", width=64, replaces=1))
    part = read_file(directory, data_files(directory)[0])
    got = part.buckets[0].load()
    for name, column in wanted.columns.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(got[name], column, rtol=2.0**-17, err_msg=name)
        else:
            np.testing.assert_array_equal(got[name], column, err_msg=name)
    samples = wanted["histograms"][wanted.histogram_rows][:, None]
    np.testing.assert_allclose(1 + got.histogram / samples, 1 + wanted.histogram / samples, rtol=0.045)


def test_rounding_leaves_what_is_no_number() -> None:
    """Infinity, NaN, zero and the largest number are kept as they are."""
    values = np.array([np.inf, -np.inf, np.nan, 0.0, np.finfo(np.float64).max, 1.0])
    np.testing.assert_array_equal(rounded(values), values)


def spiked(layers: int, steps: int, spikes: dict[int, float]) -> tuple[SyntheticRun, Iterator[StepRecord]]:
    """Returns a run of which the gradients of a few steps are that many times larger."""
    run = SyntheticRun(layers=layers, steps=steps)

    def records() -> Iterator[StepRecord]:
        for record in run.records():
            factor = spikes.get(record.step, 1.0)
            blocks = tuple(
                replace(block, statistics=replace(block.statistics, l2=block.statistics.l2 * factor))
                if block.signal == "gradient"
                else block
                for block in record.blocks
            )
            yield replace(record, blocks=blocks)

    return run, records()


def write(path: Path, run: SyntheticRun, records: Iterator[StepRecord], budget: int, pins: tuple[int, ...] = ()) -> int:
    """Writes a run; returns the most bytes that its files took at any time."""
    sink = StoreWriter(path, run.sites, {}, max_bytes=budget)
    sink.open()
    for pin in pins:
        sink.pin(pin)
    largest = 0
    for record in records:
        sink(record)
        if record.step % 32 == 31:
            sink.flush()
            sink.tick()
            found = (file.stat().st_size for file in (path / "rank0000").rglob("*") if file.is_file())
            largest = max(largest, sum(found))
    sink.close()
    return max(largest, sum(file.stat().st_size for file in (path / "rank0000").rglob("*") if file.is_file()))


@pytest.mark.parametrize("budget", [150_000, 400_000])
def test_no_spike_is_lost(tmp_path: Path, budget: int) -> None:
    """After most rows were evicted the roll-ups span the run from step 0 without a hole, each spike in its window."""
    spikes = {5: 1e6, 777: 1e7, 1500: 1e8}
    run, records = spiked(6, 3000, spikes)
    assert write(tmp_path / "run", run, records, budget) <= budget
    got = load_recording(tmp_path / "run")
    begin = got.whole_from[0]
    assert begin > 1500
    buckets = got.buckets["gradient", 0]
    assert buckets.first[0] == 0
    assert buckets.last[-1] == begin - 1
    assert (buckets.first[1:] == buckets.last[:-1] + 1).all()
    for step, factor in spikes.items():
        at = int(np.searchsorted(buckets.last, step))
        assert (buckets.rms_max[at] > 1e-4 * factor).all()
        others = np.delete(buckets.rms_max[:, 0], [int(np.searchsorted(buckets.last, other)) for other in spikes])
        assert others.max() < 1
    assert got.panels["gradient", 0].steps.tolist() == list(range(begin, 3000))
    assert next(iter(got.records(0))).step == begin
    assert verify(tmp_path / "run").whole


def test_the_coarsest_level_spans_the_run_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over its share, windows of the coarsest level are merged in pairs, and still hold every step once."""
    monkeypatch.setitem(WIDTHS, "L4", 16)
    monkeypatch.setattr(rollups, "FILE_ROWS", 40)
    monkeypatch.setattr(opened, "HOT_ROWS", 400)
    run = SyntheticRun(layers=2, steps=4000)
    assert write(tmp_path / "run", run, run.records(), 200_000) <= 200_000
    attempt = tmp_path / "run" / "rank0000" / "a0001"
    files = [read_file(attempt, file) for file in data_files(attempt) if file.kind == "L4"]
    rows = join_buckets([part.buckets[0].load() for part in files])
    gradient = np.flatnonzero(rows["site"] == 0)
    assert max(part.buckets[0].width for part in files) > 16
    assert int(rows["samples"][gradient].sum()) == 4000
    assert load_recording(tmp_path / "run").buckets["gradient", 0].first[0] == 0
    assert verify(tmp_path / "run").whole


def test_a_file_that_was_merged_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after two files were merged and before the first went, a run shows each step once."""
    remove = files.remove
    monkeypatch.setattr(files, "remove", lambda path: remove(path) if "L4" not in path.name else None)
    monkeypatch.setitem(WIDTHS, "L4", 16)
    monkeypatch.setattr(rollups, "FILE_ROWS", 40)
    monkeypatch.setattr(opened, "HOT_ROWS", 400)
    run = SyntheticRun(layers=2, steps=2000)
    write(tmp_path / "run", run, run.records(), 100_000)
    (stored,) = read_attempts(tmp_path / "run")
    coarsest = [file.load() for file in stored.buckets if file.level == "L4"]
    assert len(coarsest) < len(list((tmp_path / "run" / "rank0000" / "a0001").glob("L4-*")))
    rows = join_buckets(coarsest)
    assert rows["samples"][rows["site"] == 0].sum() == 2000
    assert load_recording(tmp_path / "run").buckets["gradient", 0].first[0] == 0


def test_pins_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps around a finding's onset are kept in full when their file goes, with the values captured."""
    monkeypatch.setattr(opened, "HOT_ROWS", 2_000)
    run = SyntheticRun(layers=2, steps=5000)
    write(tmp_path / "run", run, run.records(), 700_000, pins=(700,))
    got = load_recording(tmp_path / "run")
    panel = got.panels["gradient", 0]
    pinned = panel.steps[panel.steps < got.whole_from[0]]
    assert pinned.tolist() == list(range(700 - 64, 700 + 65))
    again = SyntheticRun(layers=2, steps=800)
    wanted = next(record for record in again.records() if record.step == 700)
    block = next(block for block in wanted.blocks if block.signal == "gradient")
    np.testing.assert_array_equal(panel.l2[np.searchsorted(panel.steps, 700)], block.statistics.l2)


def test_what_was_found_live_is_found_after_eviction(tmp_path: Path) -> None:
    """Findings told while a run trained stand in its analysis when their steps are gone, closed or killed."""
    for closed in (True, False):
        path = tmp_path / f"run{closed}"
        run = SyntheticRun(layers=6, steps=1500, fault="exploding")
        sink = StoreWriter(path, run.sites, {}, max_bytes=200_000)
        told: list[Finding] = []
        stream = Stream(run.sites, on_finding=told.append)
        sink.open()
        for record in run.records():
            calm = SyntheticRun(layers=6, steps=1).record(0, Schedule().plan(record.step)).blocks
            taken = record if record.step < 400 else replace(record, blocks=calm)
            sink(taken)
            stream(taken)
            sink.tick()
        for finding in told:
            sink.event(finding_event(finding))
        stream.close()
        if closed:
            sink.event(analysis_event(stream.analysis()))
            sink.close()
        else:
            sink.flush()
        got = load(path)
        assert got.recording.whole_from[0] > 100
        assert told
        kinds = {(part.kind, part.layer) for finding in got.findings for part in (finding, *finding.symptoms)}
        assert {(finding.kind, finding.layer) for finding in told} <= kinds
        if closed:
            assert got.findings == list(stream.analysis().findings)
            assert got.verdict == stream.analysis().verdict


def test_time_and_bytes_stay_flat(tmp_path: Path) -> None:
    """Over a long feed a step costs no more time later than before, and the files stop growing at the budget."""
    budget = 1_000_000
    run = SyntheticRun(layers=2, steps=16_000)
    sink = StoreWriter(tmp_path / "run", run.sites, {}, max_bytes=budget)
    sink.open()
    marks = []
    began = time.process_time()
    for record in run.records():
        sink(record)
        sink.tick()
        if record.step % 4000 == 3999:
            marks.append(time.process_time() - began)
            began = time.process_time()
    sink.close()
    assert marks[-1] < 3 * marks[1]
    assert sum(file.stat().st_size for file in (tmp_path / "run" / "rank0000").rglob("*")) <= 1.02 * budget
