"""Each plot of the page as a function that returns a plotly figure, for people who build their own pages.

The numbers, colours and rules are those of the page: what was not captured is blank, samples apart are points that no
line joins, and a bucket of many steps shows its largest value. Every function takes a run or its recording, and draws
for a light background, or with ``dark`` for a dark one.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
import plotly.graph_objects as go

from gradwatch.errors import GradwatchError
from gradwatch.recording import Recording
from gradwatch.statistics import LOWEST_EXPONENT, Float
from gradwatch_html import traces
from gradwatch_html.buckets import bucket
from gradwatch_html.context import lanes
from gradwatch_html.expected import expected_slopes
from gradwatch_html.flow import flow as flow_of
from gradwatch_html.flow import slopes
from gradwatch_html.histograms import LEVELS_PER_OCTAVE, histogram_pack
from gradwatch_html.look import template
from gradwatch_html.metrics import Matrix, matrices
from gradwatch_html.palette import CIVIDIS, COLOURS, DIVERGING, ELEMENTS
from gradwatch_html.script_data import start_of_rows
from gradwatch_html.series import COLUMNS
from gradwatch_html.words import counted

CHANGE_DECADES: Final = 4
"""Decades on either side of a layer's own start that the diverging map spans."""

USUAL_RATIO: Final = (10**-3.5, 10**-2.5)
"""The usual band of update to weight, as on the page: about 1e-3."""

VIEWS: Final = ("value", "change")
_LINES: Final = ("accent", "second", "notice", "warning", "critical", "soft")


class HasRecording(Protocol):
    """A run, or whatever else carries a recording."""

    @property
    def recording(self) -> Recording:
        """The run as plain arrays."""
        ...


Source = HasRecording | Recording
"""What the figures take."""


def heatmap(run: Source, metric: str = "gradient", view: str = "value", *, dark: bool = False) -> go.Figure:
    """Draws a metric of every layer over the steps, input at the top.

    Args:
        run: what to draw.
        metric: a key of ``metrics.METRICS``: gradient, absmax, ratio, zeros, nonfinite, delta, activation, silent,
            saturated.
        view: "value", or "change": decades from each layer's own start, the median of 8 to 18 % of its series.
        dark: for a dark background.

    Raises:
        GradwatchError: for an unknown view, or a metric that was not captured.
    """
    recording = _recording(run)
    if view not in VIEWS:
        raise GradwatchError(f"view={view!r} is unknown; choose one of {', '.join(VIEWS)}.")
    found = _matrix(recording, metric)
    buckets = bucket(found.steps, COLUMNS)
    values, state = buckets.maximum(found.values).T, buckets.maximum(found.state).T
    z, kinds = traces.cells(values, state, share=found.metric.share)
    change = view == "change" and not found.metric.share
    z = z - start_of_rows(found)[:, None] if change else z
    edges, holes = traces.edges(buckets.first, buckets.last)
    names = [recording.sites.layers[layer] for layer in found.layers.tolist()]
    scale = DIVERGING[dark] if change else CIVIDIS
    bounds = {"zmin": -CHANGE_DECADES, "zmax": CHANGE_DECADES} if change else {}
    title = found.metric.title if found.metric.share else f"log10 of {found.metric.title}"
    bar = {"title": {"text": f"{found.metric.title}, decades from its start" if change else title}}
    hover = {"text": traces.hover(names, buckets, values), "hovertemplate": "%{text}<extra></extra>"}
    parts = {"x": edges, "hoverongaps": False}
    figure = _figure(dark, xaxis={"title": {"text": "step"}}, yaxis=traces.layer_axis(names), margin={"l": 180})
    figure.add_heatmap(
        z=traces.spread(z, holes), colorscale=scale, colorbar=bar, **bounds, **parts, **_spread(hover, holes)
    )
    colours = [COLOURS[name][dark] for name in ("absent", "zero", "bad")]
    figure.add_heatmap(z=traces.spread(kinds, holes), zmin=0, zmax=2, colorscale=colours, showscale=False, **parts)
    figure.data[1].hoverinfo = "skip"
    return figure


