"""The rule on vanishing gradients: key 1, key 2, and the traps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch.record import PARAMETER_SIGNALS, Block
from tests.core.chain import Chain

SLOPE = 10.0 ** (-0.7 * np.arange(11, -1, -1))
FLAT = np.ones(12)


def test_falling_profile_with_tiny_updates_is_found() -> None:
    """A gradient that falls 7.7 decades and updates that follow it are critical, from the layers next to the input."""
    chain = Chain(12, activation_class="Sigmoid")
    records = [
        chain.record(step, gradient=1e-2 * SLOPE, delta=1e-3 * SLOPE, update=1e-3 * SLOPE, loss=2.3)
        for step in range(40)
    ]
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.first_step) == ("vanishing", "critical", 0)
    assert finding.layers[:3] == ("fc0", "fc1", "fc2")
    assert "Sigmoid" in finding.advice[0]
    assert "initialisation" in finding.advice[0]
    assert "decades" in finding.evidence[0]


def test_zero_updates_by_rounding_are_evidence_of_vanishing() -> None:
    """Updates that round to exactly 0 in the first layers make no second root."""
    chain = Chain(12)
    updates = np.where(SLOPE < 1e-4, 0.0, 1e-3 * SLOPE)
    records = [
        chain.record(step, gradient=1e-2 * SLOPE, delta=1e-3 * SLOPE, update=updates, loss=2.3) for step in range(40)
    ]
    assert [finding.kind for finding in chain.analyze(records).findings] == ["vanishing"]


def test_weight_gradients_stand_in_where_most_layers_are_not_seen() -> None:
    """Of layers in a loop no activation gradient is captured: then their weights' gradients show the fall."""
    chain = Chain(12)
    shown = np.array([chain.sites.find("activation_gradient", name) for name in ("fc0", "fc11")])
    records = []
    for step in range(40):
        record = chain.record(step, gradient=1e-2 * SLOPE, delta=1e-3 * SLOPE, update=1e-3 * SLOPE, loss=2.3)
        blocks = []
        for block in record.blocks:
            kept = np.isin(block.sites, shown) | (block.signal != "activation_gradient")
            if step % 4 == 0 or block.signal in PARAMETER_SIGNALS:
                blocks.append(Block(block.signal, block.sites[kept], block.statistics.take(kept), block.stage))
        records.append(replace(record, blocks=tuple(blocks)))
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.layer) == ("vanishing", "critical", "fc0")
    assert "weight gradient" in finding.evidence[0]


def test_small_gradients_that_still_move_the_weights_are_a_notice() -> None:
    """With healthy update ratios (a rescaling optimizer) and a falling loss a drop of 4 decades is a notice."""
    chain = Chain(12)
    slope = SLOPE ** (4 / 7.7)
    records = [
        chain.record(step, gradient=1e-2 * slope, delta=1e-3 * slope, update=1e-4, loss=2.3 / (1 + step))
        for step in range(40)
    ]
    assert [(f.kind, f.severity) for f in chain.analyze(records).findings] == [("vanishing", "notice")]


@pytest.mark.parametrize(
    ("lost", "slower", "severity"), [(0.05, 0.0, "critical"), (0.05, 1e-3, "warning"), (0.2, 0.0, "warning")]
)
def test_a_loss_that_only_settles_is_flat(lost: float, slower: float, severity: str) -> None:
    """A twentieth that the output layer takes off the loss in the first steps is no learning; more, or later, is."""
    chain = Chain(12)
    for sign in (1, -1):
        offset = 0.0 if sign > 0 else -4.6
        losses = [offset + 2.3 * (1 + lost * max(0.0, 1 - step / 15)) - 2.3 * slower * step for step in range(80)]
        records = [
            chain.record(step, gradient=1e-2 * SLOPE, delta=1e-3 * SLOPE, update=1e-3 * SLOPE, loss=loss)
            for step, loss in enumerate(losses)
        ]
        finding = chain.analyze(records).findings[0]
        assert (finding.kind, finding.severity) == ("vanishing", severity)


@pytest.mark.parametrize("drop", [0.0, 1.0, 2.0])
def test_moderate_slopes_are_healthy(drop: float) -> None:
    """Up to two decades from the output to the input nothing is said."""
    chain = Chain(12)
    slope = 10.0 ** (-drop * np.arange(11, -1, -1) / 11)
    records = [chain.record(step, gradient=slope, delta=slope, update=1e-7 * slope, loss=None) for step in range(40)]
    assert all(finding.kind != "vanishing" for finding in chain.analyze(records).findings)


