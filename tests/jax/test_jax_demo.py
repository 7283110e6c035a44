"""The demonstration in JAX: the same story as in other frameworks, from the same digits, for any seed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import gradwatch
from gradwatch import cli
from gradwatch_jax import demo


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 11])
def test_the_sick_network_is_found_and_the_repaired_one_passes(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command finds gradients that vanish towards the first layers, and nothing in the network that is repaired."""
    out = tmp_path / "out"
    assert cli.main(["demo", "--framework", "jax", "--seed", str(seed), "--out", str(out)]) == 0
    sick, repaired = (gradwatch.load(out / name) for name in ("sick", "repaired"))
    assert [finding.kind for finding in sick.findings] == ["vanishing"]
    assert sick.findings[0].severity == "critical"
    assert sick.findings[0].layer in {f"hidden.{i}.linear" for i in range(3)}
    assert [finding for finding in repaired.findings if finding.severity != "notice"] == []
    assert "healthy" in repaired.verdict
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    for words in ("warning, since step 0: ", "440 of 440 steps, loss ", "Digits read right: "):
        assert words in printed
    for run in (sick, repaired):
        assert (run.path / "report.html").stat().st_size > 100_000
        assert str(run.path / "report.html") in printed
        assert run.frame("update")["step"].nunique() > 64


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    """Two trainings of one seed have equal gradients at every step; another seed has others."""
    frames: list[pd.DataFrame] = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        demo.train(demo.RepairedBlock, tmp_path / name, seed, epochs=1)
        frames.append(gradwatch.load(tmp_path / name).frame())
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert not frames[0].equals(frames[2])
