"""Reads layers' outputs and inputs, and the gradients at them, from the passes of the step.

A layer is known by its path (linen) or by the parameters it holds (NNX, Equinox), which are the very arrays that are
differentiated. Its output goes through an identity whose backward rule reads the gradient. An array inside a
``vmap`` is read as a whole, over all examples. Layers in a loop, a nested jit or a checkpointed function are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp

from gradwatch_jax import compat, custom_call, flags
from gradwatch_jax.captured import Tap
from gradwatch_jax.kernel import Rows, reduce
from gradwatch_jax.modules import first_array, intercepted, own_arrays

_BITS: Final = {"activation": flags.ACTIVATION, "activation_gradient": flags.ACTIVATION_GRADIENT}

MOST: Final = 16
"""Arrays that are read by one call: a call of its own for each of 1,000 takes a minute to compile, and each one that
waits for others lives a little longer."""


class Activations:
    """The layers of one trace of the step."""

    def __init__(
        self, signals: frozenset[str], plan: Any, trace: Any, guard: Callable[..., Any], *, grouped: bool
    ) -> None:
        """Begins with no rows.

        Args:
            signals: those of the run.
            plan: the encoded plan.
            trace: that of the step's program.
            guard: wraps a function so that its failure stays with us.
            grouped: see ``kernel.reduce``.
        """
        self._signals = [signal for signal in _BITS if signal in signals]
        self._taps: dict[str, list[Tap]] = {signal: [] for signal in self._signals}
        self._rows: dict[str, list[Rows]] = {signal: [] for signal in self._signals}
        self._waiting: dict[str, list[Any]] = {signal: [] for signal in self._signals}
        self._plan, self._trace, self._grouped = plan, trace, grouped
        self._read = guard(self._take, "activations")
        self._rest = guard(self._reduce_all, "activations")
        self._named = guard(self._layer_of, "activations")
        self._at = guard(self._base, "activations")
        self._seen: dict[int, Any] = {}
        self._open: list[Any] = []

    def observed(self, function: Callable[..., Any], layers: Mapping[int, str]) -> Callable[..., Any]:
        """Returns the function with its layers read.

        Args:
            function: what is differentiated.
            layers: the layer of each differentiated array, by the array's id.
        """
        if not self._signals:
            return function

        def run(*args: Any, **kwargs: Any) -> Any:
            with intercepted(handler):
                return function(*args, **kwargs)

        def handler(
            call: Callable[..., Any], module: Any, path: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            if any(module is known for known in self._open):
                return call(*args, **kwargs)  # a subclass calls the method of its base
            layer = self._named(module, path, layers)
            self._open.append(module)
            try:
                if layer is None:
                    return call(*args, **kwargs)
                kind = type(module).__name__
                incoming = first_array(args)
                if incoming is not None:
                    args = (self._tapped(Tap(f"{layer}:input", layer, kind, 0), incoming), *args[1:])
                result = call(*args, **kwargs)
                outgoing = None if isinstance(result, tuple) else first_array(result)
                return result if outgoing is None else self._tapped(Tap(layer, layer, kind, 0), outgoing)
            finally:
                self._open.pop()

        return run

    def rows(self) -> dict[str, tuple[tuple[Tap, ...], Rows]]:
        """Returns what was read of each signal, and its rows."""
        self._rest()
        return {
            signal: (tuple(taps), jax.tree.map(lambda *parts: jnp.concatenate(parts), *self._rows[signal]))
            for signal, taps in self._taps.items()
            if taps
        }

    def _tapped(self, tap: Tap, value: Any) -> Any:
        base = self._at(value)
        if base is None or id(base) in self._seen:
            return value
        if "activation" in self._signals:
            self._read("activation", tap, value)
        if "activation_gradient" in self._signals:
            value = self._probe(tap, value)
        for known in (base, self._at(value)):
            self._seen[id(known)] = known
        return value

    def _probe(self, tap: Tap, value: Any) -> Any:
        @jax.custom_vjp
        def identity(x: Any) -> Any:
            return x

        def forward(x: Any) -> tuple[Any, None]:
            return x, None

        def backward(_: None, gradient: Any) -> tuple[Any]:
            self._read("activation_gradient", tap, gradient)
            return (gradient,)

        identity.defvjp(forward, backward)
        return identity(value)

    def _base(self, value: Any) -> Any:
        return compat.peeled(value, self._trace)

    def _take(self, signal: str, tap: Tap, value: Any) -> None:
        """Has an array wait until there are enough for one call, where one call can read several."""
        base = compat.peeled(value, self._trace)
        if base is None:
            return
        waiting = self._waiting[signal]
        waiting.append((Tap(tap.name, tap.layer, tap.kind, int(base.size)), base))
        alone = not self._grouped or not custom_call.fits([base])
        if alone or len(waiting) >= MOST or sum(array.size for _, array in waiting) >= custom_call.SHARE:
            self._reduce(signal)

    def _reduce_all(self) -> None:
        for signal in self._signals:
            self._reduce(signal)

    def _reduce(self, signal: str) -> None:
        waiting, self._waiting[signal] = self._waiting[signal], []
        if not waiting:
            return
        taps, arrays = zip(*waiting, strict=True)
        with compat.in_trace(self._trace):
            wanted = (self._plan & _BITS[signal]) != 0
            rows = reduce(arrays, full=True, histogram=True, grouped=self._grouped, wanted=wanted)
        self._rows[signal].append(rows)
        self._taps[signal].extend(taps)

    def _layer_of(self, module: Any, path: str | None, layers: Mapping[int, str]) -> str | None:
        if path is not None:
            return path if path in layers.values() else None
        bases = [compat.peeled(array, self._trace) for array in own_arrays(module)]
        return next((layers[id(base)] for base in bases if id(base) in layers), None)
