"""Listening to functions of torch that offer no hook: replaced while anyone listens, put back afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils import clip_grad

Listener = Callable[[tuple[Any, ...], dict[str, Any]], None]


@dataclass
class Interception:
    """One function of torch; listeners are called with its arguments, before it and after it returned."""

    owner: Any
    name: str
    _before: tuple[Listener, ...] = ()
    _after: tuple[Listener, ...] = ()
    _original: Any = None
    _replacement: Any = None

    def listen(self, before: Listener | None = None, after: Listener | None = None) -> Callable[[], None]:
        """Starts listening; returns the function that ends it. Listeners must not raise."""
        if not (self._before or self._after):
            self._replace()
        self._before += () if before is None else (before,)
        self._after += () if after is None else (after,)

        def end() -> None:
            if before in self._before or after in self._after:
                self._before = tuple(listener for listener in self._before if listener is not before)
                self._after = tuple(listener for listener in self._after if listener is not after)
                if not (self._before or self._after):
                    self._restore()

        return end

    def _replace(self) -> None:
        original = getattr(self.owner, self.name, None)
        if original is None:
            return

        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            if self._replacement is not replacement:
                return original(*args, **kwargs)
            for before in self._before:
                before(args, kwargs)
            result = original(*args, **kwargs)
            for after in self._after:
                after(args, kwargs)
            return result

        self._original, self._replacement = original, replacement
        setattr(self.owner, self.name, replacement)

    def _restore(self) -> None:
        # Someone may have wrapped ours since: then ours stays, and calls nobody, also when another replaces theirs.
        if self._replacement is not None and getattr(self.owner, self.name) is self._replacement:
            setattr(self.owner, self.name, self._original)
        self._original = self._replacement = None


backward = Interception(torch.Tensor, "backward")
"""``loss.backward()``: its root is the loss whose gradient is taken."""

scaler_step = Interception(torch.amp.GradScaler, "step")
"""``scaler.step(optimizer)``: finds the scaler, and tells when it skipped the optimizer's step."""

clip = Interception(clip_grad, "_clip_grads_with_norm_")
"""What ``clip_grad_norm_`` calls with the norm it found; seen also where that name was imported early. A private name
of torch 2.6 and later: without it, clipped gradients are not labelled."""
