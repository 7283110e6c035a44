"""Sees the calls of layers of Flax linen, Flax NNX and Equinox while a step is traced."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax

from gradwatch_jax import compat

Handler = Callable[[Callable[..., Any], Any, str | None, tuple[Any, ...], dict[str, Any]], Any]
"""Takes the call of a layer, the layer, its dotted path if the framework tells it, and the arguments."""


@contextmanager
def intercepted(handler: Handler) -> Iterator[None]:
    """Lets the handler call the layers within the block; afterwards the classes are as they were."""
    with ExitStack() as stack:
        linen = sys.modules.get("flax.linen")
        if linen is not None:
            stack.enter_context(linen.intercept_methods(functools.partial(_linen, handler)))
        for name, module in (("flax.nnx", "Module"), ("equinox", "Module")):
            if name in sys.modules:
                stack.enter_context(_wrapped_classes(getattr(sys.modules[name], module), handler))
        yield


def own_arrays(module: Any) -> list[Any]:
    """Returns the arrays that a layer holds itself, not those of layers in it."""
    nnx = sys.modules.get("flax.nnx")
    variable = nnx.Variable if nnx is not None else ()
    values = [value for value in vars(module).values() if isinstance(value, (jax.Array, variable))]
    return jax.tree.leaves(values)


def first_array(values: Any) -> Any:
    """Returns a floating-point array if it is one, or is the first of a call's positional arguments; else None."""
    value = values[0] if isinstance(values, tuple) and values else values
    floating = isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.numpy.floating)
    return value if floating and value.size else None


def _linen(
    handler: Handler, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
) -> Any:
    if context.method_name != "__call__":
        return call(*args, **kwargs)
    return handler(call, context.module, ".".join(context.module.path), args, kwargs)


@contextmanager
def _wrapped_classes(base: type[Any], handler: Handler) -> Iterator[None]:
    with compat.patching:
        originals = {kind: kind.__dict__["__call__"] for kind in _below(base) if "__call__" in kind.__dict__}
        for kind, original in originals.items():
            kind.__call__ = _wrapper(original, handler)
        try:
            yield
        finally:
            for kind, original in originals.items():
                kind.__call__ = original


def _wrapper(original: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return handler(functools.partial(original, self), self, None, args, kwargs)

    return call


def _below(base: type[Any]) -> set[type[Any]]:
    found: set[type[Any]] = set()
    waiting = [base]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            if kind not in found:
                found.add(kind)
                waiting.append(kind)
    return found
