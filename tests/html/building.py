"""Recordings made by hand for the tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.record import PARAMETER_SIGNALS, Block, Site, SiteTable, StepRecord
from gradwatch.recording import Panel, Recording, StepTable, from_records
from gradwatch.statistics import concatenate, measure

Scale = Callable[[str, int, int], float]
USUAL = {"gradient": 1e-2, "update": 1e-4, "weight": 0.1}


def synthetic(layers: int, steps: int, fault: str | None = None, name: str = "run") -> Recording:
    """Returns the recording of a made-up run."""
    run = SyntheticRun(layers=layers, steps=steps, fault=fault)
    facts = {"framework": "PyTorch", "version": "2.0", "world_size": 1, "schedule": {"every": None}}
    return from_records(run.records(), run.sites, name=name, facts=facts)


def dense(
    names: Sequence[str],
    steps: int,
    *,
    optimizers: Mapping[str, int] | None = None,
    scale: Scale = lambda signal, *_: USUAL[signal],
    bad_from: int | None = None,
    dtype: str = "float32",
    name: str = "run",
    quality: tuple[str, ...] = (),
) -> Recording:
    """Returns a run in which every signal of one 8 x 8 weight a layer is captured at every step.

    Args:
        names: of the layers.
        steps: captured steps of every optimizer.
        optimizers: name of each layer's optimizer to its place in the list, by layer; one optimizer by default.
        scale: standard deviation of a signal's elements, by signal, layer and step.
        bad_from: step from which the second half of the layers holds NaN.
        dtype: of the parameters.
        name: of the run.
        quality: data-quality notes.
    """
    random = np.random.default_rng(0)
    keys = sorted(set((optimizers or {}).values())) or [0]
    table = SiteTable(optimizers=[f"optimizer {key}" if len(keys) > 1 else "" for key in keys])
    ids = {}
    for signal in PARAMETER_SIGNALS:
        for i, layer in enumerate(names):
            owner = (optimizers or {}).get(layer, 0)
            site = Site(signal, f"{layer}.weight", layer, "weight", (8, 8), 64, dtype, table.optimizers[owner])
            ids[signal, i] = table.add(site)
    records = []
    for owner in range(len(keys)):
        mine = [i for i, layer in enumerate(names) if (optimizers or {}).get(layer, 0) == owner]
        for step in range(steps):
            blocks = []
            for signal in PARAMETER_SIGNALS:
                arrays = [random.normal(size=64) * scale(signal, i, step) for i in mine]
                for i, array in zip(mine, arrays, strict=True):
                    if bad_from is not None and step >= bad_from and i >= len(names) // 2:
                        array[:3] = np.nan
                sites = np.array([ids[signal, i] for i in mine], dtype=np.uint32)
                blocks.append(Block(signal, sites, concatenate([measure(a) for a in arrays]), "unscaled", None))
            facts = {"learning_rate": 0.01}
            records.append(StepRecord(step, owner, 0.1 * step, False, tuple(blocks), facts, {"loss": 1 / (1 + step)}))
    return from_records(records, table, name=name, quality=quality)


def lengthened(recording: Recording, steps: int) -> Recording:
    """Returns a run with the sites of a short one and ``steps`` captured steps, at each of which every number differs.

    Args:
        recording: whose captured steps are repeated.
        steps: captured steps of the result.
    """
    random = np.random.default_rng(1)

    def panel(short: Panel) -> Panel:
        row = np.arange(steps) % len(short.steps)
        loud = np.exp(np.cumsum(random.normal(size=(steps, len(short.sites))) * 0.05, axis=0))
        counts = {name: getattr(short, name)[row] for name in ("stage", "n", "nan", "inf", "zeros", "subnormal")}
        sizes = {name: getattr(short, name)[row] * loud for name in ("l2", "sum", "absmax")}
        columns = int(np.clip(200_000 // max(1, len(short.sites)), 16, 128))
        units = None if short.units is None else short.units[:, row]
        taken = np.arange(0, steps, max(1, steps // columns)) if len(short.histogram_steps) else short.histogram_steps
        bins = short.histogram[np.arange(len(taken)) % max(1, len(short.histogram_steps))]
        shifted = np.roll(bins, 1, axis=2) + random.integers(0, 9, bins.shape, dtype=np.uint32) * (bins > 0)
        more: dict[str, Any] = {"histogram_steps": taken, "histogram": shifted.astype(np.uint32), "units": units}
        return replace(short, steps=np.arange(steps), columns={**counts, **sizes, **more})

    def table(short: StepTable) -> StepTable:
        row = np.arange(steps) % len(short.steps)
        facts, logged = ({k: v[row] for k, v in part.items()} for part in (short.facts, short.logged))
        return StepTable(np.arange(steps), np.arange(steps, dtype=np.float64), short.skipped[row], facts, logged)

    panels = {key: panel(short) for key, short in recording.panels.items()}
    tables = {key: table(short) for key, short in recording.step_tables.items()}
    return replace(recording, panels=panels, step_tables=tables)
