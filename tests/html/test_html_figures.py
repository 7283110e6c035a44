"""The figures: their numbers are those of the data frame, their colours those of the page, and they are valid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import gradwatch
from gradwatch.errors import GradwatchError
from gradwatch.testing import example_run
from gradwatch_html import figures
from gradwatch_html.palette import CIVIDIS, COLOURS, DIVERGING
from tests.html.building import dense

STEPS = 80
LAYER = "blocks.3.linear"
Draw = Callable[..., go.Figure]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gradwatch.Run:
    return example_run(tmp_path_factory.mktemp("runs") / "run", steps=STEPS, fault="vanishing")


def rms(rows: pd.DataFrame) -> pd.Series[float]:
    return rows["l2"] / np.sqrt(rows["numel"].astype(float))


def points(trace: Any) -> dict[int, float]:
    """Returns x to y of a trace where both are known."""
    return {int(x): float(y) for x, y in zip(trace.x, trace.y, strict=True) if not (np.isnan(x) or np.isnan(y))}


def columns(trace: Any) -> dict[int, Any]:
    """Returns first step to column of a heatmap, holes left out."""
    z, x = np.array(trace.z, dtype=float), np.array(trace.x)
    return {round(x[i] + 0.5): z[:, i] for i in range(z.shape[1]) if not np.isnan(z[:, i]).all()}


def by_layer(
    rows: pd.DataFrame, values: pd.Series[float], reduce: Literal["max", "min", "mean"] = "max"
) -> pd.DataFrame:
    return rows.assign(value=values).pivot_table(
        index="step", columns="layer", values="value", aggfunc=reduce, observed=True
    )


def test_the_heatmap_shows_the_frames_numbers(run: gradwatch.Run) -> None:
    """A cell is log10 of the largest rms among the layer's parameters at that step, input at the top."""
    rows = run.frame("gradient")
    table, shown = by_layer(rows, rms(rows)), columns(figures.heatmap(run).data[0])
    order = [name for name in run.recording.sites.layers if name in table.columns]
    assert sorted(shown) == table.index.tolist()
    for step, column in shown.items():
        assert column == pytest.approx(np.log10(table.loc[step, order].to_numpy(dtype=float)), rel=1e-6)


def test_the_view_of_change_starts_at_each_layers_own_start(run: gradwatch.Run) -> None:
    """The median of a layer's change over 8 to 18 % of the run is 0, and the map is the diverging one."""
    figure = figures.heatmap(run, view="change", dark=True)
    shown = columns(figure.data[0])
    early = np.stack([shown[step] for step in range(int(STEPS * 0.08), int(STEPS * 0.18))])
    assert np.median(early, axis=0) == pytest.approx(0, abs=1e-6)
    assert [colour for _, colour in figure.data[0].colorscale] == list(DIVERGING[1])
    assert [colour for _, colour in figures.heatmap(run).data[0].colorscale] == list(CIVIDIS)


def test_sampled_signals_leave_holes_blank(run: gradwatch.Run) -> None:
    """An activation is drawn at the steps of its samples only, and the ratio is the update over the weight."""
    rows = run.frame("activation")
    sampled = sorted(rows["step"].unique().tolist())
    figure = figures.heatmap(run, "activation")
    assert sorted(columns(figure.data[0])) == sampled
    assert len(figure.data[0].x) == np.array(figure.data[0].z).shape[1] + 1
    assert np.all(np.diff(figure.data[0].x) > 0)


def test_non_finite_and_zero_cells_have_the_pages_colours() -> None:
    """A NaN is drawn in the page's colour for it from its first step on, whatever the finite rest is."""
    figure = figures.heatmap(dense(["a", "b", "c", "d"], 12, bad_from=6))
    bad = np.array(figure.data[1].z) == 2
    assert bad[2:, 6:].all()
    assert not bad[:2].any()
    assert not bad[:, :6].any()
    assert figure.data[1].colorscale[-1] == (1, COLOURS["bad"][0])
    assert np.isnan(np.array(figure.data[0].z)[2:, 6:]).all()


