"""Geometry of what the first screen draws without a script: health strip, sparklines, evidence figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch_html.curves import Curve
from gradwatch_html.layers import LEVELS, LayerRow
from gradwatch_html.words import middle_ellipsis, power_of_ten, short, whole

Float = npt.NDArray[np.float64]
Scale = Callable[[Float], Float]

STRIP_CELLS: Final = 320
SPARK: Final = (176, 36)
FIGURE: Final = (352, 184)
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 24
_LABEL_ROOM: Final = 0.24
"""Share of the axis that a label takes; closer labels are dropped, the onset's last."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the health strip, in percent of its width: one layer, or the worst of some neighbours."""

    x: float
    width: float
    level: str
    title: str
    layer: int


@dataclass(frozen=True, slots=True)
class Label:
    """A text at a place of the drawing; ``anchor`` is as in SVG."""

    x: float
    y: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A curve in pixels.

    Attributes:
        width, height: of the drawing.
        plot: left, top, width and height of the plot's area.
        line, rest: SVG path data of the curve and of the other layers.
        bad: x of non-finite values.
        span: left and width of the tinted part.
        onset: x of its left edge, or None where the whole width is tinted.
        y_ticks, x_ticks: labels, at their grid lines.
    """

    width: int
    height: int
    plot: tuple[float, float, float, float]
    line: str
    rest: str
    bad: tuple[float, ...]
    span: tuple[float, float]
    onset: float | None
    y_ticks: tuple[Label, ...]
    x_ticks: tuple[Label, ...]


def strip(rows: Sequence[LayerRow]) -> list[Cell]:
    """Lays the layers from input to output; of more than ``STRIP_CELLS`` neighbours share a cell, the worst shows."""
    count = min(STRIP_CELLS, len(rows))
    cells = []
    for i in range(count):
        group = rows[i * len(rows) // count : (i + 1) * len(rows) // count]
        worst = min(group, key=lambda row: LEVELS.index(row.level))
        cells.append(Cell(100 * i / count, 100 / count, worst.level, _cell_title(worst, len(group)), worst.index))
    return cells


def _cell_title(worst: LayerRow, layers: int) -> str:
    more = f" (worst of {layers} layers)" if layers > 1 else ""
    return f"{middle_ellipsis(worst.name, 80)}: {worst.level}{more}"


def sparkline(curve: Curve) -> Drawing:
    """Draws a curve small, without axes."""
    return _draw(curve, *SPARK, (1.0, 3.0, SPARK[0] - 2.0, SPARK[1] - 6.0), ticks=False)


def figure(curve: Curve) -> Drawing:
    """Draws a curve with axes."""
    width, height = FIGURE
    return _draw(curve, width, height, (_LEFT, _TOP, width - _LEFT - _RIGHT, height - _TOP - _BOTTOM), ticks=True)


def _draw(curve: Curve, width: int, height: int, plot: tuple[float, float, float, float], *, ticks: bool) -> Drawing:
    left, top, wide, high = plot
    low, top_value = _range(curve)
    x_low, x_high = _x_range(curve)

    def across(x: Float) -> Float:
        return np.asarray(np.clip(left + (x - x_low) / (x_high - x_low) * wide, left, left + wide))

    def down(y: Float) -> Float:
        return np.asarray(top + high * (1 - (_scaled(curve, y) - low) / (top_value - low)))

    x = across(curve.x.astype(np.float64))
    start, end = (float(v) for v in across(np.array(curve.span, dtype=np.float64)))
    if curve.by_depth:
        half = wide / (x_high - x_low) / 2
        start, end = max(left, start - half), min(left + wide, end + half)
    wide_enough = max(end - start, 3.0)
    start = min(start, left + wide - wide_enough)
    return Drawing(
        width,
        height,
        plot,
        _path(x, down(curve.y), curve.joined),
        "" if curve.rest is None else _path(x, down(curve.rest), curve.joined),
        tuple(round(float(v), 1) for v in np.unique(x[curve.bad].round(1))),
        (round(start, 1), round(wide_enough, 1)),
        round(start, 1) if start > left + 1 and not curve.by_depth else None,
        _y_ticks(curve, low, top_value, left, down) if ticks else (),
        _x_ticks(curve, start, plot) if ticks else (),
    )


def _scaled(curve: Curve, y: Float) -> Float:
    if not curve.logarithmic:
        return y
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(y > 0, np.log10(y), np.nan)


def _range(curve: Curve) -> tuple[float, float]:
    """Returns the limits of the y axis: whole decades, or from zero to a round number."""
    values = np.concatenate([_scaled(curve, c) for c in (curve.y, curve.rest) if c is not None])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    if curve.logarithmic:
        low, high = float(np.floor(values.min())), float(np.ceil(values.max()))
        return low, high if high > low else low + 1
    low, high = min(0.0, float(values.min())), float(values.max())
    return low, high * 1.05 if high > low else low + 1


def _x_range(curve: Curve) -> tuple[float, float]:
    pad = 0.5 if curve.by_depth else 0.0
    low, high = float(curve.x[0]) - pad, float(curve.x[-1]) + pad
    return low, high if high > low else low + 1


def _path(x: Float, y: Float, joined: npt.NDArray[np.bool_]) -> str:
    """Writes path data; a point without a neighbour is a stroke of no length, which a round cap makes a dot."""
    parts, pen = [], False
    known = np.isfinite(y)
    for i in np.flatnonzero(known).tolist():
        pen = bool(joined[i]) and bool(known[i - 1])
        follows = i + 1 < len(x) and bool(joined[i + 1]) and bool(known[i + 1])
        parts.append(f"{'L' if pen else 'M'}{x[i]:.1f} {y[i]:.1f}" + ("" if pen or follows else "h0"))
    return "".join(parts)


def _y_ticks(curve: Curve, low: float, high: float, left: float, down: Scale) -> tuple[Label, ...]:
    if curve.logarithmic:
        stride = max(1, int(np.ceil((high - low) / 4)))
        powers = range(int(low), int(high) + 1, stride)
        return tuple(Label(left, float(down(np.array([10.0**p]))[0]), power_of_ten(p), "end") for p in powers)
    step = _round_step((high - low) / 4)
    values = np.arange(np.ceil(low / step) * step, high + 1e-12, step)
    return tuple(
        Label(left, float(down(np.array([v]))[0]), f"{100 * v:g}%" if curve.share else short(float(v)), "end")
        for v in values
    )


def _round_step(rough: float) -> float:
    power = 10 ** np.floor(np.log10(rough))
    return float(next(power * n for n in (1, 2, 5, 10) if power * n >= rough * 0.999))


def _x_ticks(curve: Curve, start: float, plot: tuple[float, float, float, float]) -> tuple[Label, ...]:
    left, top, wide, high = plot
    y = top + high + 16
    if curve.by_depth:
        return (Label(left, y, "input", "start"), Label(left + wide, y, "output", "end"))
    ends = [(left, int(curve.x[0]), "start"), (left + wide, int(curve.x[-1]), "end")]
    onset = start > left + 1
    at = "start" if start < left + wide * 0.12 else "end" if start > left + wide * 0.88 else "middle"
    labels = [Label(start, y, f"step {whole(curve.span[0])}", at)] if onset else []
    return (
        *labels,
        *(
            Label(x, y, whole(step), anchor)
            for x, step, anchor in ends
            if not onset or abs(x - start) > wide * _LABEL_ROOM
        ),
    )
