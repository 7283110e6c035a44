"""The rule on single steps that jump."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch.findings import Finding
from gradwatch.rules.outlier import excess
from tests.core.chain import Chain
from tests.core.regression import Regression, once


def found(run: Regression) -> Finding:
    """Returns the one finding of a run, which is a spike."""
    (finding,) = run.analyze().findings
    assert finding.kind == "spike"
    return finding


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_batch_that_throws_the_weights_away_is_named(momentum: float) -> None:
    """One gradient 100 times the usual, applied in full, is a warning with its step; without it there is nothing."""
    rate = 0.05 * (1 - momentum)
    finding = found(Regression(rate=rate, momentum=momentum, change=once(40, 100.0)))
    assert (finding.severity, finding.first_step, finding.layer) == ("warning", 40, None)
    assert "step 40" in finding.evidence[0]
    assert "batch of step 40" in finding.advice[0]
    assert Regression(rate=rate, momentum=momentum).analyze().findings == ()


def test_adaptive_steps_stay_short_after_a_spike() -> None:
    """Adam bounds the step itself, but divides later ones by what the spike left in its mean square."""
    finding = found(Regression(adam=True, rate=2e-3, change=once(40, 200.0)))
    assert finding.severity == "warning"
    assert any("mean square" in sentence for sentence in finding.evidence)


def test_a_clipped_spike_is_a_notice() -> None:
    """A jump of the gradient that reaches neither the weights nor the loss leaves no mark."""
    records = [Chain().record(step, gradient=1.0 if step == 40 else 1e-2) for step in range(80)]
    (finding,) = Chain().analyze(records).findings
    assert (finding.kind, finding.severity, finding.first_step) == ("spike", "notice", 40)


def test_a_jump_of_the_learning_rate_is_the_cause() -> None:
    """An update that jumps while its gradient does not is traced to the rate of that step."""
    finding = found(Regression(rate=lambda step: 1.0 if step == 40 else 0.01))
    assert (finding.severity, finding.first_step) == ("warning", 40)
    assert "learning rate of step 40 is 100 times" in finding.cause


def test_a_long_step_that_the_loss_takes_well_is_a_notice() -> None:
    """Fifty usual steps at once, after which the loss is lower than before, did no harm."""
    assert found(Regression(rate=lambda step: 0.5 if step == 40 else 0.01)).severity == "notice"


def test_a_schedule_that_starts_again_is_no_spike() -> None:
    """A rate that returns from nearly nothing to its peak and stays makes no finding."""
    run = Regression(rate=lambda step: 0.05 * (0.5 + 0.5 * np.cos(np.pi * (step % 40) / 40)) ** 4, steps=120)
    assert run.analyze().findings == ()


def test_inputs_are_named_where_they_jumped() -> None:
    """The inputs of the first layer at that step, against those before, say where it came from."""
    chain = Chain()
    records = [
        chain.record(
            step,
            gradient=1.0 if step == 40 else 1e-2,
            update=1e-2 if step == 40 else 1e-4,
            inputs=50.0 if step == 40 else 1.0,
            output=1.0,
            loss=1.0 if step < 40 else 2.0,
        )
        for step in range(80)
    ]
    finding = next(f for f in chain.analyze(records).findings if f.kind == "spike")
    assert "inputs of the batch of step 40 are 50 times" in finding.cause
    assert any("loss is 2" in sentence for sentence in finding.evidence)


def test_what_does_not_come_back_is_no_spike() -> None:
    """Gradients that stay a hundred times larger are another kind's business."""
    records = [Chain().record(step, gradient=1.0 if step >= 40 else 1e-2, update=1e-4) for step in range(80)]
    assert all(finding.kind != "spike" for finding in Chain().analyze(records).findings)


def test_spikes_are_counted() -> None:
    """Several make one finding that names their steps."""
    steps = (40, 80, 120)
    finding = found(
        Regression(steps=160, change=lambda now, g: {k: v * (100 if now in steps else 1) for k, v in g.items()})
    )
    assert finding.first_step == 40
    assert "3 spikes, the others at step 80, 120" in finding.evidence[-1]


@pytest.mark.parametrize("seed", range(8))
def test_heavy_tails_are_a_habit(seed: int) -> None:
    """Gradients whose sizes vary by decades from step to step raise the limit and make no finding."""
    sizes = np.exp(1.5 * np.random.default_rng(seed).normal(size=400))
    run = Regression(rate=0.01, steps=400, change=lambda now, g: {k: sizes[now] * v for k, v in g.items()})
    assert all(finding.severity == "notice" for finding in run.analyze().findings if finding.kind == "spike")


def test_excess_counts_decades_in_deviations() -> None:
    """Against the definition: median, deviation and maximum of the logarithms."""
    before = [1.0, 10.0, 10.0, 100.0, 10.0]
    factor, deviations, top = excess(1e4, before)
    assert factor == pytest.approx(1e3)
    assert deviations == pytest.approx(3 / 0.05)
    assert top == pytest.approx(100)
    assert excess(0.0, before) == excess(1.0, []) == (0.0, 0.0, 0.0)


def test_a_rate_that_jumps_once_and_throws_the_gradient_is_a_spike() -> None:
    """The next update is larger still, because the gradient at the thrown weights is: that is no new pace."""
    records = [
        Chain().record(
            step,
            gradient={41: 0.5}.get(step, 1e-2),
            update={40: 2e-3, 41: 3e-3}.get(step, 1e-4),
            rate=0.2 if step == 40 else 0.01,
            loss=30.0 if step == 41 else 2.5 if step > 41 else 1.0,
        )
        for step in range(80)
    ]
    finding = next(f for f in Chain().analyze(records).findings if f.kind == "spike")
    assert (finding.severity, finding.first_step) == ("warning", 40)
    assert "learning rate of step 40 is 20 times" in finding.cause
