"""The rule on non-finite numbers: the exact step, and the module that made the first of them."""

from __future__ import annotations

import numpy as np

from gradwatch.analyze import analyze
from gradwatch.record import Block, Site, SiteTable, StepRecord
from gradwatch.recording import from_records
from tests.core.chain import WIDTH, Chain, statistics

NAN = float("nan")


def test_first_module_with_a_bad_output_is_named() -> None:
    """Of all layers whose output is not finite, the first in forward order is the culprit, at the exact step."""
    chain = Chain()
    bad = {"activation": range(3, 8), "activation:input": range(4, 8), "gradient": range(8)}
    records = [chain.record(step) for step in range(12)] + [chain.record(12, bad=bad, loss=NAN)]
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.layer, finding.first_step) == ("nonfinite", "critical", "fc3", 12)
    assert "its input is finite" in finding.evidence[0]


def test_operation_between_two_layers_names_the_one_before() -> None:
    """A layer whose input is bad while the layer before put out finite numbers is not the culprit."""
    chain = Chain()
    bad = {"activation": range(3, 8), "activation:input": range(3, 8), "gradient": range(8)}
    finding = chain.analyze([chain.record(0), chain.record(1, bad=bad, loss=NAN)]).findings[0]
    assert finding.layer == "fc2"


def test_bad_data_is_told_from_a_bad_layer() -> None:
    """With a bad input of the very first layer the cause is the data."""
    chain = Chain()
    bad = {"activation": range(8), "activation:input": range(8), "gradient": range(8)}
    finding = chain.analyze([chain.record(0), chain.record(1, bad=bad, loss=NAN)]).findings[0]
    assert "data" in finding.cause


def test_loss_itself_has_no_layer() -> None:
    """With finite outputs everywhere and a bad loss, no layer is blamed and the cause names the last output."""
    chain = Chain()
    bad = {"activation_gradient": range(8), "gradient": range(8)}
    finding = chain.analyze([chain.record(0), chain.record(1, bad=bad, loss=float("inf"))]).findings[0]
    assert finding.layer is None
    assert finding.cause == "The loss became inf from finite outputs of fc7."


def test_backward_origin_is_bracketed_by_gradients() -> None:
    """Without activations at the step, the layer between bad and finite gradients is named, at medium confidence."""
    chain = Chain()
    bad = {"gradient": range(4)}
    records = [chain.record(step) for step in range(3)] + [chain.record(3, bad=bad, output=None, delta=None)]
    finding = chain.analyze(records).findings[0]
    assert (finding.layer, finding.confidence) == ("fc3", "medium")
    assert finding.first_step == 3


def test_layers_of_unknown_class_are_not_suspected() -> None:
    """Where no class is known, the topmost layer with a bad gradient is named, not the one above it."""
    sites = SiteTable(
        Site("gradient", f"fc{i}.weight", f"fc{i}", shape=(WIDTH, WIDTH), numel=WIDTH**2) for i in range(3)
    )
    ids, numel = np.arange(3, dtype=np.uint32), np.full(3, WIDTH**2, dtype=np.int64)
    records = [
        StepRecord(step, blocks=(Block("gradient", ids, statistics(np.ones(3), numel, np.array(bad))),))
        for step, bad in enumerate(([False] * 3, [True, False, False]))
    ]
    finding = analyze(from_records(records, sites)).findings[0]
    assert (finding.kind, finding.layer, finding.first_step) == ("nonfinite", "fc0", 1)


def test_masks_of_infinity_are_no_finding() -> None:
    """Non-finite activations without any consequence (a mask) say nothing."""
    chain = Chain()
    records = [chain.record(step, bad={"activation": [4]}) for step in range(20)]
    assert chain.analyze(records).findings == ()


def test_scaler_search_is_no_finding() -> None:
    """Twenty skipped steps in a row are a search for the loss scale; twenty-one are a fault."""
    chain = Chain()
    skipped = [chain.record(step, bad={"gradient": range(8)}, update=None, skipped=True) for step in range(21)]
    settled = [chain.record(step) for step in range(20, 40)]
    assert chain.analyze([*skipped[:20], *settled]).findings == ()
    finding = chain.analyze(skipped).findings[0]
    assert (finding.kind, finding.severity, finding.first_step) == ("nonfinite", "critical", 0)


def test_recovery_softens_the_severity() -> None:
    """A single bad step after which training goes on for twenty steps is a warning."""
    chain = Chain()
    records = [chain.record(step, bad={"gradient": [2]} if step == 5 else {}) for step in range(26)]
    assert chain.analyze(records).findings[0].severity == "warning"
    assert chain.analyze(records[:20]).findings[0].severity == "critical"
