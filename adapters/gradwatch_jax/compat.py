"""Everything that is private in JAX, in one place, with a test of itself at first use.

Written against jax 0.10. Where a later release has moved something, ``hooks`` returns False and gradients are found
through ``gradwatch_jax.value_and_grad`` alone.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Final

import jax
import jax._src.api as _api
from jax._src import core as _core

from gradwatch.guard import log

Done = Callable[[Any, Any], None]
"""Takes the value that was differentiated and the tuple of gradients."""

Listener = Callable[[Callable[..., Any], tuple[Any, ...]], tuple[Callable[..., Any], Done]]
"""Takes a function and its arguments before it is differentiated; returns what is to be differentiated instead, and
what to call with the result."""

LOOPS: Final = frozenset({"scan", "fori_loop", "while_body", "while_cond"})

_EVERY_TRACE = jax.make_user_context(default_value=None)
_CALLER: Final = "value_and_grad_f"


def current_trace() -> Any:
    """Returns the trace in which operations are staged now."""
    return _core.trace_ctx.trace


def outside_any_trace() -> bool:
    """Tells whether operations run at once: no jit, grad or vmap is around."""
    return bool(_core.trace_state_clean())


def in_trace(trace: Any) -> AbstractContextManager[Any]:
    """Stages operations in another, enclosing trace."""
    manager: AbstractContextManager[Any] = _core.set_current_trace(trace)
    return manager


def fresh_context(number: int) -> AbstractContextManager[Any]:
    """Makes nested jits that were traced before trace again: the number is part of their caches' keys."""
    manager: AbstractContextManager[Any] = _EVERY_TRACE(number)
    return manager


def between(inner: Any, outer: Any) -> list[str] | None:
    """Returns the kinds of the traces from the inner one up to, not with, the outer one; None when it is not inside.

    A kind is what was being traced (``jit``, ``scan``, ``cond``), or ``grad``, ``jvp``, ``vmap``, or a class name.
    """
    kinds, trace = [], inner
    while trace is not None and trace is not outer:
        kinds.append(_kind(trace))
        trace = getattr(trace, "parent_trace", None)
    return kinds if trace is outer else None


def manual_axes() -> bool:
    """Tells whether we are inside a ``shard_map`` or ``pmap``, where no state can leave the program."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def carried(tracer: Any, outer: Any) -> bool:
    """Tells whether an array belongs to the loops around us rather than to what is outside them."""
    inside, last, trace = [], 0, current_trace()
    while trace is not None and trace is not outer:
        inside.append(trace)
        last = len(inside) if _kind(trace) in LOOPS else last
        trace = getattr(trace, "parent_trace", None)
    return any(getattr(tracer, "_trace", None) is trace for trace in inside[:last])


def peeled(array: Any, outer: Any) -> Any:
    """Returns the array of the outer trace below what ``grad`` and ``vmap`` wrap around it; None if it is not one.

    Of an array inside ``vmap`` that is the whole array, over all examples.
    """
    while isinstance(array, jax.core.Tracer) and array._trace is not outer:
        if type(array).__name__ == "BatchTracer":
            array = array.val
        elif type(array).__name__ == "LinearizeTracer":
            array = array.primal
        else:
            return None
    return array if isinstance(array, jax.Array) else None


def is_deleted(array: Any) -> bool:
    """Tells whether an array was donated, so that its elements are gone."""
    return isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer) and array.is_deleted()


def equations() -> list[Any]:
    """Returns the operations of the current trace so far; none outside a trace."""
    frame = getattr(current_trace(), "frame", None)
    return [] if frame is None else list(frame.get_eqns())


def variable(tracer: Any) -> Any:
    """Returns how an array is called in its trace's operations, or None."""
    return getattr(tracer, "val", None)


def jit_kind(function: Any) -> str | None:
    """Tells which jit made a function: "jax", "nnx", "equinox" or, for any other function, None."""
    if hasattr(function, "_jit_info") and hasattr(function, "__wrapped__"):
        return "jax"
    kind = type(function)
    if kind.__module__.startswith("flax.nnx") and hasattr(function, "jitted_fn"):
        return "nnx"
    if kind.__module__.startswith("equinox") and hasattr(function, "_dynamic_fun"):
        return "equinox"
    return None


def is_compiled(function: Any) -> bool:
    """Tells whether a step was lowered or compiled ahead of time, so that nothing can be added to it."""
    return isinstance(function, (jax.stages.Compiled, jax.stages.Lowered))


