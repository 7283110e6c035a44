"""The plain record of a torch program: ``p.grad``, outputs and weights copied at every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.zoo.program import Observer
from tests.zoo.torch_program import TorchProgram
from tests.zoo.trace import Array, Trace, row


class _Recorder(Observer):
    """Reads along at the points and at the loop's stations."""

    def __init__(self, program: TorchProgram, trace: Trace) -> None:
        self.model, self.trace = program.model, trace
        self._outputs: dict[str, Tensor] = {}
        self._units: dict[str, Tensor] = {}
        self._deltas: dict[str, Tensor] = {}
        self._before: dict[str, Array] = {}

    def output(self, layer: str, values: Tensor) -> None:
        self._outputs[layer] = values.detach()
        if values.requires_grad:
            values.register_hook(lambda grad: self._deltas.__setitem__(layer, grad.detach()))

    def units(self, layer: str, values: Tensor) -> None:
        self._units[layer] = values.detach()

    def begin(self, step: int) -> None:
        self._before = self._weights()
        for table in (self._outputs, self._units, self._deltas):
            table.clear()

    def gradients(self, step: int, names: tuple[str, ...]) -> None:
        held = dict(self.model.named_parameters())
        gradients = {name: held[name].grad for name in names}
        arrays = {name: None if grad is None else array(grad) for name, grad in gradients.items()}
        self.trace.add_gradients(arrays, direction=len(names) == len(held) or "head.weight" not in names)

    def end(self, step: int, loss: Any, *, task: float, accuracy: float, clip: float) -> None:
        self.trace.add_weights(self._before, self._weights())
        self.trace.losses.append(task)
        self.trace.accuracies.append(accuracy)
        self.trace.clips.append(clip)
        for layer, values in self._outputs.items():
            self.trace.add_output(layer, array(values))
        for layer, values in self._units.items():
            self.trace.add_units(layer, array(values), axis=1 if values.ndim == 4 else -1)
        for layer, values in self._deltas.items():
            self.trace.deltas[layer].append(row(array(values)))

    def _weights(self) -> dict[str, Array]:
        return {name: array(parameter.detach()).copy() for name, parameter in self.model.named_parameters()}


def array(values: Tensor) -> Array:
    """Returns a tensor as an array, widened where numpy knows no such number."""
    wide = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
    found: Array = np.asarray((wide.coalesce().to_dense() if wide.is_sparse else wide).detach())
    return found


def trace_of(program: TorchProgram) -> Trace:
    """Trains a program and returns its plain record."""
    trace = Trace(program.chain, program.recipe.activation)
    recorder = _Recorder(program, trace)
    program.model.points.reader = recorder
    with np.errstate(all="ignore"):
        program.train(recorder)
    return trace
