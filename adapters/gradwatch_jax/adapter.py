"""Attaches capture to a train step of JAX, and takes it off again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from gradwatch.errors import GradwatchError
from gradwatch.plugins import Session
from gradwatch_jax import compat, remarks
from gradwatch_jax.step import WatchedStep

F = TypeVar("F", bound=Callable[..., Any])


class JaxAdapter:
    """Captures train steps: functions made by ``jax.jit``, ``nnx.jit`` or ``eqx.filter_jit``, and plain ones."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._steps: list[WatchedStep] = []

    def claims(self, *objects: Any) -> bool:
        """Tells whether this is one function."""
        return len(objects) == 1 and (_is_function(objects[0]) or compat.is_compiled(objects[0]))

    def attach(self, session: Session, *objects: Any) -> None:
        """Starts capture.

        Raises:
            GradwatchError: for a step that was compiled ahead of time.
        """
        for step in objects:
            if compat.is_compiled(step):
                raise GradwatchError(remarks.COMPILED.format(kind=type(step).__name__))
        self._session = session
        compat.install()

    def detach(self) -> None:
        """Lets decorated steps run as they were, and puts JAX's function back; safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            compat.uninstall()
        for step in self._steps:
            step.stop()
        self._steps.clear()

    def step(self) -> None:
        """Does nothing: every call of the decorated function is a step."""

    def decorate(self, function: F) -> F:
        """Returns the train step with capture added; signature, results, donation and shardings are kept.

        The decorated step raises GradwatchError when it is called inside a transformation such as ``jax.jit``.
        """
        assert self._session is not None
        watched = WatchedStep(function, self._session)
        self._steps.append(watched)

        @functools.wraps(function)
        def step(*args: Any, **kwargs: Any) -> Any:
            return watched(args, kwargs)

        return step  # type: ignore[return-value]

    def scalar(self, value: Any) -> Callable[[], float] | None:
        """Returns a reader of an array of one element, or None."""
        if isinstance(value, jax.Array) and value.size == 1 and jax.numpy.issubdtype(value.dtype, np.number):
            value.copy_to_host_async()
            return lambda: float(np.asarray(value).reshape(()))
        return None

    def world(self) -> tuple[int, int] | None:
        """Returns the index of this process and their number once ``jax.distributed`` is initialized."""
        if jax.distributed.is_initialized():
            return jax.process_index(), jax.process_count()
        return None

    def facts(self) -> Mapping[str, Any]:
        """Returns the framework and its version."""
        return {"framework": "JAX", "framework_version": jax.__version__}


def _is_function(value: Any) -> bool:
    return callable(value) and (
        inspect.isroutine(value) or isinstance(value, functools.partial) or compat.jit_kind(value) is not None
    )
