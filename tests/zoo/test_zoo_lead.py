"""How long before the loss is lost an explosion is told."""

from __future__ import annotations

from tests.zoo.draw import Draw, generator
from tests.zoo.faults import FAULTS
from tests.zoo.lead import Lead, listen, summary

GROWS = "torch/mlp/growing-later/-/breast_cancer/5/48/gelu/layer/momentum/0.018/892898"


def test_an_explosion_is_told_before_the_loss_is_lost() -> None:
    """A weight that grows in the middle of training is told while the loss is still finite."""
    draw = Draw.parse(GROWS)
    planted = FAULTS[draw.fault].plant(draw.base, generator(draw))
    assert planted.onset is not None
    lead = listen(planted.sick, GROWS, planted.onset)
    assert lead.kind == "exploding"
    assert lead.told is not None
    assert lead.lost is not None
    assert planted.onset <= lead.told < lead.lost
    assert lead.in_time


def test_what_is_told_too_late_or_never_is_listed() -> None:
    """Beside the share stands each run that was not told in time, and the leads of those that were lost."""
    early = Lead("a", 5, 40, 24, "exploding", 0.5)
    late, never = Lead("b", 5, 20, 24, "exploding", -0.1), Lead("c", 5, None, None, "", None)
    assert [lead.in_time for lead in (early, late, never)] == [True, False, False]
    text = summary([early, late, never])
    assert "1/3 33 %" in text
    assert "'id': 'b'" in text
    assert "'id': 'c'" in text
    assert "'id': 'a'" not in text
