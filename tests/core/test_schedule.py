"""What is captured on which step."""

from __future__ import annotations

import pytest

from gradwatch.errors import GradwatchError
from gradwatch.record import SIGNALS
from gradwatch.schedule import Schedule


def steps_with(schedule: Schedule, signal: str, n: int) -> list[int]:
    return [step for step in range(n) if signal in schedule.plan(step).signals]


def test_the_default_schedule() -> None:
    """Gradients every step; updates and weights to 63, then every 32nd; activations thin out in three phases."""
    schedule = Schedule()
    activation = [*range(16), *range(16, 64, 4), 64, 128, 192, 256]
    assert steps_with(schedule, "gradient", 300) == list(range(300))
    assert steps_with(schedule, "update", 300) == [*range(64), *range(64, 300, 32)]
    assert steps_with(schedule, "weight", 300) == [*range(64), *range(64, 300, 32)]
    assert steps_with(schedule, "activation", 300) == activation
    assert steps_with(schedule, "activation_gradient", 300) == activation
    assert [s for s in range(300) if schedule.plan(s).histogram] == [*range(16), *range(16, 300, 8)]


def test_the_share_of_sampled_steps_matches_the_rules_windows() -> None:
    """The dense start has the numbers of samples that the rules count on."""
    schedule = Schedule()
    assert len(steps_with(schedule, "activation", 64)) == 28
    assert sum(schedule.plan(s).histogram for s in range(64)) == 22


@pytest.mark.parametrize("every", [1, 3, 10])
def test_every_k_captures_all_signals_on_each_kth_step_and_nothing_else(every: int) -> None:
    """With every=k there are full steps and empty ones."""
    schedule = Schedule(every=every)
    for step in range(50):
        plan = schedule.plan(step)
        assert bool(plan) == (step % every == 0)
        assert plan.signals == (frozenset(SIGNALS) if step % every == 0 else frozenset())


def test_chosen_signals_only() -> None:
    """Signals that were not chosen are never captured, whatever the step."""
    schedule = Schedule(signals=["weight"])
    assert {signal for step in range(100) for signal in schedule.plan(step).signals} == {"weight"}
    assert not schedule.plan(0).gradient
    assert not schedule.plan(0).histogram


def test_an_alarm_brings_all_signals_for_16_steps_at_most_once_in_256() -> None:
    """A second alarm within the period changes nothing."""
    schedule = Schedule()
    schedule.alarm(99)
    assert [s for s in range(100, 130) if len(schedule.plan(s).signals) == 5] == [*range(100, 116), 128]
    schedule.alarm(200)
    assert len(schedule.plan(201).signals) == 1
    schedule.alarm(360)
    assert len(schedule.plan(361).signals) == 5


def test_alarms_can_be_off() -> None:
    """With several processes an alarm of one must not make its steps differ from the others'."""
    schedule = Schedule(alarms=False)
    schedule.alarm(99)
    assert len(schedule.plan(100).signals) == 1


def test_overflow_halves_the_sampled_signals_and_leaves_gradients() -> None:
    """After one halving activations come half as often, gradients as before."""
    schedule = Schedule()
    schedule.halve()
    assert steps_with(schedule, "activation", 400)[-3:] == [128, 256, 384]
    assert len(steps_with(schedule, "gradient", 400)) == 400


def test_lean_is_gradients_without_histograms() -> None:
    """Ranks other than 0 capture what merging needs."""
    schedule = Schedule(lean=True)
    for step in range(70):
        plan = schedule.plan(step)
        assert plan.signals == {"gradient"}
        assert not plan.histogram


def test_a_budget_leaves_steps_out_until_it_holds() -> None:
    """With capture at a tenth of each step and a budget of 1 %, about one step in ten is captured."""
    schedule = Schedule(budget=0.01)
    captured = 0
    for step in range(1000):
        plan = schedule.plan(step)
        captured += bool(plan)
        schedule.charge(0.1 if plan else 0.0, 1.0)
    assert captured == pytest.approx(100, abs=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every=0 must be a number of steps"),
        ({"every": 2.5}, "every=2.5 must be"),
        ({"signals": ["gradients"]}, "['gradients'] are unknown; choose some of gradient"),
        ({"signals": []}, "signals is empty"),
        ({"budget": 2.0}, "budget=2.0 must be a share"),
    ],
)
def test_wrong_options_are_named_with_their_value(options: dict[str, object], words: str) -> None:
    """The sentence says the option, its value and what would be right."""
    with pytest.raises(GradwatchError) as raised:
        Schedule(**options)  # type: ignore[arg-type]
    assert words in str(raised.value)