def flow(run: Source, step: int | None = None, *, dark: bool = False) -> go.Figure:
    """Draws the gradient rms by depth at one step: median, range, fitted slope, and that of theory where it is known.

    Args:
        run: what to draw.
        step: the captured step nearest to it is drawn; the newest one by default.
        dark: for a dark background.

    Raises:
        GradwatchError: without gradients in two layers.
    """
    recording = _recording(run)
    curves = flow_of(recording, _depth(recording), [] if step is None else [step])
    if curves is None:
        raise GradwatchError("gradient flow takes gradients of two layers or more, and this run has fewer.")
    at = len(curves.steps) - 1 if step is None else int(np.abs(curves.steps - step).argmin())
    names = list(curves.names)
    shown, accent = f"step {int(curves.steps[at]):,}", COLOURS["accent"][dark]
    yaxis = {"type": "log", "title": {"text": "gradient rms"}, "exponentformat": "power"}
    figure = _figure(dark, title={"text": shown}, xaxis=traces.depth_axis(names), yaxis=yaxis)
    x, text = np.arange(len(names)), [traces.escaped(name) for name in names]
    for name, curve in (("low", curves.low), ("high", curves.high)):
        fill = {"fill": "tonexty", "fillcolor": traces.faint(accent)} if name == "high" else {}
        figure.add_scatter(x=x, y=traces.positive(curve[at]), mode="lines", line={"width": 0}, name=name, **fill)
    marks = {"text": text, "hovertemplate": "%{text}<br>%{y:.3g}<extra></extra>"}
    y = traces.positive(curves.median[at])
    figure.add_scatter(x=x, y=y, mode="lines+markers", name="median", line={"color": accent}, **marks)
    for word, found in (("non-finite", np.isinf(curves.median[at])), ("exactly zero", curves.median[at] == 0)):
        _mark(figure, np.flatnonzero(found), y, word, dark=dark)
    slope = slopes(curves)[at]
    if slope is not None:
        figure.add_scatter(**traces.fitted(y, slope), name=f"{slope:+.2f} decades per layer", mode="lines")
        figure.data[-1].line = {"color": COLOURS["second"][dark], "dash": "dash"}
    theory = expected_slopes(recording, curves)[at]
    if slope is not None and theory is not None:
        figure.add_scatter(**traces.fitted(y, theory), name=f"theory for these weights: {theory:+.2f}", mode="lines")
        figure.data[-1].line = {"color": COLOURS["ink"][dark], "dash": "longdash"}
    return figure


def layer_norms(run: Source, layer: str, *, dark: bool = False) -> go.Figure:
    """Draws the gradient rms of a layer's parameters over the steps, the largest six of them.

    Raises:
        GradwatchError: when the layer is unknown or no gradient of it was captured.
    """
    return _lines(_recording(run), layer, "gradient", "gradient rms", dark=dark)


def update_to_weight(run: Source, layer: str, *, dark: bool = False) -> go.Figure:
    """Draws norm of the update over norm of the weight of a layer's parameters, with the usual band behind.

    Raises:
        GradwatchError: when the layer is unknown or its updates or weights were not captured.
    """
    figure = _lines(_recording(run), layer, "ratio", "update / weight", dark=dark)
    low, high = USUAL_RATIO
    figure.add_hrect(y0=low, y1=high, fillcolor=COLOURS["band"][dark], line_width=0, layer="below")
    return figure


def histogram(run: Source, layer: str, *, dark: bool = False) -> go.Figure:
    """Draws how a layer's gradient elements spread over the powers of two, over the steps: log10 of each bin's share.

    Shares are those of the page, rounded to a quarter of an octave.

    Raises:
        GradwatchError: when the layer is unknown or no histogram of it was captured.
    """
    recording = _recording(run)
    packed = histogram_pack(recording, {_known(recording, layer): 0})
    if 0 not in packed.layers:
        raise GradwatchError(f"no histogram of the gradient of {layer!r} was captured.")
    place, bins = packed.layers[0], packed.layers[0]["bins"]
    time = packed.times[place["time"]]
    first, last = np.array(time["first"]), np.array(time["last"])
    codes = np.frombuffer(packed.blob, dtype=np.uint8)[place["at"] :][: len(first) * bins].reshape(len(first), bins).T
    z = np.where(codes > 0, (codes - 255.0) / LEVELS_PER_OCTAVE * np.log10(2), np.nan)
    edges, holes = traces.edges(first, last)
    exponents = np.arange(place["low"], place["low"] + bins + 1) + LOWEST_EXPONENT - 1
    axes = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "power of two of |gradient|"}}}
    figure = _figure(dark, **axes)
    bar = {"title": {"text": "log10 of the share"}}
    scale = {"colorscale": list(ELEMENTS[dark]), "zmin": -4, "zmax": -0.4, "colorbar": bar}
    figure.add_heatmap(x=edges, y=exponents, z=traces.spread(z, holes), hoverongaps=False, **scale)
    return figure