def test_lines_and_flow_mark_what_is_not_finite() -> None:
    """A step or layer with a NaN has a mark in the page's colour; a layer without one has none."""
    broken = dense(["a", "b", "c", "d"], 12, bad_from=6)
    line, mark = figures.layer_norms(broken, "c").data
    assert (line.name, mark.name) == ("c.weight", "non-finite")
    assert list(mark.x) == [6, 7, 8, 9, 10, 11]
    assert mark.marker.color == COLOURS["bad"][0]
    assert len(figures.layer_norms(broken, "a").data) == 1
    marks = {trace.name: list(trace.x) for trace in figures.flow(broken, 11).data if trace.mode == "markers"}
    assert marks == {"non-finite": [2, 3]}
    assert not [trace for trace in figures.flow(broken, 2).data if trace.mode == "markers"]
    still = dense(["a", "b", "c"], 3, scale=lambda _, layer, __: 0.0 if layer == 1 else 0.01)
    marks = {trace.name: list(trace.x) for trace in figures.flow(still).data if trace.mode == "markers"}
    assert marks == {"exactly zero": [1]}


@pytest.mark.parametrize("step", [None, 0, 31])
def test_flow_shows_every_layers_range_at_a_step(run: gradwatch.Run, step: int | None) -> None:
    """Smallest, largest and geometric middle of the rms of each layer's parameters, from input to output."""
    rows = run.frame("gradient")
    rows = rows[rows["step"] == (STEPS - 1 if step is None else step)]
    layers = [name for name in run.recording.sites.layers if (rows["layer"] == name).any()]
    low, high, median = figures.flow(run, step).data[:3]
    for trace, table in (
        (low, by_layer(rows, rms(rows), "min").iloc[0]),
        (high, by_layer(rows, rms(rows), "max").iloc[0]),
    ):
        assert list(trace.y) == pytest.approx([float(table[name]) for name in layers], rel=1e-6)
    middle = 10 ** by_layer(rows, rms(rows).map(np.log10), "mean").iloc[0]
    assert list(median.y) == pytest.approx([float(middle[name]) for name in layers], rel=1e-6)


def test_the_fitted_line_is_least_squares(run: gradwatch.Run) -> None:
    """Its two ends lie on the line that numpy fits to the logarithms."""
    median, line = figures.flow(run).data[2:4]
    slope, start = np.polyfit(median.x, np.log10(median.y), 1)
    assert np.log10(line.y) == pytest.approx(start + slope * np.array(line.x), abs=1e-3)


def test_layer_norms_are_the_frames(run: gradwatch.Run) -> None:
    """One line a parameter: the rms of its gradient at every captured step."""
    rows = run.frame("gradient")
    rows = rows[rows["layer"] == LAYER].assign(rms=rms)
    figure = figures.layer_norms(run, LAYER)
    assert {trace.name for trace in figure.data} == set(rows["parameter"])
    for trace in figure.data:
        mine = rows[rows["parameter"] == trace.name]
        assert points(trace) == pytest.approx(dict(zip(mine["step"], mine["rms"], strict=True)), rel=1e-6)
    assert figure.data[0].line.color == COLOURS["accent"][0]


def test_update_to_weight_is_the_frames_ratio(run: gradwatch.Run) -> None:
    """Norm of the update over norm of the weight where both were captured, never joined over a hole."""
    both = run.frame("update").merge(run.frame("weight"), on=["step", "parameter"], suffixes=("_update", "_weight"))
    both["ratio"] = both["l2_update"] / both["l2_weight"]
    figure = figures.update_to_weight(run, LAYER)
    for trace in figure.data:
        mine = both[both["parameter"] == trace.name]
        assert points(trace) == pytest.approx(dict(zip(mine["step"], mine["ratio"], strict=True)), rel=1e-6)
    assert figure.layout.shapes[0].y0 == pytest.approx(10**-3.5)


