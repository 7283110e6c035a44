"""The rules on the size of updates, with their schedules and recoveries."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.chain import Chain

NAN = float("nan")


@pytest.mark.parametrize(("ratio", "severity"), [(0.05, None), (0.5, "warning"), (2.0, "critical")])
def test_typical_ratio_decides(ratio: float, severity: str | None) -> None:
    """Updates of 5 % of the weights are tolerated, of 50 % a warning, of twice the weights critical."""
    chain = Chain()
    records = [chain.record(step, update=0.1 * ratio if step > 5 else 1e-4, loss=1.0) for step in range(40)]
    findings = chain.analyze(records).findings
    assert [(f.kind, f.severity) for f in findings] == ([("update-too-large", severity)] if severity else [])


def test_one_update_beyond_the_weights_at_the_start_is_critical() -> None:
    """A ratio above 1 in the first five steps is critical at once, before any window is full."""
    chain = Chain()
    records = [chain.record(step, update=0.5 if step == 2 else 1e-4) for step in range(6)]
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.first_step) == ("update-too-large", "critical", 2)
    assert "learning rate is 0.01" in finding.evidence[0]


def test_weights_that_start_at_zero_are_not_rewritten() -> None:
    """The ratio of a zero-initialised matrix is taken over the usual initial size."""
    chain = Chain()
    records = [chain.record(step, weight=1e-4 * (step + 1), update=1e-4) for step in range(40)]
    assert chain.analyze(records).findings == ()


def test_recovered_start_is_a_notice() -> None:
    """Too large updates in the first steps only, followed by a loss that halves, are a notice."""
    chain = Chain()
    records = [chain.record(step, update=0.5 if step < 2 else 1e-4, loss=10.0 / (1 + step)) for step in range(60)]
    assert [f.severity for f in chain.analyze(records).findings] == ["notice"]


def test_updates_below_rounding_are_too_small() -> None:
    """Twenty dense samples below 1e-7 of the weights are a warning; nineteen are not."""
    chain = Chain()
    records = [chain.record(step, update=1e-10) for step in range(20)]
    assert chain.analyze(records[:19]).findings == ()
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.severity, finding.layer, finding.first_step) == (
        "update-too-small",
        "warning",
        None,
        0,
    )


def test_one_layer_that_moves_is_enough() -> None:
    """As long as one matrix moves, small updates elsewhere are another kind's business."""
    chain = Chain()
    sizes = np.full(8, 1e-10)
    sizes[7] = 1e-4
    records = [chain.record(step, update=sizes) for step in range(40)]
    assert all(finding.kind != "update-too-small" for finding in chain.analyze(records).findings)


def test_converged_runs_need_no_updates() -> None:
    """Small updates under a gradient a hundredth of its start are convergence."""
    chain = Chain()
    sizes = 10.0 ** (-8 * np.arange(200) / 200)
    records = [
        chain.record(step, gradient=size, update=1e-4 * size, delta=size, loss=size)
        for step, size in enumerate(sizes.tolist())
    ]
    assert chain.analyze(records).findings == ()


def test_schedule_that_ends_too_early_is_the_cause() -> None:
    """A learning rate that went to 0 while the gradient had not converged is named as the cause."""
    chain = Chain()
    records = [chain.record(step, rate=0.01) for step in range(30)]
    records += [chain.record(step, rate=0.0, update=0.0) for step in range(30, 60)]
    finding = chain.analyze(records).findings[0]
    assert (finding.kind, finding.first_step) == ("update-too-small", 31)
    assert "schedule" in finding.cause


def test_warm_up_and_decay_are_expected() -> None:
    """A learning rate on its way up from 0 or down to it makes small updates by design."""
    chain = Chain()
    rates = np.concatenate([np.geomspace(1e-9, 1e-2, 40), np.geomspace(1e-2, 1e-9, 40)])
    records = [chain.record(step, rate=rate, update=1e-2 * rate) for step, rate in enumerate(rates.tolist())]
    assert chain.analyze(records).findings == ()


