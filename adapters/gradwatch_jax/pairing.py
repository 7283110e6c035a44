"""Which of the step's results are the parameters that went in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jax.tree_util import SequenceKey

from gradwatch_jax.names import Path, leaves

Leaves = Mapping[Path, Any]

_ARGUMENTS: Final = (SequenceKey(0),)
_RESULT: Final = (SequenceKey(1),)


def arrays(tree: Any) -> dict[Path, Any]:
    """Returns the arrays of a tree by path."""
    return {path: leaf for path, leaf in leaves(tree) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")}


def paths_in(differentiated: Sequence[tuple[Path, Any]], arguments: Leaves) -> list[Path] | None:
    """Returns where the differentiated arrays stand among the step's arguments.

    They are the same objects when the gradient is taken in the step itself. In a nested function they are not, and are
    found where all of their paths meet arrays of the same shapes; None when they are not found at all.
    """
    known = {id(leaf): path for path, leaf in arguments.items()}
    found = [known.get(id(leaf)) for _, leaf in differentiated]
    if all(path is not None for path in found):
        return [path for path in found if path is not None]
    prefix = _common_prefix(differentiated, arguments, frozenset())
    return None if prefix is None else [prefix + path for path, _ in differentiated]


def paths_out(inside: Sequence[Path], before: Leaves, after: Leaves, gradients: frozenset[int]) -> list[Path] | None:
    """Returns where the arrays that went in at these paths come out; None when they do not.

    Args:
        inside: their paths in ``(args, kwargs)``.
        before: the arrays of ``(args, kwargs)`` when the step began.
        after: the arrays of ``((args, kwargs), result)`` when it ended; a step may have changed its arguments in place.
        gradients: ids of arrays that are gradients, which look like parameters.
    """
    in_place = [_ARGUMENTS + path for path in inside]
    if all(out in after and after[out] is not before[at] for at, out in zip(inside, in_place, strict=True)):
        return in_place
    results = {path: leaf for path, leaf in after.items() if path[:1] == _RESULT}
    for cut in range(2, min(len(path) for path in inside) + 1):
        suffixes = [(path[cut:], before[path]) for path in inside]
        prefix = _common_prefix(suffixes, results, gradients)
        if prefix is not None:
            return [prefix + path for path, _ in suffixes]
    return None


def _common_prefix(wanted: Sequence[tuple[Path, Any]], among: Leaves, excluded: frozenset[int]) -> Path | None:
    """Returns the shortest prefix below which every wanted path has an array of the same shape and dtype."""
    first, array = wanted[0]
    ends = [path for path, leaf in among.items() if _ends(path, first) and _like(leaf, array)]
    prefixes = [path[: len(path) - len(first)] for path in ends]
    for prefix in sorted(prefixes, key=len):
        below = [(among.get(prefix + path), like) for path, like in wanted]
        if all(leaf is not None and _like(leaf, like) and id(leaf) not in excluded for leaf, like in below):
            return prefix
    return None


def _ends(path: Path, suffix: Path) -> bool:
    return len(suffix) <= len(path) and path[len(path) - len(suffix) :] == suffix


def _like(one: Any, other: Any) -> bool:
    return bool(one.shape == other.shape and one.dtype == other.dtype)
