"""Runs longer than their budget: the page shows all of them, is small, and takes neither long nor much to make."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import gradwatch
from gradwatch.errors import GradwatchError
from gradwatch.testing import long_run
from gradwatch_html.buckets import bucket
from gradwatch_html.metrics import matrices
from gradwatch_html.script_data import script_data

LAYERS, STEPS, WHOLE = 40, 150_000, 300


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gradwatch.Run:
    path = long_run(tmp_path_factory.mktemp("long") / "run", layers=LAYERS, steps=STEPS, whole=WHOLE)
    return gradwatch.load(path)


def test_the_heatmap_spans_the_run(run: gradwatch.Run) -> None:
    """A metric's rows cover the run from the first step to the last, windows first, then single steps."""
    depth = {name: i for i, name in enumerate(run.recording.sites.layers)}
    gradient = next(matrix for matrix in matrices(run.recording, depth) if matrix.metric.key == "gradient")
    assert (gradient.steps[0], gradient.last[-1]) == (0, STEPS - 1)
    assert (gradient.steps[1:] == gradient.last[:-1] + 1).all()
    assert (gradient.steps == gradient.last).sum() >= WHOLE
    assert np.isfinite(gradient.values).all()
    data, _ = script_data(run.recording, run.analysis, [], {})
    assert data["metrics"] == []


def test_the_page_says_where_the_resolution_changes(run: gradwatch.Run, tmp_path: Path) -> None:
    """The note of a metric names the step up to which there are windows only, and how wide they are."""
    text = run.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"Before step {STEPS - WHOLE:,} windows of up to 4,096 steps" in text


def test_a_long_run_makes_a_small_page_soon(run: gradwatch.Run, tmp_path: Path) -> None:
    """The page of 150,000 steps has at most 4 MB, and takes a fifth of the time that is allowed for 1,000 layers."""
    began = time.process_time()
    page = run.report(tmp_path / "page.html")
    assert page.stat().st_size < 4e6
    assert time.process_time() - began < 15.0


def test_buckets_of_windows_are_equal_in_steps() -> None:
    """Windows among single steps are cut into columns equal in steps, each row in one, and none is cut."""
    first = np.concatenate([np.arange(0, 80_000, 4096), np.arange(80_000, 80_300)])
    last = np.append(first[1:], 80_300) - 1
    cut = bucket(first, 100, last=last)
    assert (cut.first[0], cut.last[-1]) == (0, 80_299)
    assert (cut.first[1:] == cut.last[:-1] + 1).all()
    assert len(cut) == 21


def test_a_long_run_needs_whole_steps(tmp_path: Path) -> None:
    """A made-up run of which nothing, or more than there is, is to be whole is refused."""
    with pytest.raises(GradwatchError, match="whole=0"):
        long_run(tmp_path / "run", layers=1, steps=10, whole=0)
