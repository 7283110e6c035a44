"""Who this process is, and how its run is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradwatch.errors import GradwatchError
from gradwatch.launch import Launch, from_environment, run_directory

VARIABLES = ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_there_is_one_process() -> None:
    """A plain script is rank 0 of 1."""
    assert from_environment() == Launch()


def test_the_launchers_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank, world size, id and restart count come from the environment; the framework's own word wins."""
    for name, value in zip(VARIABLES, ("1", "4", "job/7", "2"), strict=True):
        monkeypatch.setenv(name, value)
    assert from_environment() == Launch(1, 4, "job/7", 2)
    assert from_environment((3, 8)) == Launch(3, 8, "job/7", 2)


def test_nonsense_in_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that is no number counts as none."""
    monkeypatch.setenv("RANK", "first")
    assert from_environment() == Launch()


def test_runs_are_named_by_the_user_the_launcher_or_the_time() -> None:
    """An explicit directory wins; a launcher's id is made safe as a name; otherwise names differ."""
    assert run_directory("x/y", Launch()) == Path("x/y")
    assert run_directory(None, Launch(1, 2, "../job 7")) == Path("runs/-job-7")
    assert run_directory(None, Launch()) != run_directory(None, Launch())


def test_several_processes_without_an_id_need_a_name() -> None:
    """The sentence says who cannot name the run and what to pass."""
    with pytest.raises(GradwatchError, match=r"rank 1 of 2 cannot name the run.*pass run="):
        run_directory(None, Launch(1, 2))
