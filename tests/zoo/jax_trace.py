"""The plain record of a JAX program: a second step that also returns gradients, outputs and what they receive."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.zoo.data import micro_batches
from tests.zoo.jax_points import Points
from tests.zoo.jax_program import JaxProgram, arrays
from tests.zoo.jax_weights import named
from tests.zoo.program import Observer
from tests.zoo.trace import Array, Trace, row


class _Recorder(Observer):
    """Adds what the second step returned to the record."""

    def __init__(self, program: JaxProgram, trace: Trace) -> None:
        self.program, self.trace = program, trace
        self.seen: Any = None
        self._before: dict[str, Array] = {}

    def begin(self, step: int) -> None:
        self._before = _numpy(named(self.program.params))

    def end(self, step: int, loss: Any, *, task: float, accuracy: float, clip: float) -> None:
        gradients, deltas, outputs, units = self.seen
        trace, found = self.trace, _numpy(named(gradients))
        trace.add_gradients(dict(found))
        trace.add_weights(self._before, _numpy(named(self.program.params)))
        trace.losses.append(task)
        trace.accuracies.append(accuracy)
        norm = float(np.sqrt(sum(np.sum(np.square(values.astype(np.float64))) for values in found.values())))
        trace.clips.append(min(1.0, self.program.recipe.clip / norm) if norm > 0 else 1.0)
        for layer, values in _numpy(outputs).items():
            trace.add_output(layer, values)
        for layer, values in _numpy(units).items():
            trace.add_units(layer, values)
        for layer, values in _numpy(deltas).items():
            trace.deltas[layer].append(row(values))


def trace_of(program: JaxProgram) -> Trace:
    """Trains a program and returns its plain record."""
    trace = Trace(program.chain, program.recipe.activation)
    recorder = _Recorder(program, trace)
    taps = _taps(program)

    @jax.jit
    def seeing(params: Any, state: Any, batch: Any) -> Any:
        def loss_of(params: Any, taps: Any) -> Any:
            points = Points(program.recipe, batch[3], taps)
            loss, told = program.loss_of(params, batch, points)
            return loss, (told, points.outputs, points.seen)

        (loss, (told, outputs, units)), grads = jax.value_and_grad(loss_of, (0, 1), has_aux=True)(params, taps)
        params, state = program.applied(params, state, grads[0])
        return params, state, loss, told, (grads[0], grads[1], outputs, units)

    def step(params: Any, state: Any, batch: Any) -> Any:
        *result, recorder.seen = seeing(params, state, batch)
        return tuple(result)

    program.step = step
    with np.errstate(all="ignore"):
        program.train(recorder)
    return trace


def _taps(program: JaxProgram) -> dict[str, jax.Array]:
    """Returns zeros in the shapes of all outputs."""
    batch = arrays(micro_batches(program.recipe)[0][0], 0)

    def outputs(params: Any, batch: Any) -> Any:
        points = Points(program.recipe, batch[3], {})
        program.loss_of(params, batch, points)
        return points.outputs

    shapes = jax.eval_shape(outputs, program.params, batch)
    return {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}


def _numpy(tree: dict[str, Any]) -> dict[str, Array]:
    return {name: np.asarray(leaf, np.float32) for name, leaf in tree.items()}
