"""What gradwatch.testing promises to those who test with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradwatch.errors import GradwatchError
from gradwatch.examples.synthetic import FAULTS
from gradwatch.testing import assert_healthy, example_run


def test_an_example_run_is_healthy_by_default(tmp_path: Path) -> None:
    """It goes through recorder, store, loading and rules, and nothing is found."""
    run = example_run(tmp_path / "run", layers=12, steps=120)
    assert len(run.recording.steps()) == 120
    assert len(run.recording.sites.layers) == 24
    assert_healthy(run)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_example_run_has_the_fault_it_was_asked_for(fault: str, tmp_path: Path) -> None:
    """Each fault is found under its own kind, first among the findings."""
    run = example_run(tmp_path / "run", layers=12, steps=120, fault=fault)
    assert run.findings[0].kind == fault
    with pytest.raises(AssertionError, match=fault):
        assert_healthy(run)


def test_example_runs_repeat(tmp_path: Path) -> None:
    """The same seed gives the same numbers, another one does not."""
    frames = [example_run(tmp_path / str(i), layers=2, steps=20, seed=seed).frame() for i, seed in enumerate((0, 0, 1))]
    assert frames[0].equals(frames[1])
    assert not frames[0].equals(frames[2])


def test_wrong_requests_are_named(tmp_path: Path) -> None:
    """Unknown faults and impossible sizes give one sentence."""
    with pytest.raises(GradwatchError, match=r"fault='tired' is unknown; choose None or one of vanishing"):
        example_run(tmp_path / "a", fault="tired")
    with pytest.raises(GradwatchError, match=r"layers=0 must be 1 or more"):
        example_run(tmp_path / "b", layers=0)


def test_a_short_run_is_not_healthy_but_unjudged(tmp_path: Path) -> None:
    """assert_healthy fails on a run that nobody could judge."""
    with pytest.raises(AssertionError, match="Too little data to judge: 3 captured steps"):
        assert_healthy(example_run(tmp_path / "run", steps=3))
