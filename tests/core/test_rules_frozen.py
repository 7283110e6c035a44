"""The rule on layers that the optimizer leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.chain import Chain


def moving(*frozen: int, size: float = 1e-4) -> list[float]:
    return [0.0 if i in frozen else size for i in range(8)]


def test_a_layer_that_the_optimizer_leaves_alone_is_named() -> None:
    """A layer with a gradient and without updates, among others that move, is a warning after ten samples."""
    chain = Chain()
    records = [chain.record(step, update=moving(3)) for step in range(10)]
    assert chain.analyze(records[:9]).findings == ()
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.layer, finding.first_step) == ("frozen", "warning", "fc3", 0)
    assert "label" in finding.advice[0]
    assert "fc3.weight" in finding.evidence[0]


def test_each_stretch_is_one_finding() -> None:
    """Neighbours belong together; layers apart from them are another finding."""
    chain = Chain()
    records = [chain.record(step, update=moving(2, 3, 6)) for step in range(12)]
    assert sorted(f.layers for f in chain.analyze(records).findings) == [("fc2", "fc3"), ("fc6",)]


@pytest.mark.parametrize("frozen", [(0, 1, 2), (1, 2, 3, 4, 6)])
def test_what_looks_like_a_choice_is_a_notice(frozen: tuple[int, ...]) -> None:
    """A backbone that is kept below a new head, and most of a network around adapters, are no warning."""
    chain = Chain()
    records = [chain.record(step, update=moving(*frozen)) for step in range(20)]
    assert {f.severity for f in chain.analyze(records).findings} == {"notice"}


@pytest.mark.parametrize("thawed", [5, 30])
def test_layers_that_move_later_are_not_frozen(thawed: int) -> None:
    """Thawing layers in the middle of training leaves no finding."""
    chain = Chain()
    records = [chain.record(step, update=moving(*([4] if step < thawed else []))) for step in range(40)]
    assert chain.analyze(records).findings == ()


def test_updates_lost_in_rounding_are_another_kind() -> None:
    """Where gradients are so small that no update of their size could show, the optimizer is not to blame."""
    chain = Chain()
    small = np.full(8, 1e-2)
    small[0] = 1e-7
    records = [chain.record(step, gradient=small, update=moving(0)) for step in range(20)]
    assert all(f.kind != "frozen" for f in chain.analyze(records).findings)


def test_no_step_without_any_update_counts() -> None:
    """Between the updates of an optimizer that accumulates no layer moves, which freezes none."""
    chain = Chain()
    records = [chain.record(step, update=1e-4 if step % 4 == 3 else 0.0) for step in range(60)]
    assert chain.analyze(records).findings == ()


def test_nothing_that_ever_moves_is_critical() -> None:
    """Updates of exactly 0 at more steps than anyone accumulates, while the rate would move the weights."""
    chain = Chain()
    records = [chain.record(step, update=0.0) for step in range(40)]
    assert all(finding.kind != "frozen" for finding in chain.analyze(records[:32]).findings)
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.layer, finding.first_step) == ("frozen", "critical", None, 0)


def test_nothing_moves_where_the_rate_is_too_low_to_show() -> None:
    """A step that rounding swallows is no sign of an optimizer that does not step."""
    chain = Chain()
    for rate in (1e-12, 0.0, None):
        records = [chain.record(step, update=0.0, rate=rate) for step in range(60)]
        assert all(finding.kind != "frozen" for finding in chain.analyze(records).findings)


def test_a_parameter_of_zeros_would_show_any_step() -> None:
    """Where the rate is not known, weights of exactly 0 with a gradient tell a standstill from rounding."""
    chain = Chain()
    weight = [0.1] * 7 + [0.0]
    records = [chain.record(step, update=0.0, rate=None, weight=weight) for step in range(40)]
    assert chain.analyze(records).findings[0].kind == "frozen"


def test_a_missing_layer_in_the_middle_is_a_warning() -> None:
    """A layer in no optimizer that stays as it is, unless its weights change by other means."""
    chain = Chain(statuses={3: "missing"})
    records = [chain.record(step, update=moving(3)) for step in range(20)]
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.layer) == ("frozen", "warning", "fc3")
    weights = [[0.1 + 1e-3 * step * (i == 3) for i in range(8)] for step in range(20)]
    records = [chain.record(step, update=moving(3), weight=weights[step]) for step in range(20)]
    assert chain.analyze(records).findings == ()


@pytest.mark.parametrize(
    ("frozen", "found"), [((3,), ["fc3"]), ((3, 4), ["fc3"]), ((0, 1), []), ((6, 7), []), ((7,), ["fc7"])]
)
def test_layers_in_the_middle_that_ask_for_no_gradient(frozen: tuple[int, ...], found: list[str]) -> None:
    """Between trained layers or at the head they are named; next to the input, or judging the output, they are not."""
    chain = Chain(statuses=dict.fromkeys(frozen, "frozen"))
    gradient = [0.0 if i in frozen else 1e-2 for i in range(8)]
    records = [chain.record(step, gradient=gradient, update=moving(*frozen)) for step in range(20)]
    assert [f.layer for f in chain.analyze(records).findings if f.severity == "warning"] == found
    passed = [0.0 if i in frozen else 1e-3 for i in range(8)]
    records = [chain.record(step, gradient=gradient, update=moving(*frozen), delta=passed) for step in range(20)]
    assert [f.kind for f in chain.analyze(records).findings if f.kind == "frozen"] == []
