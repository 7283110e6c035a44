"""What all implementations train: one network, its initial weights and its batches, as numpy arrays."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

Array = npt.NDArray[Any]

BATCH: Final = 64


class Batch(NamedTuple):
    """Samples of one step: inputs [n, 64] float32, labels [n] int32, and the weight of each in the loss [n] float32."""

    inputs: Array
    labels: Array
    weights: Array


PLANTS: Final = ("infinite pixel", "infinite sample weight", "NaN sample weight")
"""What makes gradients non-finite. A NaN among the inputs is not among them: the frameworks disagree whether the
derivative of ReLU at NaN is 1 (torch) or 0 (JAX), so the gradients themselves differ."""


@dataclass(frozen=True)
class Phase:
    """Some steps that begin with the initial weights; the last one's batch may hold a plant, one of ``PLANTS``."""

    steps: int
    plant: str | None = None


@dataclass(frozen=True)
class Problem:
    """A plain network and how it is trained by gradient descent.

    Attributes:
        sizes: units, from the inputs to the outputs.
        nonlinearities: name of the one behind each hidden layer.
        rate: the learning rate.
        phases: of the one run.
    """

    sizes: tuple[int, ...]
    nonlinearities: tuple[str, ...]
    rate: float
    phases: tuple[Phase, ...]

    @property
    def depth(self) -> int:
        """Layers that own parameters."""
        return len(self.sizes) - 1

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)


HEALTHY_STEPS: Final = 24
PLANTED: Final = {HEALTHY_STEPS: PLANTS[0], HEALTHY_STEPS + 8: PLANTS[1], HEALTHY_STEPS + 16: PLANTS[2]}
"""Steps with a plant; the default schedule captures everything at them."""

SHALLOW: Final = Problem(
    (64, 48, 32, 10),
    ("tanh", "relu"),
    rate=0.1,
    phases=(Phase(HEALTHY_STEPS + 1, PLANTS[0]), Phase(8, PLANTS[1]), Phase(8, PLANTS[2])),
)
DEEP: Final = Problem((*(64,) * 8, 10), ("sigmoid",) * 7, rate=0.1, phases=(Phase(70),))
"""Its gradients vanish."""
WIDE: Final = Problem((64, 256, 512, 10), ("tanh", "relu"), rate=0.1, phases=(Phase(8),))
"""Has a layer of 2^17 elements, of which an adapter may sample the histogram."""


def initial_weights(problem: Problem) -> list[tuple[Array, Array]]:
    """Returns weight [inputs, outputs] and bias [outputs] of each layer, float32; uniform, with Glorot's variance."""
    random = np.random.default_rng(0)
    layers = []
    for inputs, outputs in itertools.pairwise(problem.sizes):
        bound = np.sqrt(6 / (inputs + outputs))
        weight = random.uniform(-bound, bound, (inputs, outputs))
        layers.append((weight.astype(np.float32), random.uniform(-0.1, 0.1, outputs).astype(np.float32)))
    return layers


def phases(problem: Problem) -> Iterator[list[Batch]]:
    """Yields the batches of each phase, of scikit-learn's digits, whose corner pixels are 0 in every sample."""
    images, digits = _digits()
    random = np.random.default_rng(1)
    for phase in problem.phases:
        made = []
        for _ in range(phase.steps):
            chosen = random.integers(0, len(images), BATCH)
            made.append(Batch(images[chosen], digits[chosen], np.ones(BATCH, dtype=np.float32)))
        _plant(made[-1], phase.plant)
        yield made


def _plant(batch: Batch, plant: str | None) -> None:
    if plant == "infinite pixel":
        batch.inputs[5, 20] = np.inf
    elif plant is not None:
        batch.weights[5] = np.inf if plant == "infinite sample weight" else np.nan


@functools.cache
def _digits() -> tuple[Array, Array]:
    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target.astype(np.int32)
