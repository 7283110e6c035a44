"""Attempts of one rank, ranks of one launch, strangers in the same directory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.record import Block, Site, SiteTable, StepRecord
from gradwatch.recording import load_recording, per_rank
from gradwatch.statistics import NULL, Statistics, measure, merge
from gradwatch.store import StoreWriter, manifest, process


def block(values: Sequence[npt.NDArray[np.float64]], stage: str, *, full: bool = True) -> Block:
    parts = [measure(value, full=full) for value in values]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("n", "l2", "sum", "absmax")}
    columns |= {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("nan", "inf")}
    if full:
        names = ("zeros", "subnormal", "histogram")
        columns |= {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Block("gradient", np.arange(len(values), dtype=np.uint32), Statistics(**columns), stage)


def table(*names: str) -> SiteTable:
    return SiteTable([Site("gradient", name, name) for name in names])


def level(step: int, value: float) -> StepRecord:
    return StepRecord(step, blocks=(block([np.full(3, value)], "unscaled"),), logged={"loss": value})


def write(path: Path, records: Sequence[StepRecord], sites: SiteTable, **options: object) -> StoreWriter:
    writer = StoreWriter(path, sites, {}, **options)  # type: ignore[arg-type]
    writer.open()
    for record in records:
        writer(record)
    assert writer.flush()
    return writer


def kill(path: Path, rank: int = 0, attempt: int = 1) -> None:
    """Makes an attempt one of a process that is no more."""
    meta = path / f"rank{rank:04d}" / f"a{attempt:04d}" / "meta.json"
    meta.write_bytes(manifest.encode({**manifest.read(meta), "process_started": "another time"}))


def test_the_later_attempt_wins(tmp_path: Path) -> None:
    """A resumed run is one series: the later attempt replaces the earlier one from its first step on."""
    path = tmp_path / "run"
    write(path, [level(step, 1.0) for step in range(10)], table("a")).close()
    write(path, [level(step, 2.0) for step in range(6, 14)], table("a")).close()
    got = load_recording(path)
    panel = got.panels["gradient", 0]
    assert panel.steps.tolist() == list(range(14))
    assert panel.absmax[:, 0].tolist() == [1.0] * 6 + [2.0] * 8
    assert got.step_tables[0].logged["loss"].tolist() == [1.0] * 6 + [2.0] * 8
    assert got.quality == ("rank 0 attempt 1: 4 rows from step 6 on were replaced by a later attempt.",)
    assert got.facts["attempts"] == 2


def test_a_rewind_beyond_the_start_replaces_all(tmp_path: Path) -> None:
    """An attempt that begins at step 0 again replaces the whole earlier one, also where it is shorter."""
    path = tmp_path / "run"
    write(path, [level(step, 1.0) for step in range(10)], table("a")).close()
    write(path, [level(step, 2.0) for step in range(3)], table("a")).close()
    assert load_recording(path).panels["gradient", 0].absmax[:, 0].tolist() == [2.0] * 3


def test_an_attempt_without_a_step_cuts_nothing(tmp_path: Path) -> None:
    """An attempt that ended before its first step leaves the earlier ones as they are."""
    path = tmp_path / "run"
    write(path, [level(step, 1.0) for step in range(4)], table("a")).close()
    write(path, [], table("a")).close()
    assert load_recording(path).steps().tolist() == [0, 1, 2, 3]


def test_site_ids_may_differ_between_attempts(tmp_path: Path) -> None:
    """Sites of different attempts are matched by signal and name, whatever their ids."""
    path = tmp_path / "run"
    write(path, [StepRecord(0, blocks=(block([np.ones(1), np.full(1, 2.0)], "unscaled"),))], table("a", "b")).close()
    write(path, [StepRecord(1, blocks=(block([np.full(1, 3.0), np.ones(1)], "unscaled"),))], table("b", "c")).close()
    got = load_recording(path)
    names = [got.sites[site].name for site in got.panels["gradient", 0].sites.tolist()]
    values = {name: got.panels["gradient", 0].absmax[:, i].tolist() for i, name in enumerate(names)}
    np.testing.assert_equal(values, {"a": [1.0, np.nan], "b": [2.0, 3.0], "c": [np.nan, 1.0]})


def test_the_last_of_a_step_given_twice_wins(tmp_path: Path) -> None:
    """The same step twice within one attempt counts once, as last given, and the repetition is said."""
    path = tmp_path / "run"
    write(path, [level(0, 1.0), level(1, 1.0), level(1, 5.0)], table("a")).close()
    got = load_recording(path)
    assert got.panels["gradient", 0].absmax[:, 0].tolist() == [1.0, 5.0]
    assert any("given again" in note for note in got.quality)


def test_a_dead_attempt_is_followed_in_place(tmp_path: Path) -> None:
    """After a killed process the same rank goes on in the same run, in a new attempt."""
    path = tmp_path / "run"
    first = write(path, [level(step, 1.0) for step in range(4)], table("a"))
    kill(path)
    second = write(path, [level(step, 2.0) for step in range(4, 6)], table("a"))
    assert second.run_dir == path
    got = load_recording(path)
    assert got.open
    assert got.steps().tolist() == list(range(6))
    assert any("was not closed" in note for note in got.quality)
    second.close()
    del first


def test_a_living_attempt_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same rank again while its attempt lives gets a new run, with one line that says so."""
    path = tmp_path / "run"
    first = write(path, [level(0, 1.0)], table("a"))
    with caplog.at_level(logging.WARNING, "gradwatch"):
        second = write(path, [level(0, 2.0)], table("a"))
        assert len(caplog.records) == 1
        assert f"{path} is being written already; this run goes to {path}-2" in caplog.text
    third = write(path, [level(0, 3.0)], table("a"))
    assert [second.run_dir.name, third.run_dir.name] == ["run-2", "run-3"]
    for writer, value in ((first, 1.0), (second, 2.0), (third, 3.0)):
        writer.close()
        assert load_recording(writer.run_dir).panels["gradient", 0].absmax.tolist() == [[value]]


