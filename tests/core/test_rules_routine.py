"""What the rules need not see: five of eight lean records of a settled run, and never one that tells something new."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from gradwatch.analyze import Fold
from gradwatch.findings import Finding
from gradwatch.record import StepRecord
from gradwatch.rules import routine
from gradwatch.rules.view import StepView
from tests.core.chain import Chain

STEPS = 600


def _lean(chain: Chain, step: int, **changes: object) -> StepRecord:
    """Returns a record as most steps of the default schedule give it; every 8th has a histogram's cadence."""
    sampled = step < 64 or step % 32 == 0
    off = {} if sampled else {"update": None, "weight": None}
    return chain.record(step, **{"output": None, "delta": None, "loss": 0.5, **changes, **off})  # type: ignore[arg-type]


def _seen(fold: Fold, records: Iterator[StepRecord]) -> list[int]:
    """Feeds records; returns the steps that the rules saw."""
    steps: list[int] = []
    observe = fold.rules[0].observe

    def spy(view: StepView) -> None:
        steps.append(view.step)
        observe(view)

    fold.rules[0].observe = spy  # type: ignore[method-assign]
    for record in records:
        fold.observe(record)
    return steps


@contextmanager
def _everything_seen() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routine, "FROM", 10**9)
        yield


def _findings(chain: Chain, records: list[StepRecord]) -> list[Finding]:
    fold = Fold(chain.sites)
    for record in records:
        fold.observe(record)
    return [replace(finding, evidence=(), confidence="", confidence_reason="") for finding in fold.findings()]


def test_a_settled_run_is_seen_in_part() -> None:
    """From step 128 on the rules see 3 of 8 records of a run in which nothing happens, two of them in a row."""
    chain = Chain()
    fold = Fold(chain.sites)
    steps = _seen(fold, (_lean(chain, step) for step in range(STEPS)))
    assert steps == [step for step in range(STEPS) if step < 128 or step % 8 in (0, 1, 4)]
    assert fold.history.captured == STEPS
    assert fold.history.samples["gradient"] == STEPS
    assert fold.history.loss.count == fold.history.norm.count == STEPS
    assert fold.history.last_step == STEPS - 1


@pytest.mark.parametrize(
    "change",
    [
        {"gradient": 0.1},
        {"loss": 5.0},
        {"loss": float("nan")},
        {"bad": {"gradient": [2]}},
        {"absent": [1]},
        {"gradient": [0.0, *[1e-2] * 7]},
        {"gradient": None},
        {"skipped": True},
        {"output": 1.0},
    ],
    ids=str,
)
def test_what_is_new_is_seen_at_its_step(change: dict[str, object]) -> None:
    """A jump, a loss, a gap, a skipped step or another signal reaches the rules at the very step at which it comes."""
    chain = Chain()
    fold = Fold(chain.sites)
    records = (_lean(chain, step, **(change if step == 334 else {})) for step in range(STEPS))
    assert 334 in _seen(fold, records)


@pytest.mark.parametrize("start", [100, 301, 302, 303])
@pytest.mark.parametrize(
    "change",
    [
        {"gradient": [1e-2 * 10.0 ** (i - 7) for i in range(8)], "update": [1e-4 * 10.0 ** (i - 7) for i in range(8)]},
        {"gradient": 5.0, "update": 5.0, "loss": 50.0},
        {"bad": {"gradient": [2]}},
        {"absent": [1]},
        {"gradient": [*[0.0] * 7, 1e-2]},
    ],
    ids=str,
)
def test_findings_are_those_of_all_records(change: dict[str, object], start: int) -> None:
    """What is found is what is found when every record is seen, and its onset is at most 3 steps later."""
    chain = Chain()
    records = [_lean(chain, step, **(change if step >= start else {})) for step in range(STEPS)]
    found = _findings(chain, records)
    with _everything_seen():
        wanted = _findings(chain, records)
    assert wanted
    assert [(f.kind, f.layers, f.severity) for f in found] == [(f.kind, f.layers, f.severity) for f in wanted]
    for finding, other in zip(found, wanted, strict=True):
        if other.first_step is not None:
            assert finding.first_step is not None
            assert 0 <= finding.first_step - other.first_step <= 3


def test_a_growing_norm_is_seen_at_each_step() -> None:
    """A norm that grows by 5 % a step is no routine, although no step of it is a jump."""
    chain = Chain()
    fold = Fold(chain.sites)
    grown = range(300, 340)
    records = (_lean(chain, step, gradient=1e-2 * 1.05 ** max(0, step - 299)) for step in range(400))
    steps = _seen(fold, records)
    assert set(grown[16:]) <= set(steps)
