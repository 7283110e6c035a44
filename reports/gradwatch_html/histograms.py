"""Histograms of the gradient over time, one a layer: how its elements spread over the octaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.recording import BucketPanel, Panel, Recording, Steps
from gradwatch.statistics import BINS
from gradwatch_html.buckets import Buckets, bucket, time_axis

CELL_BUDGET: Final = 1_600_000
"""Bytes over all layers, before compression."""

MAX_COLUMNS: Final = 96
MIN_COLUMNS: Final = 12
USUAL_BINS: Final = 24
LEVELS_PER_OCTAVE: Final = 4
_BINS_AT_ONCE: Final = 4_000_000
"""Bins of windows that are looked at together: 32 MB."""


@dataclass(slots=True)
class HistogramPack:
    """Histograms of the layers that have one.

    Attributes:
        blob: shares as bytes: 0 for an empty bin, else 255 + 4 log2(share); columns of one layer behind one another.
        times: the time axis of each optimizer.
        layers: layer index to where its histogram starts, its lowest bin, number of bins, and time axis.
    """

    blob: bytes = b""
    times: list[dict[str, list[int]]] = field(default_factory=list)
    layers: dict[int, dict[str, int]] = field(default_factory=dict)


def histogram_pack(recording: Recording, depth: Mapping[str, int]) -> HistogramPack:
    """Packs the gradient histograms of all layers; a layer's is the sum over its parameters.

    Args:
        recording: the run.
        depth: layer name to its index.
    """
    pack, parts, used = HistogramPack(), [], 0
    columns = int(np.clip(CELL_BUDGET // max(1, USUAL_BINS * len(depth)), MIN_COLUMNS, MAX_COLUMNS))
    for (signal, _), panel in sorted(recording.panels.items()):
        if signal != "gradient" or not len(panel.histogram_steps):
            continue
        steps = panel.steps[panel.histogram_steps]
        whole = slice(int(np.searchsorted(steps, recording.whole_from.get(panel.optimizer, 0))), None)
        earlier = recording.buckets.get((signal, panel.optimizer))
        first, last = _axis(steps[whole], earlier)
        buckets = bucket(first, columns, last=last, early=True)
        pack.times.append(time_axis(buckets.first, buckets.last))
        sites = _sites_by_layer(recording, panel, depth)
        totals = _totals(panel, whole.start, earlier, sites, buckets)
        for i, layer in enumerate(sites):
            counts = totals[:, i]
            bins = np.flatnonzero(counts.any(axis=0))
            if len(bins) and layer not in pack.layers:
                low, high = int(bins[0]), int(bins[-1]) + 1
                codes = encode_shares(counts[:, low:high])
                pack.layers[layer] = {"at": used, "low": low, "bins": high - low, "time": len(pack.times) - 1}
                parts.append(codes.tobytes())
                used += codes.size
    pack.blob = b"".join(parts)
    return pack


def _axis(steps: Steps, earlier: BucketPanel | None) -> tuple[Steps, Steps]:
    """Returns first and last step of each histogram: of windows, then of single steps."""
    if earlier is None:
        return steps, steps
    at = earlier.histogram_rows
    return np.concatenate([earlier.first[at], steps]), np.concatenate([earlier.last[at], steps])


def _totals(
    panel: Panel, begin: int, earlier: BucketPanel | None, sites: Mapping[int, npt.NDArray[np.intp]], buckets: Buckets
) -> npt.NDArray[Any]:
    """Returns the histograms of each bucket and layer, summed over the layer's sites, shape [b, layers, 64].

    Args:
        panel: with the steps that are there in full.
        begin: the first of its histograms that counts.
        earlier: windows before, each of which counts by its mean histogram.
        sites: layer to the panel's columns.
        buckets: over the windows with histograms and then the steps.
    """
    totals = np.zeros((len(buckets), len(sites), BINS), dtype=np.int64 if earlier is None else np.float64)
    windows = 0 if earlier is None else len(earlier.histogram_rows)
    bucket_of = np.searchsorted(buckets.starts, np.arange(windows + len(panel.histogram_steps)), side="right") - 1
    if earlier is not None:
        theirs = [np.flatnonzero(np.isin(earlier.sites, panel.sites[at])) for at in sites.values()]
        every = np.arange(len(earlier.sites))
        stride = max(1, _BINS_AT_ONCE // (BINS * max(1, len(every))))
        for start in range(0, windows, stride):
            rows = slice(start, min(start + stride, windows))
            _add(totals, bucket_of[rows], earlier.counts(every, rows), theirs)
    for at, histogram in panel.histograms():
        place = np.searchsorted(panel.histogram_steps, at) - begin
        late = place >= 0
        if late.any():
            _add(totals, bucket_of[windows + place[late]], histogram[late], list(sites.values()))
    return totals


def _add(
    totals: npt.NDArray[Any],
    bucket_of: npt.NDArray[np.intp],
    histogram: npt.NDArray[Any],
    columns: Sequence[npt.NDArray[np.intp]],
) -> None:
    """Adds histograms of sites, shape [h, m, 64], to their buckets and to the layers that own these columns."""
    lengths = np.array([len(some) for some in columns])
    there = np.flatnonzero(lengths)
    if not len(there):
        return
    starts, order = (np.cumsum(lengths) - lengths)[there], np.concatenate(columns)
    for number in np.unique(bucket_of).tolist():
        summed = histogram[bucket_of == number].sum(axis=0, dtype=totals.dtype)
        totals[number][there] += np.add.reduceat(summed[order], starts, axis=0)


def encode_shares(counts: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Encodes counts, shape [b, bins], as shares of each row's total, a quarter of an octave a level."""
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with np.errstate(divide="ignore"):
        levels = 255 + np.rint(LEVELS_PER_OCTAVE * np.log2(counts / total))
    return np.where(counts > 0, np.clip(levels, 1, 255), 0).astype(np.uint8)


def _sites_by_layer(recording: Recording, panel: Panel, depth: Mapping[str, int]) -> dict[int, Any]:
    columns: dict[int, list[int]] = {}
    for column, site in enumerate(panel.sites):
        layer = depth.get(recording.sites[int(site)].layer)
        if layer is not None:
            columns.setdefault(layer, []).append(column)
    return {layer: np.array(at, dtype=np.intp) for layer, at in sorted(columns.items())}
