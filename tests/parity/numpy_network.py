"""The network in plain numpy, with its derivatives written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from tests.parity.problem import Array, Batch, Problem, initial_weights


@dataclass(frozen=True)
class Nonlinearity:
    """A function of the layer's output z, and its derivative's product with d, given z and the function's value y."""

    value: Callable[[Array], Array]
    backward: Callable[[Array, Array, Array], Array]


NONLINEARITIES: Final = {
    "tanh": Nonlinearity(np.tanh, lambda d, _z, y: d * (1 - y * y)),
    "relu": Nonlinearity(lambda z: np.maximum(z, 0), lambda d, z, _y: np.where(z > 0, d, 0)),
    "sigmoid": Nonlinearity(lambda z: 1 / (1 + np.exp(-z)), lambda d, _z, y: d * y * (1 - y)),
}


@dataclass(frozen=True)
class Step:
    """What one step computed, by name of parameter (``layers.0.weight``), or of layer and of its input.

    Attributes:
        loss: before the step.
        gradients, updates, weights: of the parameters; weights after the step.
        activations, activation_gradients: of ``layers.0`` and of ``layers.0:input``, the latter not of the data.
    """

    loss: float
    gradients: dict[str, Array]
    updates: dict[str, Array]
    weights: dict[str, Array]
    activations: dict[str, Array]
    activation_gradients: dict[str, Array]


class Descent:
    """Trains by plain gradient descent, in float32, and tells its listeners about every step."""

    def __init__(self, problem: Problem) -> None:
        self.listeners: list[Callable[[Step], None]] = []
        self._rate = np.float32(problem.rate)
        self._nonlinearities = [NONLINEARITIES[name] for name in problem.nonlinearities]
        self._problem = problem
        self.restart()

    def restart(self) -> None:
        """Goes back to the initial weights."""
        self.parameters: dict[str, Array] = {}
        for i, (weight, bias) in enumerate(initial_weights(self._problem)):
            self.parameters |= {f"layers.{i}.weight": weight, f"layers.{i}.bias": bias}

    @property
    def depth(self) -> int:
        return len(self.parameters) // 2

    def step(self, batch: Batch) -> None:
        """Takes one step."""
        # Some batches hold infinities on purpose.
        with np.errstate(invalid="ignore", over="ignore"):
            activations = self._forward(batch.inputs)
            loss, delta = cross_entropy(activations[f"layers.{self.depth - 1}"], batch)
            gradients, deltas = self._backward(activations, delta)
            before = self.parameters
            self.parameters = {name: before[name] - self._rate * gradients[name] for name in before}
            updates = {name: self.parameters[name] - before[name] for name in before}
        for listener in self.listeners:
            listener(Step(loss, gradients, updates, self.parameters, activations, deltas))

    def _forward(self, x: Array) -> dict[str, Array]:
        found = {}
        for i in range(self.depth):
            name = f"layers.{i}"
            found[f"{name}:input"] = x
            found[name] = x @ self.parameters[f"{name}.weight"] + self.parameters[f"{name}.bias"]
            x = self._nonlinearities[i].value(found[name]) if i < len(self._nonlinearities) else x
        return found

    def _backward(self, activations: dict[str, Array], delta: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        gradients: dict[str, Array] = {}
        deltas: dict[str, Array] = {}
        for i in reversed(range(self.depth)):
            name = f"layers.{i}"
            if i < len(self._nonlinearities):
                y = activations[f"layers.{i + 1}:input"]
                delta = self._nonlinearities[i].backward(delta, activations[name], y)
            deltas[name] = delta
            gradients[f"{name}.weight"] = activations[f"{name}:input"].T @ delta
            gradients[f"{name}.bias"] = delta.sum(axis=0)
            if i > 0:
                delta = deltas[f"{name}:input"] = delta @ self.parameters[f"{name}.weight"].T
        return gradients, deltas


def cross_entropy(outputs: Array, batch: Batch) -> tuple[float, Array]:
    """Returns the weighted mean of the cross-entropy, and its gradient at the outputs, [n, classes]."""
    samples = np.arange(len(outputs))
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    losses = np.log(total[:, 0]) - shifted[samples, batch.labels]
    each = (batch.weights / np.float32(len(outputs))).astype(np.float32)
    delta = exponentials / total * each[:, None]
    delta[samples, batch.labels] -= each
    return float(np.mean(batch.weights * losses)), delta
