"""Recordings as pandas data frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from gradwatch.record import STAGES
from gradwatch.recording import Panel, Recording
from gradwatch.statistics import NULL

COLUMNS = (
    "step",
    "optimizer",
    "layer",
    "parameter",
    "numel",
    "l2",
    "mean",
    "absmax",
    "zeros",
    "nan",
    "inf",
    "subnormal",
    "stage",
)
_COUNTS = ("numel", "zeros", "nan", "inf", "subnormal")


def frame(recording: Recording, signal: str) -> pd.DataFrame:
    """Returns one row per captured (step, site) of a signal, with ``COLUMNS``; empty when nothing was captured."""
    panels = [panel for (name, _), panel in sorted(recording.panels.items()) if name == signal]
    parts = [_panel_columns(recording, panel) for panel in panels]
    if not parts:
        return _typed(pd.DataFrame({name: [] for name in COLUMNS}))
    return _typed(pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}))


def per_rank(recordings: Mapping[int, Recording], signal: str) -> pd.DataFrame:
    """Returns the rows of every rank, with a column ``rank`` in front."""
    frames = []
    for rank, recording in sorted(recordings.items()):
        rows = frame(recording, signal)
        rows.insert(0, "rank", rank)
        frames.append(rows)
    return pd.concat(frames, ignore_index=True)


def _panel_columns(recording: Recording, panel: Panel) -> dict[str, Any]:
    t, m = np.nonzero(panel.n != NULL)
    sites = [recording.sites[int(i)] for i in panel.sites]
    numel = np.array([site.numel for site in sites], dtype=np.int64)
    n = panel.n[t, m]
    return {
        "step": panel.steps[t],
        "optimizer": np.full(len(t), recording.sites.optimizers[panel.optimizer], dtype=object),
        "layer": _objects([site.layer if site.parameter else site.name for site in sites])[m],
        "parameter": _objects([site.parameter for site in sites])[m],
        "numel": np.where(numel[m] > 0, numel[m], n),
        "l2": panel.l2[t, m],
        "mean": panel.mean()[t, m],
        "absmax": panel.absmax[t, m],
        **{name: getattr(panel, name)[t, m] for name in ("zeros", "nan", "inf", "subnormal")},
        "stage": _objects(list(STAGES))[panel.stage[t, m]],
    }


def _objects(values: list[Any]) -> np.ndarray[Any, np.dtype[np.object_]]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    types: dict[str, Any] = {"step": "int64", **dict.fromkeys(("l2", "mean", "absmax"), "float64")}
    for name in _COUNTS:
        counts = np.asarray(rows[name], dtype=np.int64)
        rows[name] = pd.arrays.IntegerArray(counts, counts == NULL)
    for name in ("optimizer", "layer", "parameter", "stage"):
        rows[name] = rows[name].astype("category")
    return rows.astype(types)