def test_another_launch_is_a_stranger(tmp_path: Path) -> None:
    """Ranks of one launch share a run; a rank of another launch that meets them living gets a new one."""
    path = tmp_path / "run"
    ours = [write(path, [level(0, 1.0)], table("a"), rank=rank, world_size=2, launch_id="L1") for rank in (0, 1)]
    theirs = [write(path, [level(0, 2.0)], table("a"), rank=rank, world_size=2, launch_id="L2") for rank in (0, 1)]
    assert {writer.run_dir.name for writer in ours} == {"run"}
    assert {writer.run_dir.name for writer in theirs} == {"run-2"}
    ours[0].close()
    again = write(path, [], table("a"), rank=0, world_size=2, launch_id="L2", restart=1)
    assert again.run_dir.name == "run-3", "rank 0 of L2 lives in run-2, and L1 still lives in run"
    for writer in (*ours, *theirs, again):
        writer.close()


def test_a_process_on_another_host_lives_while_it_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt of another host counts as living until its manifest was not touched for a while."""
    path = tmp_path / "run"
    first = write(path, [level(0, 1.0)], table("a"))
    meta = path / "rank0000" / "a0001" / "meta.json"
    meta.write_bytes(manifest.encode({**manifest.read(meta), "host": "elsewhere"}))
    assert load_recording(path).open
    monkeypatch.setattr(process, "SILENT_SECONDS", -1.0)
    assert not load_recording(path).open
    first.close()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(5)


def test_shards_add(tmp_path: Path, random: np.random.Generator) -> None:
    """Shards of a gradient on three ranks, one of them empty, merge to the statistics of the whole gradient."""
    path = tmp_path / "run"
    whole = [random.normal(size=(4, 30)) for _ in range(5)]
    parts = [(0, 13), (13, 13), (13, 30)]
    writers = []
    for rank, (start, end) in enumerate(parts):
        records = [StepRecord(t, blocks=(block(list(w[:, start:end]), "shard"),)) for t, w in enumerate(whole)]
        writers.append(write(path, records, table("a", "b", "c", "d"), rank=rank, world_size=3, launch_id="L"))
    for writer in writers:
        writer.close()
    panel = load_recording(path).panels["gradient", 0]
    for t, gradients in enumerate(whole):
        for s, gradient in enumerate(gradients):
            wanted = measure(gradient)
            for name in ("n", "nan", "inf", "zeros", "subnormal", "absmax"):
                assert getattr(panel, name)[t, s] == getattr(wanted, name)[0]
            assert panel.l2[t, s] == pytest.approx(wanted.l2[0], rel=1e-12)
            assert panel.sum[t, s] == pytest.approx(wanted.sum[0], abs=1e-12)
            assert wanted.histogram is not None
            assert panel.histogram[t, s].tolist() == wanted.histogram[0].tolist()
    assert sorted(per_rank(path)) == [0, 1, 2]
    assert per_rank(path)[2].panels["gradient", 0].n.tolist() == [[17] * 4] * 5


def test_a_lean_shard_makes_counts_unknown(tmp_path: Path, random: np.random.Generator) -> None:
    """Where one rank's shard has no histogram, the merged zeros and histogram are null, as in statistics.merge."""
    path = tmp_path / "run"
    halves = [random.normal(size=8), random.normal(size=8)]
    for rank, half in enumerate(halves):
        record = StepRecord(0, blocks=(block([half], "shard", full=rank == 0),))
        write(path, [record], table("a"), rank=rank, world_size=2, launch_id="L").close()
    panel = load_recording(path).panels["gradient", 0]
    wanted = merge(measure(halves[0]), measure(halves[1], full=False))
    assert panel.n.tolist() == [[16]]
    assert panel.l2[0, 0] == pytest.approx(wanted.l2[0])
    assert panel.zeros.tolist() == [[NULL]]
    assert not panel.histogram.any()


