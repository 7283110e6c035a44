"""The rule on dead units: what is silent for good, what only looks so, and what it explains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gradwatch.analyze import Fold
from gradwatch.findings import Finding
from gradwatch.record import StepRecord
from tests.core.chain import Chain
from tests.core.silent import with_silence

LAYERS = 6
CONFUSED = {"dead-units", "disconnected", "vanishing", "exploding", "saturated"}
"""Kinds that could be said of the same numbers; what else is said of them is not these tests' concern."""


def sampled(
    shares: Mapping[int, Mapping[int, float]], steps: int = 60, *, loss: float | None = 2.3, **options: Any
) -> tuple[Chain, list[StepRecord]]:
    """Returns records at the default cadence; ``shares`` holds the silent shares from each of its steps on."""
    chain, records = Chain(LAYERS), []
    for step in range(steps):
        active = step < 16 or (step % 4 == 0 if step < 64 else step % 64 == 0)
        record = chain.record(step, output=1.0 if active else None, delta=1e-3 if active else None, loss=loss)
        share = shares[max((at for at in shares if at <= step), default=min(shares))] if shares else {}
        records.append(with_silence(chain, record, share, **options))
    return chain, records


def judged(*arguments: Any, **options: Any) -> list[Finding]:
    chain, records = sampled(*arguments, **options)
    return about(chain, records)


def about(chain: Chain, records: list[StepRecord]) -> list[Finding]:
    return [finding for finding in chain.analyze(records).findings if finding.kind in CONFUSED]


def test_half_of_a_layer_is_a_warning() -> None:
    """Sixty percent of one layer silent from the start on is one warning about that layer, with its cause."""
    (finding,) = judged({0: {2: 0.6}})
    assert (finding.kind, finding.severity, finding.layer, finding.first_step) == ("dead-units", "warning", "fc2", 0)
    assert finding.layers == ("fc2",)
    assert finding.evidence[0].startswith("59% of the units of fc2")
    assert "start" in finding.cause


@pytest.mark.parametrize("onset", [17, 23, 40])
def test_a_layer_that_dies_explains_what_lies_below(onset: int) -> None:
    """A layer that dies as a whole is critical at its exact step, and the zero gradients below are its symptoms."""
    (finding,) = judged({0: {}, onset: {3: 1.0}})
    assert (finding.kind, finding.severity, finding.layer) == ("dead-units", "critical", "fc3")
    assert finding.first_step == onset
    assert finding.layers == ("fc3", "fc0", "fc1", "fc2")
    assert "come back" in finding.advice[-1]
    assert {symptom.kind for symptom in finding.symptoms} == {"vanishing"}


def test_a_layer_that_is_dead_from_the_start_is_not_disconnected() -> None:
    """Exact zeros from the first step on are its symptom, when the layer's own units are silent."""
    (finding,) = judged({0: {3: 1.0}}, loss=None)
    assert (finding.kind, finding.layer, finding.first_step, finding.confidence) == ("dead-units", "fc3", 0, "medium")
    assert [symptom.kind for symptom in finding.symptoms] == ["disconnected"]


def test_the_lowest_silent_layer_is_named_first() -> None:
    """Where several layers are silent, the lowest that is so as a whole comes before all others."""
    (finding,) = judged({0: {1: 0.7, 2: 1.0, 4: 1.0}})
    assert finding.layers[:3] == ("fc2", "fc0", "fc1")
    assert "fc4" in finding.layers


def test_an_update_that_was_too_large_is_named_as_the_cause() -> None:
    """A large update before the onset shows in the cause, and the learning rate leads the advice."""
    chain, records = sampled({0: {}, 30: {2: 0.8}})
    push = chain.record(29, update=0.05, output=None, delta=None, loss=2.3)
    records[29] = with_silence(chain, push, {})
    (finding,) = about(chain, records)
    assert finding.first_step == 32
    assert "update" in finding.cause
    assert "learning rate" in finding.advice[0]


