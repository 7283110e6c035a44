"""Builds the step anew with one more input, the plan, and one more output, what was captured.

The options of the user's own jit are kept: static and donated arguments, shardings, compiler options.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from gradwatch_jax import compat
from gradwatch_jax.captured import Captured
from gradwatch_jax.packing import Packed

Run = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], tuple[Any, Captured | Packed]]
"""Runs a function under observation: takes it, the plan, args and kwargs; returns its result and what was captured."""

Instrumented = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[Any, Captured | Packed]]


def instrument(step: Any, run: Run) -> Instrumented | None:
    """Returns the step with plan and captured statistics; None for a function that is not compiled as a whole."""
    kind = compat.jit_kind(step)
    if kind == "equinox":
        return _equinox(step, run)
    if kind is None:
        return None
    return _jit(compat.nnx_jit if kind == "nnx" else compat.jax_jit, *_taken_apart(step, kind), run)


def is_spread(step: Any) -> bool:
    """Tells whether a step's own options, or the mesh that is set, may spread arrays over devices."""
    if not jax.sharding.get_abstract_mesh().empty:
        return True
    kind = compat.jit_kind(step)
    if jax.device_count() == 1 or kind not in ("jax", "nnx"):
        return False
    _, options = _taken_apart(step, kind)
    return "in_shardings" in options or "out_shardings" in options


def donates(step: Any) -> bool:
    """Tells whether a step gives up buffers of its arguments."""
    kind = compat.jit_kind(step)
    if kind == "equinox":
        return bool(step.donate_first or step.donate_rest)
    if kind is None:
        return False
    _, options = _taken_apart(step, kind)
    return bool(options["donate_argnums"] or options["donate_argnames"])


def _taken_apart(step: Any, kind: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Returns the function below a jit of JAX or NNX, and the jit's options."""
    return compat.nnx_options(step) if kind == "nnx" else (step.__wrapped__, compat.jit_options(step))


def _jit(jit: Callable[..., Any], inner: Callable[..., Any], options: dict[str, Any], run: Run) -> Instrumented:
    def traced(plan: Any, *args: Any, **kwargs: Any) -> tuple[Any, Captured | Packed]:
        return run(inner, plan, args, kwargs)

    _keep_name(traced, inner)
    options = _shifted(options)
    if "in_shardings" not in options:
        made = jit(traced, **options)
        return lambda plan, args, kwargs: made(plan, *args, **kwargs)

    @functools.cache
    def for_arguments(count: int) -> Callable[..., Any]:
        given = options["in_shardings"]
        shardings = tuple(given) if isinstance(given, (tuple, list)) else (given,) * count
        made: Callable[..., Any] = jit(traced, **{**options, "in_shardings": (None, *shardings)})
        return made

    return lambda plan, args, kwargs: for_arguments(len(args))(plan, *args, **kwargs)


def _shifted(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options for a function whose arguments stand one further to the right and that returns a pair."""
    shifted = dict(options)
    for name in ("static_argnums", "donate_argnums"):
        shifted[name] = tuple(i + 1 for i in options[name])
    if "out_shardings" in options:
        shifted["out_shardings"] = (options["out_shardings"], None)
    return shifted


def _equinox(step: Any, run: Run) -> Instrumented:
    """Equinox donates "all but the first argument", so the plan goes in with the first one."""
    inner, signature = step.__wrapped__, step._signature

    def traced(first: tuple[Any, ...], *args: Any, **kwargs: Any) -> tuple[Any, Captured | Packed]:
        plan, *head = first
        return run(inner, plan, (*head, *args), kwargs)

    _keep_name(traced, inner)
    made = compat.equinox_jit(traced, step)

    def call(plan: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Captured | Packed]:
        bound = signature.bind(*args, **kwargs)
        result: tuple[Any, Captured | Packed] = made((plan, *bound.args[:1]), *bound.args[1:], **bound.kwargs)
        return result

    return call


def _keep_name(traced: Callable[..., Any], inner: Callable[..., Any]) -> None:
    """Keeps the function's name, which profiles and compiler dumps show."""
    traced.__name__ = getattr(inner, "__name__", traced.__name__)
    traced.__qualname__ = getattr(inner, "__qualname__", traced.__qualname__)