def test_reduced_rows_are_taken_once(tmp_path: Path, random: np.random.Generator) -> None:
    """Reduced rows that agree are taken from one rank without a note; what rank 0 lacks comes from the other."""
    path = tmp_path / "run"
    gradients = [random.normal(size=6) for _ in range(4)]
    for rank in (0, 1):
        records = [
            StepRecord(t, blocks=(block([g * (1 + 1e-6 * rank)], "reduced"),))
            for t, g in enumerate(gradients)
            if (rank, t) != (0, 2)
        ]
        write(path, records, table("a"), rank=rank, world_size=2, launch_id="L").close()
    got = load_recording(path)
    assert got.panels["gradient", 0].l2[:, 0] == pytest.approx([np.linalg.norm(g) for g in gradients], rel=1e-5)
    assert got.quality == ()


@pytest.mark.parametrize("wrong", [np.ones(3) * 1.01, np.array([1.0, np.nan, 1.0]), np.full(3, np.nan)])
def test_ranks_that_disagree_are_said(tmp_path: Path, wrong: npt.NDArray[np.float64]) -> None:
    """Reduced gradients that differ between ranks are a note with the first step and the parameter."""
    path = tmp_path / "run"
    for rank in (0, 1):
        values = [np.ones(3), wrong if rank else np.ones(3)]
        records = [StepRecord(t, blocks=(block([value], "reduced"),)) for t, value in enumerate(values)]
        write(path, records, table("fc.weight"), rank=rank, world_size=2, launch_id="L").close()
    notes = load_recording(path).quality
    assert len(notes) == 1
    assert "differ between rank 0 and rank 1 in 1 rows" in notes[0]
    assert "step 1 in fc.weight" in notes[0]


def test_local_rows_stay_with_their_rank(tmp_path: Path) -> None:
    """Local rows of other ranks are in per_rank and not in the merged run."""
    path = tmp_path / "run"
    for rank in (0, 1):
        records = [StepRecord(t, blocks=(block([np.full(2, 1.0 + rank)], "local"),)) for t in range(3)]
        write(path, records, table("a"), rank=rank, world_size=2, launch_id="L").close()
    assert load_recording(path).panels["gradient", 0].absmax[:, 0].tolist() == [1.0] * 3
    assert load_recording(path, rank=1).panels["gradient", 0].absmax[:, 0].tolist() == [2.0] * 3


