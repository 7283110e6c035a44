"""Step records of a chain of equal layers, written by hand: each test sets only what it is about."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from gradwatch.analyze import analyze
from gradwatch.findings import Analysis
from gradwatch.record import ABSENT, ACTIVATION_SIGNALS, PARAMETER_SIGNALS, Block, Site, SiteTable, StepRecord
from gradwatch.recording import from_records
from gradwatch.statistics import Statistics

WIDTH = 64
BATCH = 64
Sizes = float | Iterable[float]
NOTHING: Mapping[str, Collection[int]] = MappingProxyType({})


@dataclass
class Chain:
    """Layers fc0 ... fc{n-1}, each with a weight matrix, a bias, an output and an input."""

    layers: int = 8
    activation_class: str = "Linear"
    names: tuple[str, ...] = ()
    statuses: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = self.names or tuple(f"fc{i}" for i in range(self.layers))
        self.sites = SiteTable()
        for signal in PARAMETER_SIGNALS:
            for i, name in enumerate(self.names):
                status = self.statuses.get(i, "trained")
                shape = (WIDTH, WIDTH)
                self.sites.add(Site(signal, f"{name}.weight", name, "weight", shape, WIDTH**2, status=status))
                self.sites.add(Site(signal, f"{name}.bias", name, "bias", (WIDTH,), WIDTH, status=status))
        for signal in ACTIVATION_SIGNALS:
            for name in self.names:
                self.sites.add(Site(signal, name, name, self.activation_class))
                self.sites.add(Site(signal, f"{name}:input", name, self.activation_class))
        self.sites.set_order(self.names)

    def record(
        self,
        step: int,
        *,
        gradient: Sizes | None = 1e-2,
        update: Sizes | None = 1e-4,
        weight: Sizes | None = 0.1,
        output: Sizes | None = 1.0,
        inputs: Sizes | None = 1.0,
        delta: Sizes | None = 1e-3,
        absent: Collection[int] = (),
        bad: Mapping[str, Collection[int]] = NOTHING,
        loss: float | None = 1.0,
        rate: float | None = 0.01,
        skipped: bool = False,
        late: bool = False,
    ) -> StepRecord:
        """Returns the record of a step; sizes are rms, one for all layers or one a layer; None leaves a signal out."""
        blocks: list[Block] = []
        for signal, size in (("gradient", gradient), ("update", update), ("weight", weight)):
            if size is not None:
                gone = absent if signal == "gradient" else ()
                blocks.extend(self._parameters(signal, _spread(size, self.layers), gone, bad.get(signal, ())))
        if output is not None:
            blocks.append(self._activations("activation", output, inputs, bad))
        if delta is not None:
            blocks.append(self._activations("activation_gradient", delta, delta, bad))
        facts = {} if rate is None else {"learning_rate": rate}
        logged = {} if loss is None else {"loss": loss}
        return StepRecord(step, 0, 0.0, skipped, tuple(blocks), facts, logged, late)

    def analyze(self, records: Iterable[StepRecord]) -> Analysis:
        """Runs all rules over the records."""
        return analyze(from_records(records, self.sites))

    def _parameters(
        self, signal: str, size: npt.NDArray[np.float64], absent: Collection[int], bad: Collection[int]
    ) -> list[Block]:
        ids = self._ids(signal, [f"{name}.{leaf}" for name in self.names for leaf in ("weight", "bias")])
        both = np.repeat(size, 2)
        numel = np.tile([WIDTH**2, WIDTH], self.layers).astype(np.int64)
        spoilt = np.repeat([i in bad for i in range(self.layers)], 2)
        gone = np.repeat([i in absent for i in range(self.layers)], 2)
        blocks = [Block(signal, ids[~gone], statistics(both, numel, spoilt).take(~gone), "unscaled")]
        if gone.any():
            zero, null = np.zeros(int(gone.sum()), dtype=np.int64), np.full(int(gone.sum()), np.nan)
            blocks.append(Block(signal, ids[gone], Statistics(zero, null, null, null, zero, zero), ABSENT))
        return blocks

    def _activations(
        self, signal: str, outputs: Sizes, inputs: Sizes | None, bad: Mapping[str, Collection[int]]
    ) -> Block:
        names, sizes = list(self.names), [_spread(outputs, self.layers)]
        spoilt = [i in bad.get(signal, ()) for i in range(self.layers)]
        if inputs is not None:
            names += [f"{name}:input" for name in self.names]
            sizes.append(_spread(inputs, self.layers))
            spoilt += [i in bad.get(f"{signal}:input", ()) for i in range(self.layers)]
        size = np.concatenate(sizes)
        numel = np.full(len(size), BATCH * WIDTH, dtype=np.int64)
        return Block(signal, self._ids(signal, names), statistics(size, numel, np.array(spoilt)), "unknown")

    def _ids(self, signal: str, names: Iterable[str]) -> npt.NDArray[np.uint32]:
        found = [self.sites.find(signal, name) for name in names]
        return np.array([at for at in found if at is not None], dtype=np.uint32)


def statistics(rms: npt.NDArray[np.float64], numel: npt.NDArray[np.int64], bad: npt.NDArray[np.bool_]) -> Statistics:
    """Returns statistics of this rms; where ``bad``, half of the elements are NaN.

    Sums are of the size that chance gives them, and point the same way at every step.
    """
    nan = np.where(bad, numel // 2, 0)
    l2 = rms * np.sqrt(numel - nan)
    return Statistics(numel, l2, l2 * np.cos(1.0 + 2.0 * np.arange(len(rms))), 3 * rms, nan, np.zeros_like(numel))


def _spread(size: Sizes, layers: int) -> npt.NDArray[np.float64]:
    if isinstance(size, int | float):
        return np.full(layers, float(size))
    return np.array(list(size), dtype=np.float64)