@pytest.mark.parametrize("examples", [64, 4])
def test_sparse_codes_are_healthy(examples: int) -> None:
    """Units that answer one example in ten are not dead, however many of them a small batch leaves out."""
    missed = 0.9**examples
    found = judged({0: {2: missed}}, zeros={2: 0.9}, examples=examples)
    assert found == []


def test_zero_gradients_of_units_that_answer_are_not_dead() -> None:
    """Units without gradient behind which no zeros stand, as underflow or a mask has them, are not dead."""
    assert judged({0: {2: 0.8}}, zeros={2: 0.5}) == []


def test_units_that_top_k_leaves_out_are_not_dead() -> None:
    """Of units with values above 0, of which less arrives behind them than lies above 0, some are chosen."""
    chain, records = sampled({0: {2: 0.8}}, zeros={2: 0.9}, steps=40)
    for record in records:
        for block in record.blocks:
            if block.signal == "activation":
                block.statistics.sum[2] = 0.0
    assert about(chain, records) == []


def test_what_is_rounded_to_zero_is_cut() -> None:
    """Small values around 0 that become 0 behind the layer were rounded: the layer is disconnected."""
    chain = Chain(LAYERS)
    records = []
    for step in range(30):
        record = with_silence(chain, chain.record(step, output=0.1), {2: 1.0}, counted={2: float(step >= 7)})
        for block in record.blocks:
            if block.signal == "activation":
                block.statistics.sum[:] = 0.0
        records.append(record)
    assert [finding.kind for finding in about(chain, records)] == ["disconnected"]


def test_units_that_revive_are_forgiven() -> None:
    """A layer of which most units were silent for a while, and answer again, is no finding."""
    assert judged({0: {2: 0.7}, 24: {2: 0.1}}) == []


def test_units_that_answer_ever_more_rarely_are_not_taken_for_dead() -> None:
    """A share that comes up slowly needs counts over several batches, or more: one batch misses rare answers."""
    assert judged({step: {2: min(0.6, step / 60)} for step in range(60)}) == []
    assert [finding.layer for finding in judged({step: {2: min(0.9, step / 20)} for step in range(60)})] == ["fc2"]


def test_a_few_silent_samples_are_not_enough() -> None:
    """Two samples, or seven steps, do not tell that units are dead."""
    assert judged({0: {2: 0.7}, 7: {}}, steps=20) == []
    assert judged({0: {}, 52: {2: 0.7}}, steps=57) == []


@pytest.mark.parametrize(("counted", "kinds"), [(0.7, ["dead-units"]), (0.2, [])])
def test_counts_over_several_batches_decide(counted: float, kinds: list[str]) -> None:
    """Where an adapter counts units over 8 batches, these counts outweigh what single batches show."""
    chain, records = sampled({0: {2: 0.7}}, steps=40)
    counts = [
        with_silence(chain, record, {2: 0.7}, counted={2: counted if step >= 7 else 0.0})
        for step, record in enumerate(records)
    ]
    assert [finding.kind for finding in about(chain, counts)] == kinds


def test_growth_of_a_layer_that_dies_by_it_is_a_symptom() -> None:
    """Outputs that grow a hundredfold because the biases fell far below 0 are no explosion: nothing flows back."""
    chain, records = sampled({0: {}, 24: {2: 1.0}})
    far = [1.0, 1.0, 100.0, 1.0, 1.0, 1.0]
    grown = [with_silence(chain, chain.record(step, output=far, loss=4.0), {2: 1.0}) for step in range(24, 60, 4)]
    records = [*records[:24], *grown]
    assert [finding.kind for finding in about(chain, records)] == ["dead-units"]


def test_gradients_that_stop_between_samples_ask_for_activations() -> None:
    """Late in a run, gradients of units that stop raise the alarm, which captures what tells why."""
    chain, records = sampled({0: {}, 100: {2: 0.8}}, steps=105)
    fold = Fold(chain.sites)
    assert [record.step for record in records if fold.observe(record)] == [100]


def test_without_activations_it_does_not_apply() -> None:
    """A run that captured no activations says so."""
    chain = Chain(LAYERS)
    records = [chain.record(step, output=None, delta=None) for step in range(30)]
    assert "activation" in chain.analyze(records).not_applied["dead-units"]