def test_missing_and_short_ranks_are_said(tmp_path: Path) -> None:
    """A rank without files and one that ended early are notes, and the others are analysed."""
    path = tmp_path / "run"
    for rank, steps in ((0, 6), (2, 3)):
        records = [StepRecord(t, blocks=(block([np.ones(2)], "reduced"),)) for t in range(steps)]
        write(path, records, table("a"), rank=rank, world_size=3, launch_id="L").close()
    got = load_recording(path)
    assert got.steps().tolist() == list(range(6))
    assert got.quality == (
        "rank 1 of 3 left no files; the others are analysed.",
        "rank 2 ended at step 2; the run at 5.",
    )


def test_a_restarted_launch_cuts_every_rank(tmp_path: Path) -> None:
    """Where a restart begins, rows of the former launch are cut on all ranks, also on one that did not come back."""
    path = tmp_path / "run"

    def ranks(steps: range, value: float, restart: int, present: Sequence[int]) -> Iterator[StoreWriter]:
        for rank in present:
            records = [StepRecord(t, blocks=(block([np.full(2, value)], "shard"),)) for t in steps]
            options = {"rank": rank, "world_size": 2, "launch_id": "L", "restart": restart}
            yield write(path, records, table("a"), **options)

    for writer in ranks(range(10), 1.0, 0, (0, 1)):
        writer.close()
    for writer in ranks(range(4, 8), 2.0, 1, (0,)):
        writer.close()
    panel = load_recording(path).panels["gradient", 0]
    assert panel.steps.tolist() == list(range(8))
    assert panel.n[:, 0].tolist() == [4] * 4 + [2] * 4
    assert panel.absmax[:, 0].tolist() == [1.0] * 4 + [2.0] * 4


def test_several_optimizers_are_matched_by_name(tmp_path: Path) -> None:
    """Optimizers of attempts are matched by their keys, whatever their order."""
    path = tmp_path / "run"
    run = SyntheticRun(layers=1, steps=2)
    records = list(run.records())
    first, second = SiteTable(run.sites, ["g", "d"]), SiteTable(run.sites, ["d", "g"])
    write(path, [replace(records[0], optimizer=0)], first).close()
    write(path, [replace(records[1], optimizer=1)], second).close()
    got = load_recording(path)
    assert got.sites.optimizers == ["d", "g"]
    assert got.panels["gradient", 1].steps.tolist() == [0, 1]
    assert ("gradient", 0) not in got.panels


def test_a_later_attempt_cuts_by_the_name_of_its_optimizer(tmp_path: Path) -> None:
    """Where a later attempt begins is known per optimizer by name, also when its first rows were evicted."""
    path = tmp_path / "run"
    run = SyntheticRun(layers=1, steps=9)
    records = list(run.records())
    write(path, [replace(record, optimizer=0) for record in records], SiteTable(run.sites, ["g", "d"])).close()
    later = [replace(record, optimizer=i) for record in records[5:] for i in (0, 1)]
    write(path, later, SiteTable(run.sites, ["d", "g"])).close()
    second = path / "rank0000" / "a0002"
    meta = manifest.read(second / "meta.json")
    meta["first_steps"] = {"0": 5, "1": 3}
    (second / "meta.json").write_bytes(manifest.encode(meta))
    got = load_recording(path)
    assert got.sites.optimizers == ["d", "g"]
    assert got.panels["gradient", 0].steps.tolist() == [5, 6, 7, 8]
    assert got.panels["gradient", 1].steps.tolist() == [0, 1, 2, 5, 6, 7, 8]


def test_living_ranks_are_read_to_the_same_step(tmp_path: Path) -> None:
    """While ranks are written, steps that only some have flushed are not merged yet: a part is not the whole."""
    path = tmp_path / "run"
    writers = []
    for rank, steps in ((0, 7), (1, 5)):
        records = [StepRecord(t, blocks=(block([np.ones(3)], "shard"),)) for t in range(steps)]
        writers.append(write(path, records, table("a"), rank=rank, world_size=2, launch_id="L"))
    panel = load_recording(path).panels["gradient", 0]
    assert panel.steps.tolist() == list(range(5))
    assert panel.n[:, 0].tolist() == [6] * 5
    for writer in writers:
        writer.close()
