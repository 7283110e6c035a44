"""The verdict sentence, the order of findings, and the merging of symptoms under their root."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradwatch.analyze import analyze
from gradwatch.causes import merge
from gradwatch.examples.synthetic import FAULTS, SyntheticRun
from gradwatch.findings import MOST_WORDS, Analysis, Finding, ranked, verdict
from gradwatch.record import SiteTable
from gradwatch.recording import Recording, from_records
from tests.core.chain import Chain

PLAIN = Finding("vanishing", "warning", "Early layers hardly learn", "a", ("a",), 5, 90, (), "", (), "")


def test_nothing_captured_cannot_be_judged() -> None:
    """A run without a step says that it cannot be judged, and no kind has passed."""
    analysis = analyze(Recording("run", SiteTable(), {}, {}))
    assert analysis.verdict == "Cannot judge: no step was captured."
    assert analysis.passed == ()
    assert set(analysis.not_applied.values()) == {"No step was captured."}


def test_three_steps_are_too_little() -> None:
    """Three steps without a fact are too little data, in those words."""
    chain = Chain()
    analysis = chain.analyze([chain.record(step) for step in range(3)])
    assert analysis.verdict == "Too little data to judge: 3 captured steps."
    assert not analysis.judged


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_three_steps_give_structural_findings_only(fault: str | None) -> None:
    """On a run of three steps only facts may be found, whatever is wrong."""
    run = SyntheticRun(layers=8, steps=3, fault=fault)
    analysis = analyze(from_records(run.records(), run.sites))
    assert {finding.kind for finding in analysis.findings} <= {"nonfinite", "disconnected", "frozen"}


def test_healthy_verdict_counts_layers_and_steps() -> None:
    """A healthy run is praised with what was judged."""
    chain = Chain(13)
    analysis = chain.analyze([chain.record(step) for step in range(400)])
    assert analysis.verdict == "Gradients look healthy in all 13 layers over 400 steps."


def test_checks_that_did_not_apply_are_admitted() -> None:
    """With checks that could not judge, the verdict does not sound as if all were well."""
    chain = Chain()
    records = [chain.record(step, update=None, weight=None) for step in range(40)]
    assert chain.analyze(records).verdict == (
        "Gradients look healthy in all 8 layers over 40 steps; 4 checks did not apply."
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_verdicts_are_short_and_say_since_when(fault: str) -> None:
    """The verdict of every fault has at most 18 words, ends as a sentence and dates its onset."""
    run = SyntheticRun(layers=12, steps=200, fault=fault)
    analysis = analyze(from_records(run.records(), run.sites))
    assert len(analysis.verdict.split()) <= MOST_WORDS
    assert analysis.verdict.endswith(".")
    assert "step" in analysis.verdict
    assert analysis.verdict == verdict(analysis)


def test_large_numbers_are_grouped() -> None:
    """A late onset is written as people read it."""
    late = replace(PLAIN, first_step=412000)
    assert verdict(Analysis((late,), steps=500)) == "Early layers hardly learn, since step 412,000."


def test_order_of_findings() -> None:
    """Severity first, then share of parameters, still active, earliest onset, confidence."""
    critical = replace(PLAIN, severity="critical", layers=("b",))
    wide = replace(PLAIN, layers=("a", "b"))
    ended = replace(PLAIN, last_step=40)
    early = replace(PLAIN, first_step=2)
    unsure = replace(PLAIN, confidence="medium")
    expected = [critical, wide, early, PLAIN, unsure, ended]
    assert ranked(expected[::-1], {"a": 10, "b": 5}, {"": 90}) == expected


def test_symptoms_go_under_their_root() -> None:
    """An overflow after an explosion is its symptom, which makes the root as severe as the worst."""
    root = replace(PLAIN, kind="exploding", layer="a", first_step=0)
    overflow = replace(PLAIN, kind="nonfinite", severity="critical", first_step=4)
    (merged,) = merge([overflow, root])
    assert (merged.kind, merged.severity) == ("exploding", "critical")
    assert [symptom.kind for symptom in merged.symptoms] == ["nonfinite"]


def test_causes_come_before_their_effects() -> None:
    """What began clearly later cannot explain what was there before, nor can another optimizer's fault."""
    overflow = replace(PLAIN, kind="nonfinite", severity="critical", first_step=4)
    assert len(merge([replace(PLAIN, kind="exploding", first_step=30), overflow])) == 2
    assert len(merge([replace(PLAIN, kind="exploding", first_step=0, optimizer="other"), overflow])) == 2


def test_local_roots_explain_their_own_layers_only() -> None:
    """An unused layer does not explain that the gradients of others vanish."""
    unused = replace(PLAIN, kind="disconnected", severity="critical", layers=("spare",), first_step=0)
    assert len(merge([unused, PLAIN])) == 2
    assert len(merge([replace(unused, layers=("a",)), PLAIN])) == 1


@pytest.mark.parametrize(("kind", "late"), [("dead-units", 0), ("saturated", 4)])
def test_growth_that_ends_at_a_nonlinearity_is_its_symptom(kind: str, late: int) -> None:
    """A layer whose growth kills or saturates its units at once did not explode; where that comes later, it did."""
    exploding = replace(PLAIN, kind="exploding", severity="warning", layer="a", layers=("a", "b"), first_step=30)
    for step, root in ((30 + late, kind), (31 + late, "exploding")):
        end = replace(PLAIN, kind=kind, severity="warning", layer="a", layers=("a",), first_step=step)
        assert [finding.kind for finding in merge([exploding, end])] == [root]


def test_silent_units_of_a_vanishing_signal_are_its_symptom() -> None:
    """Units that a vanishing signal no longer switches follow from it, unless they are what cuts it off."""
    vanishing = replace(PLAIN, kind="vanishing", severity="critical", layer="a", layers=("a", "b"), first_step=0)
    dead = replace(PLAIN, kind="dead-units", severity="warning", layer="d", layers=("d",), first_step=0)
    assert [finding.kind for finding in merge([dead, vanishing])] == ["vanishing"]
    whole = replace(dead, layers=("d", "a", "b"))
    assert [finding.kind for finding in merge([whole, vanishing])] == ["dead-units"]


def test_explosion_by_a_layer_is_the_root_of_large_updates() -> None:
    """A layer that explodes from the start explains large updates; growth without a culprit follows from them."""
    updates = replace(PLAIN, kind="update-too-large", first_step=1)
    explosion = replace(PLAIN, kind="exploding", first_step=0)
    assert merge([updates, explosion])[0].kind == "exploding"
    assert merge([updates, replace(explosion, layer=None)])[0].kind == "update-too-large"
    assert merge([updates, replace(explosion, first_step=8)])[0].kind == "update-too-large"
