"""One code path: a stream of records and a recording of them give the same analysis."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.analyze import Stream, analyze
from gradwatch.examples.synthetic import FAULTS, SyntheticRun
from gradwatch.findings import Finding
from gradwatch.record import SiteTable, StepRecord
from gradwatch.recording import from_records
from tests.core.chain import Chain

NAN = float("nan")


def _synthetic(fault: str | None, steps: int = 120, seed: int = 0) -> tuple[list[StepRecord], SiteTable]:
    run = SyntheticRun(layers=8, steps=steps, seed=seed, fault=fault)
    return list(run.records()), run.sites


def _with_late_losses(records: list[StepRecord]) -> list[StepRecord]:
    """Takes each loss out of its record and hands it over afterwards, as a log call behind the step does."""
    split: list[StepRecord] = []
    for record in records:
        split.append(replace(record, logged={}))
        split.append(StepRecord(record.step, record.optimizer, record.time, logged=record.logged, late=True))
    return split


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_the_worst_finding(fault: str) -> None:
    """Every fault of the made-up run leads the findings under its own kind."""
    records, sites = _synthetic(fault)
    analysis = analyze(from_records(records, sites))
    assert analysis.findings[0].kind == fault


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_run_has_no_finding(seed: int) -> None:
    """The made-up run without a fault is silent and says over what."""
    records, sites = _synthetic(None, seed=seed)
    analysis = analyze(from_records(records, sites))
    assert analysis.findings == ()
    assert analysis.verdict == "Gradients look healthy in all 8 layers over 120 steps."


@settings(max_examples=25)
@given(
    fault=st.sampled_from([None, *FAULTS]),
    steps=st.integers(0, 90),
    late=st.booleans(),
    pauses=st.lists(st.integers(1, 64), max_size=4),
)
def test_stream_equals_recording(fault: str | None, steps: int, late: bool, pauses: list[int]) -> None:
    """At any moment, asked in between or not, the stream says what a recording of the same records would say."""
    records, sites = _synthetic(fault, steps)
    records = _with_late_losses(records) if late else records
    stream = Stream(sites)
    done = 0
    for pause in pauses:
        for record in records[done : done + pause]:
            stream(record)
        done = min(done + pause, len(records))
        assert stream.analysis() == analyze(from_records(records[:done], sites))
    for record in records[done:]:
        stream(record)
    stream.close()
    assert stream.analysis() == analyze(from_records(records, sites))


def test_optimizers_are_judged_apart() -> None:
    """With two optimizers each has its own steps, and a finding carries the key of its optimizer."""
    chain = Chain()
    chain.sites.optimizers[:] = ["generator", "critic"]
    records = []
    for step in range(30):
        records.append(chain.record(step))
        records.append(replace(chain.record(step, update=0.5), optimizer=1))
    analysis = chain.analyze(records)
    assert [(finding.kind, finding.optimizer) for finding in analysis.findings] == [("update-too-large", "critic")]
    assert analysis.steps == 30
    stream = Stream(chain.sites)
    for record in records:
        stream(record)
    assert stream.analysis() == analysis


def test_each_finding_is_told_once() -> None:
    """The callback hears of a finding when it appears, once, and an alarm comes at its step."""
    chain = Chain()
    told: list[Finding] = []
    alarms: list[int] = []
    stream = Stream(chain.sites, on_finding=told.append, on_alarm=alarms.append)
    for step in range(12):
        stream(chain.record(step))
    stream(chain.record(12, bad={"activation": range(3, 8), "gradient": range(8)}, loss=NAN))
    assert told == []
    stream(chain.record(13, bad={"gradient": range(8)}, loss=NAN))
    assert [(finding.kind, finding.layer) for finding in told] == [("nonfinite", "fc3")]
    assert alarms == [12]
    for step in range(14, 100):
        stream(chain.record(step, bad={"gradient": range(8)}, loss=NAN))
    stream.close()
    assert len(told) == 1


def test_late_loss_belongs_to_its_step() -> None:
    """A loss that turns bad after the step was handed over dates the finding to that step."""
    chain = Chain()
    stream = Stream(chain.sites)
    for step in range(11):
        stream(chain.record(step, loss=None))
        stream(StepRecord(step, logged={"loss": NAN if step == 10 else 1.0}, late=True))
    finding = stream.analysis().findings[0]
    assert (finding.kind, finding.first_step, finding.layer) == ("nonfinite", 10, None)


def test_asking_from_other_threads_changes_nothing() -> None:
    """Threads that ask all the time leave the outcome of the stream as it is."""
    records, sites = _synthetic("exploding")
    stream, stop, asked = Stream(sites), threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            asked.append(stream.analysis().steps)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for record in records:
        stream(record)
    stream.close()
    stop.set()
    for thread in threads:
        thread.join()
    assert asked == sorted(asked) or len(threads) > 1
    assert stream.analysis() == analyze(from_records(records, sites))


def test_sites_may_come_late() -> None:
    """A table that grows, and whose order comes after the first records, gives the findings of a complete one."""
    whole = Chain()
    records = [whole.record(step, absent=range(3)) for step in range(12)]
    growing = SiteTable()
    stream = Stream(growing)
    sites = list(whole.sites)
    parameters = [site for site in sites if site.parameter is not None]
    for site in parameters:
        growing.add(site)
    for record in records[:4]:
        blocks = tuple(block for block in record.blocks if block.signal in ("gradient", "update", "weight"))
        stream(replace(record, blocks=blocks))
    for site in sites[len(parameters) :]:
        growing.add(site)
    growing.set_order(whole.names)
    for record in records[4:]:
        stream(record)
    finding = stream.analysis().findings[0]
    assert (finding.kind, finding.layers, finding.first_step) == ("disconnected", ("fc2", "fc1", "fc0"), 0)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("fault", [None, "vanishing", "disconnected", "nonfinite", "update-too-large"])
def test_scaling_the_loss_leaves_findings(fault: str | None, scale: float) -> None:
    """Gradients and a loss multiplied by a constant change no kind, severity, culprit or onset."""
    records, sites = _synthetic(fault)

    def scaled(record: StepRecord) -> StepRecord:
        blocks = tuple(
            replace(
                block,
                statistics=replace(
                    block.statistics,
                    l2=block.statistics.l2 * scale,
                    sum=block.statistics.sum * scale,
                    absmax=block.statistics.absmax * scale,
                ),
            )
            if block.signal in ("gradient", "activation_gradient")
            else block
            for block in record.blocks
        )
        return replace(record, blocks=blocks, logged={key: value * scale for key, value in record.logged.items()})

    def outline(given: list[StepRecord]) -> list[tuple[object, ...]]:
        found = analyze(from_records(given, sites)).findings
        return [(finding.kind, finding.severity, finding.layers, finding.first_step) for finding in found]

    assert outline([scaled(record) for record in records]) == outline(records)


@pytest.mark.parametrize("fault", FAULTS)
def test_without_a_loss_kinds_and_culprits_stay(fault: str) -> None:
    """Leaving out the loss keeps kinds and culprits; a statistical finding then says that no loss was logged."""
    records, sites = _synthetic(fault)
    silent = [replace(record, logged={}) for record in records]
    with_loss, without = analyze(from_records(records, sites)), analyze(from_records(silent, sites))
    assert [(f.kind, f.layer) for f in without.findings] == [(f.kind, f.layer) for f in with_loss.findings]
    for finding in without.findings:
        if finding.kind not in ("nonfinite", "disconnected"):
            assert finding.confidence != "high"
            assert "no loss was logged" in finding.confidence_reason


def test_permuted_names_permute_culprits_only() -> None:
    """Renaming the layers renames the culprits and changes nothing else."""
    plain, renamed = Chain(), Chain(names=tuple(f"part{(3 * i) % 8}" for i in range(8)))
    first = plain.analyze([plain.record(step, absent=range(3)) for step in range(12)]).findings[0]
    second = renamed.analyze([renamed.record(step, absent=range(3)) for step in range(12)]).findings[0]
    names = dict(zip(plain.names, renamed.names, strict=True))
    assert second.layers == tuple(names[layer] for layer in first.layers)
    assert (second.kind, second.severity, second.first_step) == (first.kind, first.severity, first.first_step)