def timeline(run: Source, *, dark: bool = False) -> go.Figure:
    """Draws the run's scalars over the steps, one under the other: loss, learning rate and loss scale as captured.

    Raises:
        GradwatchError: when none was.
    """
    shown = lanes(_recording(run))
    if not shown:
        raise GradwatchError("neither loss nor learning rate nor loss scale was logged in this run.")
    figure = _figure(dark, grid={"rows": len(shown), "columns": 1}, xaxis={"title": {"text": "step"}})
    for i, lane in enumerate(shown):
        name, ending = traces.escaped(lane.title), "" if i == 0 else str(i + 1)
        kind = "log" if lane.logarithmic else "linear"
        figure.layout[f"yaxis{ending}"] = {"title": {"text": name}, "type": kind, "domain": _band(i, len(shown))}
        line = traces.line(lane.first, lane.last, lane.high, COLOURS["accent"][dark], name)
        figure.add_scatter(**line, yaxis=f"y{ending}")
        bad = {"color": COLOURS["bad"][dark], "symbol": "x"}
        edge = np.full(len(lane.nonfinite), np.nanmax(lane.high) if not np.isnan(lane.high).all() else 1.0)
        if len(edge):
            figure.add_scatter(x=lane.nonfinite, y=edge, mode="markers", marker=bad, name=f"{name}: non-finite")
            figure.data[-1].yaxis = f"y{ending}"
    return figure


def _band(i: int, count: int) -> list[float]:
    """Returns the part of the height, from the bottom, of the i-th of some plots from the top."""
    return [(count - 1 - i) / count + 0.04 / count, (count - i) / count - 0.04 / count]


def _lines(recording: Recording, layer: str, chart: str, title: str, *, dark: bool) -> go.Figure:
    lines = traces.layer_lines(recording, _known(recording, layer), chart)
    if not lines:
        raise GradwatchError(f"{title} of {layer!r} was not captured.")
    yaxis = {"type": "log", "title": {"text": title}, "exponentformat": "power"}
    figure = _figure(dark, xaxis={"title": {"text": "step"}}, yaxis=yaxis, showlegend=len(lines) > 1)
    for i, found in enumerate(lines):
        colour = COLOURS[_LINES[i % len(_LINES)]][dark]
        figure.add_scatter(**traces.line(found.first, found.last, found.high, colour, traces.escaped(found.site)))
    bad = traces.nonfinite_steps(_matrix(recording, chart), recording.sites.layers.index(layer))
    _mark(figure, bad, np.concatenate([found.high for found in lines]), "non-finite", dark=dark)
    return figure


def _mark(figure: go.Figure, x: Any, shown: Float, word: str, *, dark: bool) -> None:
    """Marks places without a value to draw at the edge of what is shown: above it, or below where they are zero."""
    if not len(x):
        return
    zero, known = word == "exactly zero", shown[np.isfinite(shown) & (shown > 0)]
    edge = 1.0 if not len(known) else float(known.min() if zero else known.max())
    marker = {"symbol": "x", "size": 8, "color": COLOURS["zero" if zero else "bad"][dark]}
    figure.add_scatter(x=x, y=np.full(len(x), edge), mode="markers", marker=marker, name=word)


def _recording(run: Source) -> Recording:
    return run if isinstance(run, Recording) else run.recording


def _depth(recording: Recording) -> dict[str, int]:
    return {name: i for i, name in enumerate(recording.sites.layers)}


def _known(recording: Recording, layer: str) -> str:
    if layer not in recording.sites.layers:
        shown = ", ".join(recording.sites.layers[:3])
        raise GradwatchError(
            f"there is no layer {layer!r} among {counted(len(recording.sites.layers), 'layer')} ({shown}, ...)."
        )
    return layer


def _matrix(recording: Recording, metric: str) -> Matrix:
    found = {matrix.metric.key: matrix for matrix in matrices(recording, _depth(recording))}
    if metric not in found:
        raise GradwatchError(f"metric={metric!r} is not in this run; it has {', '.join(found) or 'none'}.")
    return found[metric]


def _spread(hover: dict[str, Any], holes: Any) -> dict[str, Any]:
    return {**hover, "text": traces.spread(hover["text"], holes, fill="")}


def _figure(dark: bool, **layout: Any) -> go.Figure:
    background = COLOURS["card"][dark]
    figure = go.Figure(
        layout={"template": template(int(dark)), "paper_bgcolor": background, "plot_bgcolor": background}
    )
    return figure.update_layout(margin={"t": 40, "r": 20, "b": 50, "l": 80}).update_layout(**layout)
