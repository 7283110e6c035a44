"""A made-up training run: step records of a deep network that learns, or fails in a named way.

The numbers follow the schedule and the shapes of a real run (lognormal norms around a decaying trend, gradients that
fall towards the input when they vanish), so that stores, rules and reports can be exercised at any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import erf, prod
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.errors import GradwatchError
from gradwatch.record import ABSENT, ACTIVATION_SIGNALS, PARAMETER_SIGNALS, Block, Site, SiteTable, StepRecord
from gradwatch.schedule import Plan, Schedule
from gradwatch.statistics import BINS, HIGHEST_EXPONENT, LOWEST_EXPONENT, Float, Histogram, Statistics, UnitCounts

FAULTS: Final = ("vanishing", "exploding", "nonfinite", "disconnected", "update-too-large", "update-too-small")
WIDTH: Final = 64
BATCH: Final = 64
LEARNING_RATE: Final = 0.01
_DECADES_PER_LAYER: Final = 0.6


class SyntheticRun:
    """Step records of a plain network of ``layers`` layers over ``steps`` steps.

    ``fault`` is None or one of ``FAULTS``; a fault that has an onset begins at ``onset``.
    """

    def __init__(self, *, layers: int, steps: int, seed: int = 0, fault: str | None = None) -> None:
        if fault is not None and fault not in FAULTS:
            raise GradwatchError(f"fault={fault!r} is unknown; choose None or one of {', '.join(FAULTS)}.")
        if layers < 1 or steps < 0:
            raise GradwatchError(f"layers={layers} must be 1 or more and steps={steps} 0 or more.")
        self.layers = layers
        self.steps = steps
        self.fault = fault
        self.onset = min(40, steps // 2)
        self.sites = _site_table(layers)
        self._random = np.random.default_rng(seed)
        self._ids = {
            signal: np.array([i for i, site in enumerate(self.sites) if site.signal == signal], dtype=np.uint32)
            for signal in (*PARAMETER_SIGNALS, *ACTIVATION_SIGNALS)
        }
        self._depth = {signal: self._depth_of(ids) for signal, ids in self._ids.items()}
        self._numel = {
            signal: np.array([self.sites[i].numel or BATCH * WIDTH for i in ids.tolist()], dtype=np.int64)
            for signal, ids in self._ids.items()
        }
        self._level = {signal: self._random.normal(0, 0.1, len(ids)) for signal, ids in self._ids.items()}

    def records(self, schedule: Schedule | None = None) -> Iterator[StepRecord]:
        """Yields the record of every step."""
        schedule = schedule or Schedule()
        for step in range(self.steps):
            yield self.record(step, schedule.plan(step))

    def record(self, step: int, plan: Plan) -> StepRecord:
        """Returns the record of a step that captures what the plan says."""
        blocks: list[Block] = []
        for signal in (*PARAMETER_SIGNALS, *ACTIVATION_SIGNALS):
            if signal in plan.signals:
                histogram = plan.histogram if signal == "gradient" else signal in ACTIVATION_SIGNALS
                blocks.extend(self._blocks(signal, step, histogram=histogram))
        gradient = next((block for block in blocks if block.signal == "gradient"), None)
        facts = {"learning_rate": LEARNING_RATE}
        if gradient is not None:
            facts["total_norm"] = float(np.sqrt(np.nansum(np.square(gradient.statistics.l2))))
        return StepRecord(step, 0, 0.02 * step, False, tuple(blocks), facts, {"loss": self._loss(step)})

    def _blocks(self, signal: str, step: int, *, histogram: bool) -> Iterator[Block]:
        ids, numel = self._ids[signal], self._numel[signal]
        size = np.power(10.0, self._log_rms(signal, step))
        bad = self._bad(signal, step)
        absent = self._absent(signal, step)
        statistics = self._statistics(size, numel, bad, histogram=histogram)
        units = self._units(len(ids)) if signal == "activation" else None
        if not absent.any():
            yield Block(signal, ids, statistics, "unscaled", units)
            return
        yield Block(signal, ids[~absent], statistics.take(~absent), "unscaled", None)
        nothing = np.zeros(int(absent.sum()), dtype=np.int64)
        null = np.full(len(nothing), np.nan)
        yield Block(signal, ids[absent], Statistics(nothing, null, null, null, nothing, nothing), ABSENT)

    def _log_rms(self, signal: str, step: int) -> Float:
        depth = self._depth[signal]
        noise = self._random.normal(0, 0.05, len(depth)) + self._level[signal]
        progress = np.log10(1 + step / 100)
        after = max(0, step - self.onset)
        vanish = _DECADES_PER_LAYER * (self.layers - 1 - depth) * 12 / max(self.layers, 12)
        grow = 0.35 * after if self.fault == "exploding" and step >= self.onset else 0.0
        if signal in ("gradient", "activation_gradient"):
            base = -2.0 - 0.5 * progress + min(grow, 30.0)
            size = noise + base - (vanish if self.fault == "vanishing" else 0.0)
        elif signal == "weight":
            size = np.full(len(depth), -0.9) + self._level[signal]
        elif signal == "update":
            base = {"update-too-large": -0.9, "update-too-small": -9.0}.get(self.fault or "", -3.9)
            size = noise + base - 0.3 * progress + min(grow, 30.0) - (vanish if self.fault == "vanishing" else 0.0)
        else:
            size = noise * 0.3 - 0.1
        return np.asarray(size, dtype=np.float64)

    def _bad(self, signal: str, step: int) -> npt.NDArray[np.bool_]:
        """Tells which sites are non-finite: from the faulty layer's output on and in the gradients of all."""
        depth = self._depth[signal]
        overflow = self.fault == "exploding" and step >= self.onset + 60
        if not (overflow or (self.fault == "nonfinite" and step >= self.onset)):
            return np.zeros(len(depth), dtype=np.bool_)
        if signal == "activation":
            return depth >= self.layers // 2
        return np.ones(len(depth), dtype=np.bool_)

    def _absent(self, signal: str, step: int) -> npt.NDArray[np.bool_]:
        cut = self.fault == "disconnected" and signal == "gradient" and step >= 0
        return (self._depth[signal] < self.layers // 2) & cut

    def _statistics(
        self, rms: Float, numel: npt.NDArray[np.int64], bad: npt.NDArray[np.bool_], *, histogram: bool
    ) -> Statistics:
        zero = np.zeros(len(rms), dtype=np.int64)
        null = np.where(bad, np.nan, 1.0)
        mean = self._random.normal(0, 1, len(rms)) * rms / np.sqrt(numel)
        return Statistics(
            n=numel,
            l2=rms * np.sqrt(numel) * null,
            sum=mean * numel * null,
            absmax=rms * (2 + np.log(numel) / 4) * null,
            nan=np.where(bad, numel, 0),
            inf=zero,
            zeros=zero if histogram else None,
            subnormal=zero if histogram else None,
            histogram=_normal_histogram(rms, np.where(bad, 0, numel)) if histogram else None,
        )

    def _units(self, m: int) -> UnitCounts:
        units = np.full(m, WIDTH, dtype=np.int64)
        zero = np.zeros(m, dtype=np.int64)
        return UnitCounts(units, zero, zero, zero)

    def _loss(self, step: int) -> float:
        if self.fault == "nonfinite" and step >= self.onset:
            return float("nan")
        if self.fault == "exploding" and step >= self.onset:
            return float(min(2.3 * 10 ** (0.2 * (step - self.onset)), 1e38))
        flat = self.fault in ("vanishing", "update-too-small")
        return 2.303 + float(self._random.normal(0, 0.002)) if flat else 2.3 / (1 + step / 50)

    def _depth_of(self, ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        return np.array([int(self.sites[i].layer.split(".")[1]) for i in ids.tolist()], dtype=np.int64)


def _site_table(layers: int) -> SiteTable:
    table = SiteTable(optimizers=["optimizer"])
    for signal in PARAMETER_SIGNALS:
        for i in range(layers):
            layer = f"blocks.{i}.linear"
            for name, role, shape in (("weight", "weight", (WIDTH, WIDTH)), ("bias", "bias", (WIDTH,))):
                site = Site(signal, f"{layer}.{name}", layer, role, shape, prod(shape), optimizer="optimizer")
                table.add(site)
    for signal in ACTIVATION_SIGNALS:
        for i in range(layers):
            table.add(Site(signal, f"blocks.{i}.linear", f"blocks.{i}.linear", "Linear", optimizer="optimizer"))
            table.add(Site(signal, f"blocks.{i}.act", f"blocks.{i}.act", "ReLU", optimizer="optimizer"))
    table.set_order([f"blocks.{i}.{part}" for i in range(layers) for part in ("linear", "act")])
    return table


def _normal_histogram(rms: Float, n: npt.NDArray[np.int64]) -> Histogram:
    """Returns the expected octave counts of n normal values of this rms, shape [m, 64]."""
    exponent = np.arange(LOWEST_EXPONENT, HIGHEST_EXPONENT + 1)[None] - np.log2(np.maximum(rms, 1e-300))[:, None]
    below = np.interp(exponent, _EXPONENTS, _BELOW)
    edges = np.concatenate([np.zeros((len(rms), 1)), below, np.ones((len(rms), 1))], axis=1)
    counts: Histogram = np.rint(np.diff(edges, axis=1) * n[:, None]).astype(np.uint32)
    return counts[:, :BINS]


_EXPONENTS: Final = np.arange(-80.0, 8.0, 0.25)
_BELOW: Final = np.array([erf(2.0**e / np.sqrt(2)) for e in _EXPONENTS])