def jit_options(function: Any) -> dict[str, Any]:
    """Returns the options with which ``jax.jit`` made a function, as arguments of ``jax.jit``."""
    info = function._jit_info
    options = {
        "static_argnums": info.static_argnums,
        "static_argnames": info.static_argnames,
        "donate_argnums": info.donate_argnums,
        "donate_argnames": info.donate_argnames,
        "keep_unused": info.keep_unused,
        "inline": info.inline,
        "compiler_options": dict(info.compiler_options_kvs) or None,
    }
    if info.user_specified_in_shardings:
        options["in_shardings"] = info.in_shardings_treedef.unflatten(info.in_shardings_leaves)
    if any(not _unspecified(leaf) for leaf in info.out_shardings_leaves):
        options["out_shardings"] = info.out_shardings_treedef.unflatten(info.out_shardings_leaves)
    return options


def nnx_options(function: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Returns the function below an ``nnx.jit``, and the options, as arguments of ``nnx.jit``."""
    options = jit_options(function.jitted_fn)
    del options["compiler_options"]
    for name in ("in_shardings", "out_shardings"):
        options.pop(name, None)
        if getattr(function, name) is not None:
            options[name] = getattr(function, name)
    if type(function).__name__ == "SimpleJitWrapped":
        options |= {"graph": function.graph, "graph_updates": False}
    return function.fun, options


def jax_jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Is ``jax.jit``."""
    return jax.jit(function, **options)


def nnx_jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Is ``nnx.jit``, imported only for a step that was made with it."""
    from flax import nnx  # noqa: PLC0415

    made: Callable[..., Any] = nnx.jit(function, **options)
    return made


def equinox_jit(function: Callable[..., Any], like: Any) -> Callable[..., Any]:
    """Is ``eqx.filter_jit`` with the donation of another function that it made."""
    import equinox  # noqa: PLC0415

    how = "none"
    if like.donate_rest:
        how = ("all" if like.filter_warning else "warn") + ("" if like.donate_first else "-except-first")
    jit: Any = equinox.filter_jit
    made: Callable[..., Any] = jit(function, donate=how)
    return made


patching = threading.RLock()
"""Held while classes of other libraries are changed."""

_lock = threading.Lock()
_users = 0
_original: list[Callable[..., Any]] = []
_active: ContextVar[Listener | None] = ContextVar("gradwatch_listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Lets the listener see every gradient that this thread takes within the block."""
    token = _active.set(listener)
    try:
        yield
    finally:
        _active.reset(token)


def active() -> Listener | None:
    """Returns the listener of this thread."""
    return _active.get()


def install() -> None:
    """Makes gradients visible to listeners; to be called once for each ``uninstall``."""
    global _users  # noqa: PLW0603
    works = hooks()
    with _lock:
        _users += 1
        if works and not _original:
            _hook()


def uninstall() -> None:
    """Puts JAX's own function back when nobody needs it any more."""
    global _users  # noqa: PLW0603
    with _lock:
        _users -= 1
        if _users == 0:
            _unhook()


@functools.cache
def hooks() -> bool:
    """Tests at first use whether gradients can be seen without an edit of the program; says so once if not."""
    seen: list[Any] = []

    def listener(function: Any, primals: tuple[Any, ...]) -> tuple[Any, Done]:
        return function, lambda value, gradients: seen.append((primals, value, gradients))

    with _lock:
        try:
            _hook()
            with listening(listener):
                jax.make_jaxpr(lambda x: jax.grad(lambda y: y * y)(x) + len(between(current_trace(), None) or ()))(1.0)
        except Exception:
            seen.clear()
        finally:
            _unhook()
    if not seen:
        log.warning(
            "gradwatch: gradients cannot be seen from outside in jax %s; take them with "
            "gradwatch_jax.value_and_grad in place of jax.value_and_grad.",
            jax.__version__,
        )
    return bool(seen)


def _hook() -> None:
    original = _api.vjp

    @functools.wraps(original)
    def vjp(function: Any, *primals: Any, **options: Any) -> Any:
        listener = _active.get()
        if listener is None or sys._getframe(1).f_code.co_name != _CALLER:
            return original(function, *primals, **options)
        function, done = listener(function, primals)
        value, pullback, *auxiliary = original(function, *primals, **options)

        def told(cotangent: Any) -> Any:
            gradients = pullback(cotangent)
            done(value, gradients)
            return gradients

        return (value, told, *auxiliary)

    _original.append(original)
    _api.vjp = vjp  # type: ignore[assignment]


def _unhook() -> None:
    if _original:
        _api.vjp = _original.pop()


def _kind(trace: Any) -> str:
    frame = getattr(trace, "frame", None)
    if frame is not None:
        return str(getattr(frame.debug_info, "traced_for", "jit"))
    name = type(trace).__name__
    return {"LinearizeTrace": "grad", "JVPTrace": "jvp", "BatchTrace": "vmap"}.get(name, name)


def _unspecified(leaf: Any) -> bool:
    return leaf is None or type(leaf).__name__ == "UnspecifiedValue"
