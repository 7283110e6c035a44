"""The rule on explosions: a layer that stands out, growth, and what it leads to."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch.record import StepRecord
from tests.core.chain import Chain

NAN = float("nan")


def _scaled(chain: Chain, culprit: int, *, growth: float, steps: int, lost: bool) -> list[StepRecord]:
    """Returns steps of a chain in which one layer multiplies what passes it by 30."""
    inside = np.arange(chain.layers)
    outputs = np.where(inside >= culprit, 30.0, 1.0)
    inputs = np.where(inside > culprit, 30.0, 1.0)
    deltas = np.where(inside < culprit, 30.0, 1.0)
    own = np.where(inside == culprit, 1.0, 30.0)
    records = []
    for step in range(steps):
        size = growth**step
        moved = 1e-4 * own * size
        record = chain.record(
            step, gradient=own * size, update=moved, output=outputs, inputs=inputs, delta=None, loss=20 * size
        )
        behind = np.where(inside <= culprit, 30.0, 1.0)
        back = chain._activations("activation_gradient", deltas * size, behind * size, {})
        records.append(StepRecord(step, 0, blocks=(*record.blocks, back), facts=record.facts, logged=record.logged))
    if lost:
        bad = {"gradient": range(chain.layers), "activation": range(culprit, chain.layers)}
        records.append(chain.record(steps, bad=bad, loss=NAN))
    return records


def test_scaled_layer_is_the_root_of_the_overflow() -> None:
    """A layer with a gain of 30 whose run overflows is critical, and the overflow is its symptom."""
    for culprit in range(1, 7):
        chain = Chain()
        findings = chain.analyze(_scaled(chain, culprit, growth=30.0, steps=4, lost=True)).findings
        assert [(f.kind, f.severity, f.layer) for f in findings] == [("exploding", "critical", f"fc{culprit}")]
        assert "nonfinite" in {symptom.kind for symptom in findings[0].symptoms}


def test_a_large_gain_alone_is_harmless() -> None:
    """The same gain without growth or large updates says nothing."""
    chain = Chain()
    analysis = chain.analyze(_scaled(chain, 3, growth=1.0, steps=40, lost=False))
    assert analysis.at_least("warning") == ()


def test_growth_without_a_culprit_is_still_an_explosion() -> None:
    """A norm that grows a hundredfold into an overflow is critical without blaming a layer."""
    chain = Chain()
    records = [chain.record(step, gradient=4.0**step, update=1e-4, loss=4.0**step) for step in range(6)]
    records.append(chain.record(6, bad={"gradient": range(8)}, loss=NAN, output=None, delta=None))
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.layer) == ("exploding", "critical", None)


def test_overflow_out_of_the_blue_is_no_explosion() -> None:
    """Without growth before it, a non-finite step is only that."""
    chain = Chain()
    records = [chain.record(step) for step in range(12)]
    records.append(chain.record(12, bad={"activation": range(3, 8), "gradient": range(8)}, loss=NAN))
    assert [finding.kind for finding in chain.analyze(records).findings] == ["nonfinite"]


def test_loss_that_stays_high_counts() -> None:
    """With a gradient a thousand times its median and a loss far above its start for 30 steps, training is broken."""
    chain = Chain()
    calm = [chain.record(step) for step in range(40)]
    wild = [chain.record(step, gradient=1e2 * 2.0 ** (step - 40), loss=50.0) for step in range(40, 80)]
    assert [finding.kind for finding in chain.analyze([*calm, *wild]).at_least("critical")] == ["exploding"]


def test_growth_long_before_large_updates_is_the_root() -> None:
    """When the norm grew before any update was too large, the explosion is the root and the updates its symptom."""
    chain = Chain()
    sizes = [1e-2] * 40 + [1e-2 * 2.0**k for k in range(30)]
    records = [chain.record(step, gradient=size, update=1e-2 * size) for step, size in enumerate(sizes)]
    records.append(chain.record(70, bad={"gradient": range(8)}, loss=NAN))
    (finding,) = chain.analyze(records).findings
    assert finding.kind == "exploding"
    assert {symptom.kind for symptom in finding.symptoms} == {"update-too-large", "nonfinite"}


def _through(chain: Chain, growth: float, step: int, *, update: float) -> StepRecord:
    """Returns a step at which each layer passes on ``growth`` times what it receives, both ways."""
    size = growth ** np.arange(chain.layers + 1)
    deltas = size[::-1] * 1e-3
    record = chain.record(step, update=update, output=size[1:], inputs=size[:-1], delta=None)
    back = chain._activations("activation_gradient", deltas[1:], deltas[:-1], {})
    return StepRecord(step, 0, blocks=(*record.blocks, back), facts=record.facts, logged=record.logged)


def test_growth_through_the_whole_chain_is_found() -> None:
    """Layers that each double signals and gradients explode from the start; with a gain of 1.1 they do not."""
    for growth, kinds in ((2.0, ["exploding"]), (1.1, ["update-too-large"])):
        chain = Chain()
        records = [_through(chain, growth, step, update=0.05) for step in range(20)]
        findings = chain.analyze(records).at_least("warning")
        assert [finding.kind for finding in findings] == kinds


def test_growth_without_consequence_is_none() -> None:
    """The same growth with ordinary updates and a loss that falls says nothing."""
    chain = Chain()
    records = [_through(chain, 2.0, step, update=1e-4) for step in range(40)]
    assert chain.analyze(records).at_least("warning") == ()


def _grown(chain: Chain, since: int, step: int, **changes: object) -> StepRecord:
    """Returns a step of a run in which fc3 multiplies by 40 from a step on."""
    inside = np.arange(chain.layers)
    excess = 40.0 if step >= since else 1.0
    above, below = np.where(inside >= 3, excess, 1.0), np.where(inside <= 3, excess, 1.0)
    outputs, inputs = above, np.where(inside > 3, excess, 1.0)
    gradient = 1e-2 * np.where(inside == 3, 1.0, excess)
    record = chain.record(
        step,
        output=outputs,
        inputs=inputs,
        delta=None,
        **{"gradient": gradient, **changes},  # type: ignore[arg-type]
    )
    back = chain._activations("activation_gradient", np.where(inside < 3, excess, 1.0), below, {})
    return StepRecord(step, 0, blocks=(*record.blocks, back), facts=record.facts, logged=record.logged)


def test_a_layer_whose_gain_grows_is_blamed_since_then() -> None:
    """A layer that comes to multiply by 40 in the middle of training, and stays so, is named with that step."""
    chain = Chain()
    finding = chain.analyze([_grown(chain, 25, step) for step in range(50)]).findings[0]
    assert (finding.kind, finding.layer, finding.first_step) == ("exploding", "fc3", 25)


def test_a_gain_that_large_updates_made_is_no_origin() -> None:
    """When updates were too large before the layer's gain grew, they are the root."""
    chain = Chain()
    records = [
        _grown(chain, 25, step, gradient=1e-2, update=0.05 if step >= 20 else 1e-4, loss=5.0 if step >= 20 else 1.0)
        for step in range(60)
    ]
    findings = chain.analyze(records).at_least("warning")
    assert [finding.kind for finding in findings] == ["update-too-large"]


