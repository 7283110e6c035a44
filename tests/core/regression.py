"""A regression through linear layers, trained in numpy: real gradients and updates as step records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwatch.analyze import analyze
from gradwatch.findings import Analysis
from gradwatch.record import PARAMETER_SIGNALS, Block, Site, SiteTable, StepRecord
from gradwatch.recording import from_records
from gradwatch.statistics import concatenate, measure

Array = npt.NDArray[np.float64]
FEATURES = 12
Change = Callable[[int, dict[str, Array]], dict[str, Array]]


@dataclass
class Regression:
    """Gradient descent on the mean squared error of ``x -> x @ first @ last``; each test changes what it is about.

    Attributes:
        single: whether there is the last layer alone, which makes the loss a parabola.
        rate: learning rate of each step, or one for all.
        momentum: of heavy-ball descent.
        batch: examples a step, 0 for all.
        steps: steps of the run.
        clip: limit of the global gradient norm; ``told`` says whether the records hold norm and limit.
        change: what happens to the gradients of a step before they are recorded.
        shift: added to all inputs.
        targets: factor on the targets.
        adam: whether steps are Adam's.
        logs: whether the loss is logged.
    """

    single: bool = False
    rate: float | Callable[[int], float] = 0.05
    momentum: float = 0.0
    batch: int = 32
    steps: int = 80
    clip: float = np.inf
    told: bool = True
    change: Change = lambda _, gradients: gradients
    shift: float = 0.0
    targets: float = 1.0
    adam: bool = False
    logs: bool = True
    seed: int = 0
    width: int = 8
    weights: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.inputs = self.random.normal(size=(256, FEATURES)) + self.shift
        wanted = self.inputs @ self.random.normal(size=(FEATURES, 4)) / np.sqrt(FEATURES)
        self.outputs = self.targets * (wanted + 0.3 * self.random.normal(size=wanted.shape))
        shapes = {"first.weight": (FEATURES, self.width), "last.weight": (self.width, 4)}
        if self.single:
            shapes = {"last.weight": (FEATURES, 4)}
        self.weights = {name: self.random.normal(size=n) / np.sqrt(n[0]) for name, n in shapes.items()}
        self.sites = SiteTable(
            Site(signal, name, name.removesuffix(".weight"), "weight", value.shape, value.size)
            for signal in PARAMETER_SIGNALS
            for name, value in self.weights.items()
        )
        self._moments = {name: [np.zeros_like(value), np.zeros_like(value)] for name, value in self.weights.items()}

    def analyze(self) -> Analysis:
        """Trains and runs all rules."""
        with np.errstate(all="ignore"):
            return analyze(from_records(self.records(), self.sites))

    def edge(self) -> float:
        """Returns the rate at which a single layer stops converging: 2 over the largest eigenvalue of the curvature."""
        curvature = self.inputs.T @ self.inputs * 2 / self.outputs.size
        return float((1 + self.momentum) * 2 / np.linalg.eigvalsh(curvature)[-1])

    def records(self) -> Iterator[StepRecord]:
        """Trains; yields a record a step."""
        for step in range(self.steps):
            loss, gradients = self._gradients()
            gradients = self.change(step, gradients)
            norm = float(np.sqrt(sum(np.square(g).sum() for g in gradients.values())))
            factor = min(1.0, self.clip / norm) if norm > 0 else 1.0
            taken = {name: factor * gradient for name, gradient in gradients.items()}
            rate = self.rate(step) if callable(self.rate) else self.rate
            updates = {name: self._update(name, taken[name], rate, step) for name in taken}
            self.weights = {name: value + updates[name] for name, value in self.weights.items()}
            facts = {"learning_rate": rate, "total_norm": norm} if self.told else {}
            if np.isfinite(self.clip) and self.told:
                facts["clip_threshold"] = self.clip
            signals = {"gradient": taken if self.told else gradients, "update": updates, "weight": self.weights}
            blocks = tuple(self._block(signal, values) for signal, values in signals.items())
            yield StepRecord(step, 0, 0.0, False, blocks, facts, {"loss": loss} if self.logs else {})

    def _gradients(self) -> tuple[float, dict[str, Array]]:
        rows = self.random.integers(0, 256, self.batch) if self.batch else np.arange(256)
        inputs, outputs = self.inputs[rows], self.outputs[rows]
        hidden = inputs if self.single else inputs @ self.weights["first.weight"]
        error = hidden @ self.weights["last.weight"] - outputs
        above = 2 * error / error.size
        gradients = {"last.weight": hidden.T @ above}
        if not self.single:
            below = inputs.T @ (above @ self.weights["last.weight"].T)
            gradients = {"first.weight": below, **gradients}
        return float(np.mean(error**2)), gradients

    def _update(self, name: str, gradient: Array, rate: float, step: int) -> Array:
        moments = self._moments[name]
        if not self.adam:
            moments[0] = self.momentum * moments[0] + gradient
            return -rate * moments[0]
        moments[0] = 0.9 * moments[0] + 0.1 * gradient
        moments[1] = 0.999 * moments[1] + 0.001 * gradient**2
        mean, square = moments[0] / (1 - 0.9 ** (step + 1)), moments[1] / (1 - 0.999 ** (step + 1))
        return -rate * mean / (np.sqrt(square) + 1e-8)

    def _block(self, signal: str, values: dict[str, Array]) -> Block:
        ids = [self.sites.find(signal, name) for name in values]
        return Block(signal, np.array(ids, dtype=np.uint32), concatenate([measure(v) for v in values.values()]))


def kinds(analysis: Analysis, severity: str = "warning") -> list[str]:
    """Returns the kinds that were found at this severity or worse."""
    return [finding.kind for finding in analysis.at_least(severity)]


def once(step: int, factor: float) -> Change:
    """Multiplies the gradients of one step."""
    return lambda now, gradients: _times(gradients, factor if now == step else 1.0)


def _times(gradients: dict[str, Any], factor: float) -> dict[str, Array]:
    return {name: factor * gradient for name, gradient in gradients.items()}
