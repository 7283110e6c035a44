"""The demonstration: what a stranger runs first shows a sick network and its cure, for any seed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

import gradwatch
from gradwatch_torch import demo


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 11])
def test_the_sick_network_is_found_and_the_repaired_one_passes(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sick run's gradients vanish towards its first layers; the repaired run learns and nothing is found in it."""
    threads = torch.get_num_threads()
    sick, repaired = (gradwatch.load(path) for path in demo.run(tmp_path, seed=seed))
    assert [finding.kind for finding in sick.findings] == ["vanishing"]
    assert sick.findings[0].severity == "critical"
    assert sick.findings[0].layer in {f"hidden.{i}.linear" for i in range(3)}
    assert [finding for finding in repaired.findings if finding.severity != "notice"] == []
    assert "healthy" in repaired.verdict
    assert all((run.path / "report.html").stat().st_size > 100_000 for run in (sick, repaired))
    assert torch.get_num_threads() == threads
    printed = capsys.readouterr().out
    assert "Digits read right: " in printed
    assert "\x1b" not in printed
    assert "since step 0: " in printed


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    """Two trainings of one seed have equal gradients at every step; another seed has others."""
    frames: list[pd.DataFrame] = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        demo.train(demo.repaired_block, tmp_path / name, seed, epochs=1)
        frames.append(gradwatch.load(tmp_path / name).frame())
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert not frames[0].equals(frames[2])