def _fed(chain: Chain, step: int, *, factor: float, **changes: object) -> StepRecord:
    """Returns a step at which what lies before fc4 multiplies signals and their gradients by a factor."""
    inside = np.arange(chain.layers)
    inputs, deltas = np.where(inside >= 4, factor, 1.0), np.where(inside < 4, factor, 1.0)
    outputs, behind = inputs, np.where(inside < 4, factor, 1.0)
    record = chain.record(step, output=outputs, inputs=inputs, delta=None, **changes)  # type: ignore[arg-type]
    back = chain._activations("activation_gradient", deltas, behind, {})
    return StepRecord(step, 0, blocks=(*record.blocks, back), facts=record.facts, logged=record.logged)


@pytest.mark.parametrize(("since", "factor"), [(0, 40.0), (24, 40.0)])
def test_an_operation_between_two_layers_is_blamed(since: int, factor: float) -> None:
    """No layer's own gain is large, but what feeds one of them multiplies both ways, from the start or from a step."""
    chain = Chain()
    findings = chain.analyze(
        [
            _fed(
                chain,
                step,
                factor=factor if step >= since else 1.0,
                gradient=factor if step >= since else 1.0,
                update=0.05 if step >= since else 1e-4,
                loss=30.0 if step >= since else 1.0,
            )
            for step in range(60)
        ]
    ).at_least("warning")
    assert [(f.kind, f.layer, f.first_step) for f in findings] == [("exploding", "fc4", since)]
    assert "What feeds fc4" in findings[0].title


def test_outputs_that_training_brings_down_are_harm_under_adaptive_steps() -> None:
    """Growth through the chain with ordinary updates is told when the outputs started at hundreds and shrink since."""
    for outputs, kinds in ((256.0, ["exploding"]), (2.0, [])):
        chain = Chain()
        records = []
        for step in range(40):
            growth = 2.0 - 0.02 * step
            size = growth ** np.arange(chain.layers + 1) * outputs / 2**chain.layers
            deltas = size[::-1] * 1e-3
            record = chain.record(step, update=1e-3, output=size[1:], inputs=size[:-1], delta=None)
            back = chain._activations("activation_gradient", deltas[1:], deltas[:-1], {})
            records.append(StepRecord(step, 0, blocks=(*record.blocks, back), logged=record.logged))
        findings = chain.analyze(records).at_least("warning")
        assert [finding.kind for finding in findings] == kinds
    # The growth is the same in both; only the first makes outputs that have to be undone.
