"""The rule on layers that no gradient reaches."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch.record import Site
from tests.core.chain import Chain


def test_cut_names_the_layer_next_to_it() -> None:
    """Gradients that are None up to a layer blame that layer and list those behind it."""
    chain = Chain()
    finding = chain.analyze([chain.record(step, absent=range(4)) for step in range(12)]).findings[0]
    assert (finding.kind, finding.severity, finding.first_step) == ("disconnected", "critical", 0)
    assert finding.layers == ("fc3", "fc2", "fc1", "fc0")


def test_five_steps_are_needed() -> None:
    """Four steps without a gradient are no finding, five are: zero-initialised branches start without one."""
    chain = Chain()
    records = [chain.record(step, absent=[0]) for step in range(5)]
    assert chain.analyze(records[:4]).findings == ()
    assert chain.analyze(records).findings[0].kind == "disconnected"


def test_exact_zeros_are_blocked() -> None:
    """Weights whose gradient is exactly 0 from the start are disconnected, too."""
    chain = Chain()
    sizes = [0.0, 0.0, 0.0, 1e-2, 1e-2, 1e-2, 1e-2, 1e-2]
    finding = chain.analyze([chain.record(step, gradient=sizes, delta=None) for step in range(8)]).findings[0]
    assert (finding.kind, finding.layer) == ("disconnected", "fc2")
    assert "exactly 0" in finding.evidence[0]


def test_underflow_to_zero_is_not_disconnected() -> None:
    """Exact zeros below a layer whose gradient is itself near underflow are a vanishing gradient."""
    chain = Chain()
    sizes = [0.0, 1e-37, 1e-31, 1e-25, 1e-19, 1e-13, 1e-7, 1e-1]
    updates = [size * 0.01 for size in sizes]
    records = [chain.record(step, gradient=sizes, delta=sizes, update=updates) for step in range(20)]
    assert [finding.kind for finding in chain.analyze(records).findings] == ["vanishing"]


def test_frozen_parameters_are_not_disconnected() -> None:
    """Parameters that require no gradient are left alone."""
    chain = Chain(statuses={0: "frozen", 1: "frozen"})
    records = [chain.record(step, absent=[0, 1]) for step in range(12)]
    assert chain.analyze(records).findings == ()


def test_parameters_outside_the_optimizer_are_a_notice() -> None:
    """What no optimizer would move anyway is worth a notice only."""
    chain = Chain(statuses={0: "missing"})
    finding = chain.analyze([chain.record(step, absent=[0]) for step in range(12)]).findings[0]
    assert (finding.kind, finding.severity) == ("disconnected", "notice")


def test_heads_trained_in_turn_are_healthy() -> None:
    """A gap is a fault only when it is longer than three times the longest one before."""
    chain = Chain()
    records = [chain.record(step, absent=[6] if (step // 10) % 2 else [7]) for step in range(60)]
    assert chain.analyze(records).at_least("warning") == ()


def test_unused_sibling_is_a_notice() -> None:
    """A layer that never ran is a notice when a sibling of the same shapes is used, else critical."""
    for names, severity in ((("a", "experts.0", "experts.1"), "notice"), (("a", "b", "head"), "critical")):
        chain = Chain(3, names=names)
        unused = [at for at in (chain.sites.find("activation", names[2]),) if at is not None]
        records = []
        for step in range(12):
            record = chain.record(step, absent=[2], inputs=None, delta=None)
            block = record.blocks[-1]
            assert block.signal == "activation"
            ran = ~(block.sites == unused[0])
            trimmed = type(block)(block.signal, block.sites[ran], block.statistics.take(ran), block.stage)
            records.append(type(record)(step, 0, blocks=(*record.blocks[:-1], trimmed), logged=record.logged))
        finding = chain.analyze(records).findings[0]
        assert (finding.kind, finding.severity, finding.layer) == ("disconnected", severity, names[2])


def test_a_frozen_unused_module_adds_nothing() -> None:
    """A module that is frozen and never used leaves the findings as they are."""
    chain = Chain()
    records = [chain.record(step, absent=range(2)) for step in range(12)]
    before = chain.analyze(records).findings
    chain.sites.add(Site("gradient", "spare.weight", "spare", shape=(3, 3), numel=9, status="frozen"))
    assert chain.analyze(records).findings == before


def test_an_input_of_zeros_is_not_a_cut() -> None:
    """A weight whose gradient is 0 beside a bias that has one gets its gradient; its input is 0."""
    chain = Chain()
    records = []
    for step in range(12):
        record = chain.record(step, gradient=[0.0, 0.0, 0.0, *[1e-2] * 5])
        block = record.blocks[0]
        bias = block.sites == chain.sites.find("gradient", "fc2.bias")
        values = block.statistics
        shown = type(values)(values.n, values.l2 + bias, values.sum, values.absmax + bias, values.nan, values.inf)
        blocks = (type(block)(block.signal, block.sites, shown, block.stage), *record.blocks[1:])
        records.append(type(record)(step, 0, blocks=blocks, logged=record.logged))
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.layers) == ("disconnected", ("fc1", "fc0"))


def barren(loss: float = 1.0, steps: int = 20, absent: range = range(0)) -> list[str]:
    """Returns what is told of a run in which every gradient is None or 0."""
    chain = Chain()
    records = [chain.record(t, gradient=0.0, update=0.0, delta=0.0, absent=absent, loss=loss) for t in range(steps)]
    return [finding.title for finding in chain.analyze(records).findings if finding.kind == "disconnected"]


def test_a_loss_that_depends_on_nothing_is_told() -> None:
    """When every gradient is exactly 0 or None from the first step on, one finding says that nothing learns."""
    assert barren() == barren(absent=range(8)) == ["No gradient reaches any layer, so nothing learns"]


def test_a_solved_task_and_a_slow_start_have_no_gradient() -> None:
    """A loss of 0 needs no gradient, and too few steps tell nothing."""
    assert barren(loss=0.0) == barren(steps=15) == []


def test_one_step_with_a_gradient_ends_it() -> None:
    """A run that had a gradient at any step does depend on its parameters."""
    chain = Chain()
    records = [chain.record(step, gradient=1e-2 if step == 3 else 0.0, update=0.0, delta=0.0) for step in range(30)]
    assert not any("No gradient reaches any layer" in finding.title for finding in chain.analyze(records).findings)


@pytest.mark.parametrize(("fed", "severity"), [("each its own", "warning"), ("all the same", "notice")])
def test_a_link_left_out_of_a_chain_is_a_warning(fed: str, severity: str) -> None:
    """Siblings that run at every step on inputs of one size, no two alike, are links; on the same input, experts."""
    names = tuple(f"blocks.{i}" for i in range(6))
    chain = Chain(6, names=names)
    sizes = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5] if fed == "each its own" else 1.0
    unused = {chain.sites.find("activation", "blocks.3"), chain.sites.find("activation", "blocks.3:input")}
    records = []
    for step in range(12):
        record = chain.record(step, absent=[3], inputs=sizes, delta=None)
        block = record.blocks[-1]
        ran = ~np.isin(block.sites, [at for at in unused if at is not None])
        trimmed = type(block)(block.signal, block.sites[ran], block.statistics.take(ran), block.stage)
        records.append(type(record)(step, 0, blocks=(*record.blocks[:-1], trimmed), logged=record.logged))
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.layer) == ("disconnected", severity, "blocks.3")
