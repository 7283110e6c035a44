"""Loops in which a watched optimizer is never told to step."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from torch import Tensor
from torch.optim import Optimizer

from gradwatch.guard import Guard
from gradwatch_torch import interception
from gradwatch_torch.capture import OptimizerCapture

PATIENCE: Final = 10
"""Gradients that are thrown away before the first step until a loop counts as one that never steps: probing a model
before training takes fewer, and accumulation throws none away."""


class Unstepped:
    """Counts each gradient that is cleared unused as a step that was attempted, so that there is a run to judge.

    From ``PATIENCE`` cleared gradients on it reads gradients after each backward, and what became of the weights when
    the next one begins.
    """

    def __init__(
        self,
        captures: Mapping[int, OptimizerCapture],
        optimizers: Iterable[Optimizer],
        parameters: Callable[[], list[Tensor]],
    ) -> None:
        """Prepares.

        Args:
            captures: by the identity of their optimizers.
            optimizers: the watched ones.
            parameters: gives the watched parameters.
        """
        self._captures = captures
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._parameters = parameters
        self._versions: list[int] = []
        self._gradients: list[tuple[Tensor, int] | None] = []
        self._cleared = 0
        self._done = False

    def listen(self, guard: Guard) -> Callable[[], None]:
        """Starts to listen to backward passes; returns what ends it, which any optimizer's first step has to do."""
        return interception.backward.listen(guard.wrap(self._before_backward), guard.wrap(self._after_backward))

    def _before_backward(self, _: tuple[Any, ...], __: dict[str, Any]) -> None:
        """Counts the gradients of the backward before, if they were cleared."""
        reads = self._cleared >= PATIENCE
        if self._done or not self._gradients:
            return
        parameters = self._parameters()
        changed = [p._version for p in parameters] != self._versions
        if changed or (not reads and any(capture.ended for capture, _ in self._stepping())):
            self._done, self._gradients = True, []
            return
        if any(before is not None and _gone(p, *before) for p, before in zip(parameters, self._gradients, strict=True)):
            self._cleared += 1
            for capture, _optimizer in self._stepping() if reads else ():
                capture.after_step()

    def _after_backward(self, _: tuple[Any, ...], __: dict[str, Any]) -> None:
        """Reads the gradients, once it is clear that nothing steps."""
        if self._done:
            return
        parameters = self._parameters()
        self._versions = [p._version for p in parameters]
        self._gradients = [None if p.grad is None else (p.grad, p.grad._version) for p in parameters]
        if self._cleared >= PATIENCE:
            for capture, optimizer in self._stepping():
                capture.before_step(optimizer, (), {})

    def _stepping(self) -> list[tuple[OptimizerCapture, Optimizer]]:
        alive = [optimizer for reference in self._optimizers if (optimizer := reference()) is not None]
        return [(self._captures[id(optimizer)], optimizer) for optimizer in alive if id(optimizer) in self._captures]


def _gone(parameter: Tensor, gradient: Tensor, version: int) -> bool:
    return parameter.grad is not gradient or gradient._version != version
