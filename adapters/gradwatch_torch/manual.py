"""Loops that update their parameters without an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from gradwatch_torch.activations import Captures
from gradwatch_torch.capture import OptimizerCapture
from gradwatch_torch.pending import PendingStep

Mark = list[tuple[int, tuple[int, int] | None]]


class ManualLoop:
    """Ends a step when, after a backward, a parameter changes in place or its gradient is cleared.

    Gradients are read after each backward, because nothing tells of the update that follows; that step is handed over
    when the next backward finds it ended. Several backwards without an update between them are one step.
    """

    def __init__(self, capture: Callable[[], OptimizerCapture | None], parameters: Callable[[], list[Tensor]]) -> None:
        """Prepares.

        Args:
            capture: gives the capture of the loop's steps, or None while an optimizer or the user ends the steps.
            parameters: gives the watched parameters.
        """
        self._capture = capture
        self._parameters = parameters
        self._pending: PendingStep | None = None
        self._mark: Mark = []

    def before_backward(self, _: tuple[Any, ...], __: dict[str, Any]) -> None:
        """Ends the step of the backward before, if it was applied or thrown away."""
        self.end()

    def after_backward(self, _: tuple[Any, ...], __: dict[str, Any]) -> None:
        """Reads the gradients."""
        capture = self._capture()
        if capture is None:
            self._pending = None
            return
        parameters = self._parameters()
        self._pending = capture.read_by_hand(parameters, self._pending)
        self._mark = _mark(parameters)

    def give_up(self) -> Captures:
        """Forgets what was read; returns the activations that were taken for it."""
        pending, self._pending = self._pending, None
        return {} if pending is None else pending.captures

    def end(self) -> None:
        """Hands the step over, if it has ended."""
        capture, pending = self._capture(), self._pending
        if capture is not None and pending is not None and _has_ended(self._mark, _mark(self._parameters())):
            self._pending = None
            capture.end_by_hand(pending)


def _mark(parameters: Sequence[Tensor]) -> Mark:
    return [
        (p._version, None if (gradient := p.grad) is None else (id(gradient), gradient._version)) for p in parameters
    ]


def _has_ended(before: Mark, now: Mark) -> bool:
    if len(before) != len(now):
        return True
    return any(
        old[0] != new[0] or (old[1] is not None and old[1] != new[1]) for old, new in zip(before, now, strict=True)
    )
