"""The demonstration: what a stranger runs first shows a sick network and its cure, for any seed."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
import torch

import gradwatch
from gradwatch_torch import demo
from gradwatch_torch.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


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


def test_no_digit_is_both_learned_and_tested() -> None:
    """The split is disjoint and loses no digit; images are scaled to [-1, 1]."""
    digits = demo.Digits.shuffled(torch.Generator().manual_seed(0))
    training, unseen = digits.split()
    assert len(training.labels) == demo.TRAINING_DIGITS
    assert torch.equal(torch.cat([training.images, unseen.images]), digits.images)
    assert (float(digits.images.min()), float(digits.images.max())) == (-1, 1)
    batches = training.batches(torch.Generator().manual_seed(1))
    assert sum(len(labels) for _, labels in batches) == demo.TRAINING_DIGITS


def test_progress_is_a_few_plain_lines_away_from_a_terminal() -> None:
    """Into a file go four lines over the whole training and the notes, without control characters."""
    stream = io.StringIO()
    progress = Progress(1000, stream)
    for i in range(1000):
        if i == 300:
            progress.note("something was found")
        progress.advance(f"loss {i}")
    progress.finish()
    assert stream.getvalue().splitlines() == [
        "  250 of 1,000 steps, loss 249",
        "  something was found",
        "  500 of 1,000 steps, loss 499",
        "  750 of 1,000 steps, loss 749",
        "  1,000 of 1,000 steps, loss 999",
    ]


def test_progress_is_a_moving_bar_in_a_terminal() -> None:
    """In a terminal the bar is drawn over itself, notes stand above it, and the last state stays."""
    stream = Terminal()
    progress = Progress(4, stream)
    progress.advance("loss 2")
    progress.note("something was found")
    for _ in range(3):
        progress.advance("loss 1")
    progress.finish()
    shown = [line.rsplit("\x1b[K", 1)[-1] for line in stream.getvalue().split("\n")]
    assert shown == ["  something was found", f"  {'█' * 30} 4 of 4 steps, loss 1", ""]