def test_after_the_run_is_lost_nothing_more_is_judged() -> None:
    """Updates of weights that are not finite are not called too small."""
    chain = Chain()
    records = [chain.record(step) for step in range(10)]
    lost = {signal: range(8) for signal in ("gradient", "update", "weight", "activation")}
    records += [chain.record(step, update=0.0, bad=lost, loss=NAN) for step in range(10, 60)]
    assert [finding.kind for finding in chain.analyze(records).findings] == ["nonfinite"]


@pytest.mark.parametrize("every", [2, 4, 32])
def test_accumulation_over_micro_batches_is_no_standstill(every: int) -> None:
    """Updates on every k-th step alone are healthy, also where the sparse samples always meet the steps between."""
    chain = Chain()
    records = [
        chain.record(
            step,
            update=1e-4 if step % every == every - 1 else 0.0,
            weight=0.1 + 1e-5 * ((step + 1) // every),
        )
        for step in range(400)
        if step < 64 or step % 32 == 0
    ]
    assert chain.analyze(records).findings == ()


def test_updates_that_stop_for_good_are_too_small() -> None:
    """Where no weight changes between sparse samples either, exact zeros are a standstill and not an accumulation."""
    chain = Chain()
    records = [chain.record(step, update=0.0, rate=None) for step in range(65) if step != 64]
    assert chain.analyze(records).findings == ()
    records += [chain.record(step, update=0.0, rate=None) for step in range(64, 200, 32)]
    assert [f.kind for f in chain.analyze(records).findings] == ["update-too-small"]


def test_accumulation_hides_no_update_that_is_too_large() -> None:
    """The median is taken over the steps that move something."""
    chain = Chain()
    records = [
        chain.record(step, update=0.05 if step % 4 == 3 and step > 20 else 1e-4 if step % 4 == 3 else 0.0)
        for step in range(64)
    ]
    assert [(f.kind, f.severity) for f in chain.analyze(records).findings] == [("update-too-large", "warning")]


def test_a_run_that_died_has_not_recovered() -> None:
    """Without a loss: after updates that were too large nothing moves any more, which is no recovery."""
    chain = Chain()
    records = [chain.record(step, update=0.5 if step < 2 else 0.0, loss=None, rate=None) for step in range(60)]
    assert "update-too-large" in {f.kind for f in chain.analyze(records).findings if f.severity != "notice"}


@pytest.mark.parametrize(("after", "kinds"), [(3.0, ["update-too-large"]), (1.0, [])])
def test_one_late_update_beyond_the_weights_counts_while_the_loss_stays_up(after: float, kinds: list[str]) -> None:
    """Weights that one step rewrote hide later ratios; what tells is whether the loss came back."""
    chain = Chain()
    records = [
        chain.record(
            step,
            update=0.5 if step == 30 else 5e-3,
            weight=0.5 if step >= 30 else 0.1,
            loss=after if step > 30 else 1.0,
        )
        for step in range(60)
    ]
    found = [f for f in chain.analyze(records).at_least("warning") if f.kind == "update-too-large"]
    assert [(f.kind, f.first_step) for f in found] == [(kind, 30) for kind in kinds]


def test_a_mild_start_that_learns_is_a_notice() -> None:
    """Ratios below one half that die away over the first steps, as Adagrad's do, while the loss falls to a tenth."""
    chain = Chain()
    records = [
        chain.record(step, update=0.045 / np.sqrt(step + 1), loss=10.0 / (1 + step), weight=0.1) for step in range(60)
    ]
    assert [(f.kind, f.severity) for f in chain.analyze(records).findings] == [("update-too-large", "notice")]


def test_a_stop_after_updates_at_every_step_is_no_accumulation() -> None:
    """Exact zeros count after 20 samples when the run began with an update at each step, though no rate is known."""
    chain = Chain()
    records = [chain.record(step, update=1e-4 if step < 10 else 0.0, rate=None) for step in range(40)]
    (finding,) = chain.analyze(records).findings
    assert (finding.kind, finding.first_step) == ("update-too-small", 10)
