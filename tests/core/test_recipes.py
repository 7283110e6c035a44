"""The README's recipes for data frames give what the run's arrays say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gradwatch.run import Run
from gradwatch.statistics import NULL
from gradwatch.testing import example_run
from tests.readme import NEEDS_README, blocks

pytestmark = NEEDS_README


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return example_run(tmp_path_factory.mktemp("runs") / "run", layers=6, steps=80, fault="nonfinite")


def printed(recipe: int, run: Run) -> pd.Series[Any]:
    """Runs the recipes up to one and returns what that one prints."""
    shown: list[Any] = []
    names: dict[str, Any] = {"run": run, "print": shown.append}
    for block in blocks("python", "In a notebook")[1 : 2 + recipe]:
        exec(block, names)
    series = shown[recipe]
    assert isinstance(series, pd.Series)
    return series


def test_there_are_three_recipes() -> None:
    """One block shows the figures, three are recipes."""
    assert len(blocks("python", "In a notebook")) == 4


def test_the_layers_that_move_least(run: Run) -> None:
    """Medians over all parameters and steps of a layer of l2(update) / l2(weight), the least first."""
    update, weight = run.recording.panels["update", 0], run.recording.panels["weight", 0]
    layer_of = [run.recording.sites[int(site)].layer for site in update.sites]
    names = [run.recording.sites[int(site)].name for site in update.sites]
    assert names == [run.recording.sites[int(site)].name for site in weight.sites]
    ratio = update.l2 / weight.l2[np.isin(weight.steps, update.steps)]
    medians = {
        layer: float(np.nanmedian(ratio[:, [i for i, owner in enumerate(layer_of) if owner == layer]]))
        for layer in layer_of
    }
    found = printed(0, run)
    assert found.to_dict() == pytest.approx(dict(sorted(medians.items(), key=lambda item: item[1])[:5]))
    assert found.is_monotonic_increasing


def test_the_first_layer_against_the_last(tmp_path: Path) -> None:
    """Largest norm of the first layer's parameters over that of the last layer's, at the last five steps."""
    run = example_run(tmp_path / "run", layers=6, steps=30, fault="vanishing")
    panel = run.recording.panels["gradient", 0]
    layer_of = np.array([run.recording.sites[int(site)].layer for site in panel.sites])
    order = [name for name in run.recording.sites.layers if name in layer_of]
    first, last = (panel.l2[-5:, layer_of == name].max(axis=1) for name in (order[0], order[-1]))
    found = printed(1, run)
    assert found.index.tolist() == panel.steps[-5:].tolist()
    assert found.tolist() == pytest.approx((first / last).tolist())
    assert max(found) < 0.1


def test_the_first_non_finite_step(run: Run, tmp_path: Path) -> None:
    """For each layer with a non-finite element its first such step; nothing for a healthy run."""
    panel = run.recording.panels["gradient", 0]
    bad = (panel.n != NULL) & (panel.nan + panel.inf > 0)
    expected: dict[str, int] = {}
    for t, i in np.argwhere(bad).tolist():
        expected.setdefault(run.recording.sites[int(panel.sites[i])].layer, int(panel.steps[t]))
    assert expected
    assert printed(2, run).to_dict() == expected
    assert printed(2, example_run(tmp_path / "healthy", layers=3, steps=20)).empty
