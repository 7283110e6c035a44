"""The rule on clipping that throttles training."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch.rules.layout import lay_out
from gradwatch.rules.normalised import Normalised
from gradwatch.rules.view import StepView
from tests.core.regression import Regression, kinds

TIGHT = 1e-3


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("told", [True, False])
def test_a_limit_far_below_the_gradient_is_named(momentum: float, told: bool) -> None:
    """Descent whose gradient is clipped a thousandfold is a warning for the whole run, also where no limit is told."""
    run = Regression(rate=0.05 * (1 - momentum), momentum=momentum, clip=TIGHT, told=told)
    (finding,) = run.analyze().findings
    assert (finding.kind, finding.severity, finding.layer, finding.first_step) == ("clipping", "warning", None, 0)
    assert "limit" in finding.advice[0]
    assert kinds(Regression(rate=0.05 * (1 - momentum), momentum=momentum, clip=5.0, told=told).analyze()) == []


@pytest.mark.parametrize("told", [True, False])
def test_under_adam_the_factor_cancels(told: bool) -> None:
    """Adam takes steps of the same size however small the clipped gradient is: no finding, not even a notice."""
    assert Regression(adam=True, rate=2e-3, clip=TIGHT, told=told).analyze().findings == ()


def test_a_rate_that_makes_up_for_it_is_a_notice() -> None:
    """Clipping at each step with a rate as much higher is a way of training: normalised gradient descent."""
    (finding,) = Regression(rate=20.0, clip=1e-3, steps=60).analyze().findings
    assert (finding.kind, finding.severity) == ("clipping", "notice")


@pytest.mark.parametrize("told", [True, False])
def test_a_small_rate_is_not_clipping(told: bool) -> None:
    """The same crawl without a limit is not blamed on one."""
    assert "clipping" not in kinds(Regression(rate=5e-5, told=told).analyze(), "notice")


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_length_of_a_step_is_found_from_the_sums(momentum: float) -> None:
    """Rate times limit over 1 - momentum: what a constant direction would add up to; None without clipping."""
    for clip, wanted in ((0.01, 0.05 * 0.01 / (1 - momentum)), (np.inf, None)):
        run = Regression(momentum=momentum, clip=clip, told=False)
        fit = Normalised()
        layout = lay_out(run.sites)
        for record in run.records():
            fit.observe(StepView(record, layout))
        assert fit.pace() == (None if wanted is None else pytest.approx(wanted, rel=0.02))
