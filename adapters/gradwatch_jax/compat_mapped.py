"""Everything that is private in ``jax.shard_map``: how arrays of ours leave it, and what its operations tell.

Written against jax 0.10. A ``shard_map`` is opened when it is called, so it does not matter when it was made. Where a
release has moved something, it runs as the user wrote it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import jax
from jax.sharding import PartitionSpec

from gradwatch_jax import compat

_primitive: Any
_FlatTree: Any
try:
    from jax._src.shard_map import shard_map_p as _primitive
    from jax._src.tree_util import FlatTree as _FlatTree
except ImportError:
    _primitive = _FlatTree = None


class Region(Protocol):
    """The inside of one ``shard_map`` while it is traced."""

    def entered(self, shards: Sequence[Any]) -> None:
        """Is told the arguments inside, at its beginning."""

    def leaving(self) -> Sequence[tuple[Any, PartitionSpec]]:
        """Returns the arrays that shall leave it beside its results, and how they are spread; called at its end."""

    def left(self, arrays: Sequence[Any]) -> None:
        """Is told these arrays as they are outside."""

    def failed(self, error: Exception) -> None:
        """Is told that nothing of ours could leave."""


Opener = Callable[[Sequence[Any], Sequence[PartitionSpec], dict[str, int], bool], "Region | None"]
"""Takes the arguments of a ``shard_map``, how each is spread, the sizes of the axes it maps over, and whether it checks
what varies over them; returns None where it is to run unopened."""

_lock = threading.Lock()
_users = 0
_opener: ContextVar[Opener | None] = ContextVar("gradwatch_opener", default=None)


@contextmanager
def opening(opener: Opener) -> Iterator[None]:
    """Lets the opener decide over every ``shard_map`` that this thread calls within the block."""
    token = _opener.set(opener)
    _count(1)
    try:
        yield
    finally:
        _count(-1)
        _opener.reset(token)


def varying(array: Any, axes: frozenset[str], *, checked: bool) -> frozenset[str]:
    """Returns the axes over which an array may differ: all where that is not checked."""
    if not checked:
        return axes
    kind = jax.typeof(array)
    found: frozenset[str] = kind.vma if hasattr(kind, "vma") else kind.mat.varying
    return found & axes


def is_pmapped(function: Any) -> bool:
    """Tells whether ``jax.pmap`` made a function."""
    made_in: str = getattr(function, "__globals__", {}).get("__name__", "")
    return made_in == getattr(jax.pmap, "__wrapped__", jax.pmap).__module__ and made_in.startswith("jax._src.")


def operations() -> list[Any]:
    """Returns the operations of the current trace so far, with their tracers; none outside a trace."""
    found = getattr(getattr(compat.current_trace(), "frame", None), "tracing_eqns", ())
    alive = [eqn if hasattr(eqn, "primitive") else eqn() for eqn in found]
    return [eqn for eqn in alive if hasattr(eqn, "in_tracers")]


def constrained() -> bool:
    """Tells whether the current trace has placed an array on devices so far."""
    return any(operation.primitive.name == "sharding_constraint" for operation in operations())


def result(like: Any, operation: Any, position: int) -> Any:
    """Returns a result of an operation as an array of the trace of another array."""
    variable = operation.outvars[position]
    return type(like)(like._trace, variable.aval, variable, parent=operation)


def literal(tracer: Any) -> float | None:
    """Returns the number that an operand is, or None."""
    value = getattr(compat.variable(tracer), "val", None)
    return None if value is None or getattr(value, "shape", ()) != () else float(value)


def _count(change: int) -> None:
    global _users  # noqa: PLW0603
    with _lock:
        _users += change
        if _primitive is not None and _users == change == 1:
            _primitive.bind = _bind
        if _primitive is not None and _users == 0:
            del _primitive.bind


def _bind(*args: Any, subfuns: Any = (), **parameters: Any) -> Any:
    original = type(_primitive).bind.__get__(_primitive)
    opener = _opener.get()
    region = None if opener is None else opener(args, *_described(parameters))
    if region is None:
        return original(*args, subfuns=subfuns, **parameters)
    opened = _Opened(region, *subfuns)
    try:
        out = original(*args, subfuns=(opened,), **parameters)
    except Exception as error:
        if not opened.added:
            raise
        out, failure = original(*args, subfuns=subfuns, **parameters), error
        region.failed(failure)
        return out
    if not opened.added:
        return out
    results, more = out.unpack()
    region.left(more.vals)
    return results


def _described(parameters: dict[str, Any]) -> tuple[Sequence[PartitionSpec], dict[str, int], bool]:
    sizes = dict(parameters["mesh"].shape)
    axes = {name: sizes[name] for name in sorted(parameters["newly_manual_axes"])}
    return parameters["in_specs"], axes, parameters["check_vma"]


class _Opened:
    """The body of a ``shard_map`` with further results."""

    def __init__(self, region: Region, body: Callable[..., Any]) -> None:
        self._region, self._body = region, body
        self.added = False

    def __call__(self, *shards: Any) -> Any:
        self._region.entered(shards)
        found = self._body(*shards)
        more = self._region.leaving()
        self.added = bool(more)
        if not more:
            return found
        results, specs = found.unpack_aux()
        joined = _FlatTree.pack((results, _FlatTree.flatten([array for array, _ in more])))
        return joined.with_aux((*specs, *(spec for _, spec in more)))