def test_histogram_shares_are_those_recorded(run: gradwatch.Run) -> None:
    """At every step with histograms each bin's share of the layer's elements, within an eighth of an octave."""
    panel = run.recording.panel("gradient")
    assert panel is not None
    at = [i for i, site in enumerate(panel.sites) if run.recording.sites[int(site)].layer == LAYER]
    counts = panel.histogram[:, at].sum(axis=1).astype(float)
    figure = figures.histogram(run, LAYER).data[0]
    low = round(figure.y[0]) + 41
    shown = columns(figure)
    assert sorted(shown) == panel.steps[panel.histogram_steps].tolist()
    for row, step in enumerate(sorted(shown)):
        share = counts[row] / counts[row].sum()
        for i, z in enumerate(shown[step]):
            if np.isnan(z):
                assert share[low + i] == 0
            else:
                assert z == pytest.approx(np.log10(share[low + i]), abs=np.log10(2) / 8 + 1e-9)


def test_the_timeline_holds_loss_and_learning_rate(run: gradwatch.Run) -> None:
    """Each scalar as it was logged, in a plot of its own."""
    table = run.recording.step_tables[0]
    figure = figures.timeline(run)
    shown = {trace.name: points(trace) for trace in figure.data}
    assert shown["loss"] == pytest.approx(dict(enumerate(table.logged["loss"].tolist())))
    assert shown["learning rate"] == pytest.approx(dict(enumerate(table.facts["learning_rate"].tolist())))
    assert len({trace.yaxis for trace in figure.data}) == len(figure.data)


EVERY: list[tuple[Draw, tuple[Any, ...]]] = [
    (figures.heatmap, ()),
    (figures.flow, ()),
    (figures.layer_norms, (LAYER,)),
    (figures.update_to_weight, (LAYER,)),
    (figures.histogram, (LAYER,)),
    (figures.timeline, ()),
]


@pytest.mark.parametrize(("draw", "arguments"), EVERY, ids=[draw.__name__ for draw, _ in EVERY])
@pytest.mark.parametrize("dark", [False, True])
def test_every_figure_is_whole_and_the_same_for_a_recording(
    run: gradwatch.Run, draw: Draw, arguments: tuple[Any, ...], dark: bool, tmp_path: Path
) -> None:
    """It is a plotly figure that can be written, deterministic, and takes a run or its recording."""
    figure = draw(run, *arguments, dark=dark)
    assert isinstance(figure, go.Figure)
    assert json.loads(figure.to_json()) == json.loads(draw(run.recording, *arguments, dark=dark).to_json())
    assert figure.layout.paper_bgcolor == COLOURS["card"][dark]
    figure.write_html(tmp_path / "figure.html", include_plotlyjs=False)


def test_what_cannot_be_drawn_is_one_sentence(run: gradwatch.Run, tmp_path: Path) -> None:
    """Unknown names and missing signals say what there is instead."""
    empty = example_run(tmp_path / "empty", layers=1, steps=0)
    with pytest.raises(GradwatchError, match="metric='nothing' is not in this run; it has gradient"):
        figures.heatmap(run, "nothing")
    with pytest.raises(GradwatchError, match="choose one of value, change"):
        figures.heatmap(run, view="other")
    with pytest.raises(GradwatchError, match=r"there is no layer 'x' among \d+ layers"):
        figures.layer_norms(run, "x")
    for draw, arguments in EVERY:
        with pytest.raises(GradwatchError):
            draw(empty, *arguments)


def test_names_are_no_markup() -> None:
    """A layer whose name looks like HTML is shown as text in ticks and hover."""
    figure = figures.heatmap(dense(["<b>a</b>", "b&c"], 12))
    assert list(figure.layout.yaxis.ticktext) == ["&lt;b&gt;a&lt;/b&gt;", "b&amp;c"]
    assert "<b>" not in str(figure.data[0].text)
