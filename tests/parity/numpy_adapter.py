"""An adapter as a third party would write it, for training loops of plain numpy."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from gradwatch.plugins import Session
from gradwatch.record import Block, Resolved, Site, StepRecord
from gradwatch.statistics import concatenate, measure
from tests.parity.numpy_network import Descent, Step
from tests.parity.problem import Array

F = TypeVar("F", bound=Callable[..., Any])


class NumpyAdapter:
    """Captures the steps of one ``Descent`` and measures its arrays with the core's slow definition."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._descent: Descent | None = None
        self._ended = 0
        self._started = time.perf_counter()

    def claims(self, *targets: Any) -> bool:
        """Tells whether this is one ``Descent``."""
        return len(targets) == 1 and isinstance(targets[0], Descent)

    def attach(self, session: Session, *targets: Any) -> None:
        """Starts capture."""
        (self._descent,) = targets
        self._session = session
        session.sites.optimizers.append("")
        session.sites.set_order(f"layers.{i}" for i in range(targets[0].depth))
        self._listener = session.recorder.guard.wrap(self._end)
        targets[0].listeners.append(self._listener)

    def detach(self) -> None:
        """Stops capture; safe to call twice."""
        descent, self._descent = self._descent, None
        if descent is not None:
            descent.listeners.remove(self._listener)

    def step(self) -> None:
        """Does nothing: every step is seen."""

    def decorate(self, function: F) -> F:
        """Returns the step as it is."""
        return function

    def scalar(self, value: Any) -> Callable[[], float] | None:
        """Returns a reader of a numpy scalar, or None."""
        return functools.partial(float, value) if isinstance(value, np.number) else None

    def world(self) -> tuple[int, int] | None:
        """Knows of no other processes."""
        return None

    def facts(self) -> Mapping[str, Any]:
        """Returns the framework and its version."""
        return {"framework": "numpy", "framework_version": np.__version__}

    def _end(self, step: Step) -> None:
        session = self._session
        assert session is not None
        plan = session.schedule.plan(self._ended)
        arrays = {
            "gradient": step.gradients,
            "update": step.updates,
            "weight": step.weights,
            "activation": step.activations,
            "activation_gradient": step.activation_gradients,
        }
        full = {"gradient": plan.histogram, "update": True, "weight": False}
        blocks = [self._block(s, arrays[s], full=full.get(s, True)) for s in arrays if s in plan.signals]
        at = time.perf_counter() - self._started
        suggested = {"loss": functools.partial(float, step.loss)}
        logged = {name: read() for name, read in session.scalars.end_step(self._ended, 0, at, suggested).items()}
        session.recorder.start()
        session.recorder.put(self._ended, Resolved(StepRecord(self._ended, 0, at, blocks=tuple(blocks), logged=logged)))
        self._ended += 1
        session.boundary()

    def _block(self, signal: str, arrays: Mapping[str, Array], *, full: bool) -> Block:
        assert self._session is not None
        ids = [self._session.sites.add(_site(signal, name, array)) for name, array in arrays.items()]
        rows = concatenate([measure(array, full=full) for array in arrays.values()])
        return Block(signal, np.array(ids, dtype=np.uint32), rows, "unscaled")


def _site(signal: str, name: str, array: Array) -> Site:
    if signal.startswith("activation"):
        return Site(signal, name, name.removesuffix(":input"), role="Affine")
    layer, _, role = name.rpartition(".")
    fan_in = array.shape[0] if array.ndim > 1 else None
    return Site(signal, name, layer, role, array.shape, array.size, fan_in=fan_in)