def test_convergence_is_not_vanishing() -> None:
    """Gradients that fall by ten decades in all layers alike are convergence."""
    chain = Chain(12)
    sizes = 10.0 ** (-10 * np.arange(200) / 200)
    records = [
        chain.record(step, gradient=1e-2 * size, delta=1e-3 * size, update=1e-4 * size, loss=size)
        for step, size in enumerate(sizes.tolist())
    ]
    assert chain.analyze(records).findings == ()


def test_a_single_steep_drop_names_the_layer() -> None:
    """When most of the fall happens at one place, the layer there is the culprit."""
    chain = Chain(12)
    profile = np.where(np.arange(12) < 5, 1e-7, 1.0)
    records = [
        chain.record(step, gradient=profile, delta=profile, update=1e-4 * profile, loss=2.3) for step in range(40)
    ]
    finding = chain.analyze(records).findings[0]
    assert finding.layer == "fc4"
    assert set(finding.layers) == {f"fc{i}" for i in range(5)}


def test_gradients_that_die_are_found() -> None:
    """Weight gradients that become exactly 0 while they were far from converged are critical, at the exact step."""
    chain = Chain(12)
    records = [chain.record(step, gradient=1e-2 if step < 20 else 0.0, delta=None) for step in range(40)]
    # One parameter must still have a gradient, as the last bias of a net of dead units has.
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.first_step) == ("vanishing", "critical", 20)


def test_weight_gradients_stand_in_for_activations() -> None:
    """Without activation gradients the profile of the weight gradients decides."""
    chain = Chain(12)
    records = [
        chain.record(step, gradient=1e-2 * SLOPE, update=1e-3 * SLOPE, output=None, delta=None, loss=2.3)
        for step in range(40)
    ]
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.layer) == ("vanishing", "fc0")
    assert "weight gradient" in finding.evidence[0]


def test_a_single_layer_does_not_apply() -> None:
    """With one weight matrix there is no depth to fall along, and that is said."""
    chain = Chain(1)
    analysis = chain.analyze([chain.record(step) for step in range(40)])
    assert "1 layer" in analysis.not_applied["vanishing"]


def test_short_chains_are_judged_by_a_drop_alone() -> None:
    """In three layers a drop of four decades counts, and a trend of two does not."""
    for drop, kinds in ((4.0, ["vanishing"]), (2.0, [])):
        chain = Chain(3)
        sizes = np.array([10.0**-drop, 1.0, 1.0])
        records = [
            chain.record(step, gradient=1e-2 * sizes, delta=1e-3 * sizes, update=1e-3 * sizes, loss=2.3)
            for step in range(40)
        ]
        assert [finding.kind for finding in chain.analyze(records).at_least("warning")] == kinds


def test_the_onset_is_that_of_the_gradients() -> None:
    """Where only the loss shows, 30 steps later, that nothing is learnt, the first step is still that of the fall."""
    chain = Chain(12)
    sizes = 10.0 ** (-0.3 * np.arange(11, -1, -1))
    records = [chain.record(step, delta=1e-3 * sizes, gradient=1e-2 * sizes, loss=2.3) for step in range(60)]
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.first_step) == ("vanishing", "critical", 0)


@pytest.mark.parametrize(("signals", "found"), [(1e-4, True), (1.0, False)])
def test_a_place_next_to_the_output_that_shrinks_both_ways_cuts_the_chain(signals: float, found: bool) -> None:
    """A loss of 4 decades before the last of 8 layers counts when signals lose them too; a detached head is another."""
    chain = Chain()
    deltas = np.where(np.arange(8) < 7, 1e-7, 1e-3)
    behind = np.where(np.arange(8) <= 6, 1e-7, 1e-3)
    records = []
    for step in range(40):
        inputs = np.where(np.arange(8) == 7, signals, 1.0)
        moved = np.where(np.arange(8) < 7, 1e-10, 1e-4)
        record = chain.record(step, gradient=deltas, update=moved, inputs=inputs, delta=None, loss=2.3)
        back = chain._activations("activation_gradient", deltas, behind, {})
        records.append(replace(record, blocks=(*record.blocks, back)))
    kinds = [finding.kind for finding in chain.analyze(records).at_least("warning")]
    assert ("vanishing" in kinds) is found
