"""What the script of the compare page works with: plain data for its JSON island, and packed islands of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.comparison import Compared, Comparison, Pair
from gradwatch.comparison.curves import Flow, Loss
from gradwatch.comparison.ratios import FINITE, STATE_WORDS, Ratio
from gradwatch.statistics import Float
from gradwatch_html.buckets import bucket, time_axis
from gradwatch_html.encode import pack, pack_codes
from gradwatch_html.look import plot_palettes

RUN_LINES: Final = (
    ("accent", "solid"),
    ("second", "dash"),
    ("passed", "dot"),
    ("bad", "dashdot"),
    ("notice", "longdash"),
    ("critical", "longdashdot"),
    ("soft", "solid"),
    ("ink", "dot"),
)
"""Colour and dash of each run: never told apart by colour alone."""

LOSS_COLUMNS: Final = 512
FLOW_GROUPS: Final = 240
SAME_CODE: Final = 128
LEVELS: Final = 120
"""A cell's code is its state, or ``SAME_CODE`` + log10 ratio / widest * ``LEVELS``: with ratios within 4 decades 8 % a
level, enough for colour and trend."""

_RANGES: Final = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Decades either way that a scale may span."""

_MOST_WITHIN: Final = 95
"""Percentage of the ratios that the colours tell apart: few large ones must not make the others look alike."""


def compare_data(comparison: Comparison) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the JSON island's data, and name to packed data of the others.

    The keys from ``layers`` to ``start`` are those that the scripts shared with a run's page look for.
    """
    islands: dict[str, str] = {}
    metrics = [_metric(pair, ratio, islands) for pair in comparison.pairs for ratio in pair.ratios]
    losses = [_loss(run) for run in comparison.runs]
    meta: dict[str, Any] = {
        "palettes": plot_palettes(),
        "runs": [_run(run, i) for i, run in enumerate(comparison.runs)],
        "layers": [],
        "findings": [],
        "lanes": [],
        "metrics": metrics,
        "start": {"steps": _span(metrics, losses), "metric": metrics[0]["key"] if metrics else None, "view": "change"},
        "losses": losses,
        "flow": None if comparison.flow is None else _flow(comparison.flow, islands),
    }
    return meta, islands


def encode_ratio(ratio: Ratio, widest: float) -> npt.NDArray[np.uint8]:
    """Returns the code of every cell, shape [b, r]: the state where there is no ratio.

    Args:
        ratio: what to encode.
        widest: decades either way that are told apart.
    """
    levels = np.rint(np.clip(np.nan_to_num(ratio.values) / widest, -1, 1) * LEVELS)
    codes = np.where(ratio.state == FINITE, SAME_CODE + levels, ratio.state)
    return codes.astype(np.uint8)


def _run(run: Compared, index: int) -> dict[str, str]:
    colour, dash = RUN_LINES[index]
    return {"label": run.label, "name": run.recording.name, "colour": colour, "dash": dash}


def _metric(pair: Pair, ratio: Ratio, islands: dict[str, str]) -> dict[str, Any]:
    widest = _range(ratio, 100)
    key = f"{ratio.key}-{pair.other.label}"
    islands[f"m-{key}"] = pack_codes(encode_ratio(ratio, widest))
    labels = {"first": pair.first.label, "other": pair.other.label}
    return {
        "key": key,
        "title": f"{ratio.title}, {pair.other.label} / {pair.first.label}",
        "runs": [pair.first.label, pair.other.label],
        "names": [list(names) for names in ratio.layers],
        "words": [word.format(**labels) for word in STATE_WORDS],
        "same": SAME_CODE,
        "decade": LEVELS / widest,
        "range": _range(ratio, _MOST_WITHIN),
        **time_axis(ratio.first, ratio.last),
    }


def _range(ratio: Ratio, percentile: int) -> float:
    """Returns the decades either way that this percentage of the ratios lies within."""
    known = np.abs(ratio.values[ratio.state == FINITE])
    most = float(np.percentile(known, percentile)) if len(known) else 0.0
    return next((span for span in _RANGES if most <= span), _RANGES[-1])


def _loss(run: Compared) -> dict[str, Any] | None:
    loss: Loss | None = run.loss
    if loss is None:
        return None
    buckets = bucket(loss.steps, LOSS_COLUMNS)
    return {
        **time_axis(buckets.first, buckets.last),
        "y": _plain(buckets.mean(loss.values)),
        "low": _plain(buckets.minimum(loss.values)),
        "high": _plain(buckets.maximum(loss.values)),
        "banded": len(buckets) < len(loss.steps),
        "bad": list(loss.nonfinite[:LOSS_COLUMNS]),
    }


def _plain(values: Float) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def _flow(flow: Flow, islands: dict[str, str]) -> dict[str, Any]:
    """Packs the curves; of more than ``FLOW_GROUPS`` rows, neighbours share a place, the median of them shows."""
    parts = np.array_split(np.arange(len(flow.rows)), min(FLOW_GROUPS, len(flow.rows)))
    values = np.stack([_middle(flow.values[:, :, part]) for part in parts], axis=2)
    islands["flow"] = pack(values.astype("<f4").tobytes())
    names = [[_name(flow.rows[i]) for i in sorted({int(part[0]), int(part[-1])})] for part in parts]
    return {"steps": flow.steps.tolist(), "names": names}


def _middle(values: Float) -> Float:
    ordered = np.sort(values, axis=2)
    at = np.maximum((~np.isnan(values)).sum(axis=2, keepdims=True) - 1, 0) // 2
    return np.take_along_axis(ordered, at, axis=2)[:, :, 0]


def _name(row: Sequence[str | None]) -> str:
    """Writes a layer by its names in the runs: one where all that have it call it the same."""
    return " / ".join(dict.fromkeys(name for name in row if name is not None))


def _span(metrics: Sequence[dict[str, Any]], losses: Sequence[dict[str, Any] | None]) -> list[int]:
    axes = [axis for axis in (*metrics, *losses) if axis is not None and axis["first"]]
    bad = [step for loss in losses if loss is not None for step in loss["bad"]]
    first = [*(axis["first"][0] for axis in axes), *bad]
    last = [*(axis["last"][-1] for axis in axes), *bad]
    return [min(first, default=0), max(last, default=0)]
