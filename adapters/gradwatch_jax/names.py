"""What layers and parameters are called: dotted paths as in every framework, from the paths of JAX's trees."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import jax
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

from gradwatch_jax.fans import fan_in

Path = tuple[Any, ...]

_WRAPPED: Final = re.compile(r"^states\.\d+\.")
"""Flax NNX keeps the differentiated module in a list of states."""

_NORM: Final = re.compile(r"norm", re.IGNORECASE)
_EMBEDDING: Final = re.compile(r"embed", re.IGNORECASE)
_BIASES: Final = frozenset({"bias", "b", "offset", "beta"})
_SCALES: Final = frozenset({"scale", "gamma"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """A differentiated array.

    Attributes:
        name: dotted path, ``blocks.3.attn.kernel``; an array of a nameless tuple is ``[0].0``.
        layer: the path without the last part.
        role: one of ``gradwatch.record.ROLES``.
        shape, dtype, size: of the array; size in elements.
        fan_in: that of a site, see ``gradwatch.record.Site``.
    """

    name: str
    layer: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    fan_in: int | None = None


def parameter(path: Path, array: Any, root: str = "") -> Parameter:
    """Returns the description of an array at a path of the differentiated tree; ``root`` names an unnamed layer."""
    return described(dotted(path), tuple(array.shape), str(array.dtype), root)


def described(name: str, shape: tuple[int, ...], dtype: str, root: str = "") -> Parameter:
    """Returns the description of an array of this dotted name, which may be empty."""
    layer, _, own = name.rpartition(".")
    layer = layer or root or name or "parameter"
    role, inputs = _role(layer, own, shape), fan_in(layer, own, shape)
    return Parameter(name or own or layer, layer, role, shape, dtype, math.prod(shape), inputs)


def with_siblings(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Tells from a bias beside it that a layer called after an embedding is none: ``patch_embed`` with its bias."""
    biased = {p.layer for p in parameters if p.name.rpartition(".")[2].lower() in _BIASES}
    return [_no_table(p) if p.role == "embedding" and p.layer in biased else p for p in parameters]


def _no_table(parameter: Parameter) -> Parameter:
    own = parameter.name.rpartition(".")[2]
    if "embedding" in own.lower() or len(parameter.shape) < 2:
        return parameter
    return replace(parameter, role="weight", fan_in=fan_in("", own, parameter.shape))


def dotted(path: Path) -> str:
    """Returns the dotted form of a path of keys, without the collections and wrappers around the parameters."""
    parts: list[str] = []
    for key in path:
        parts.extend(_parts(key, first=not parts))
    name = _WRAPPED.sub("", ".".join(parts))
    name = name.removeprefix("params.").removesuffix(".value").removesuffix(".raw_value")
    return "" if name in ("params", "value") else name


def root_name(tree: Any) -> str:
    """Returns the class name of a model, or "" for containers, whose arrays stand for themselves."""
    kind = type(tree)
    return "" if kind.__module__ in ("builtins", "collections") or kind.__name__ in _CONTAINERS else kind.__name__


_CONTAINERS: Final = frozenset({"FrozenDict", "NodeStates", "State", "FlatMapping"})


def natural(name: str) -> tuple[Any, ...]:
    """Returns a key that sorts ``Dense_10`` behind ``Dense_2``."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name))


def leaves(tree: Any) -> list[tuple[Path, Any]]:
    """Returns the arrays of a tree with their paths."""
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _parts(key: Any, *, first: bool) -> list[str]:
    if isinstance(key, DictKey):
        # haiku: "mlp/~/linear_0"; its "~" stands for methods.
        return [part for part in str(key.key).split("/") if part not in ("", "~")]
    if isinstance(key, GetAttrKey):
        return [key.name]
    if isinstance(key, (SequenceKey, FlattenedIndexKey)):
        index = key.idx if isinstance(key, SequenceKey) else key.key
        return [f"[{index}]" if first else str(index)]
    return [str(key)]


def _role(layer: str, own: str, shape: tuple[int, ...]) -> str:
    own = own.lower()
    if "embedding" in own or (_EMBEDDING.search(layer.rpartition(".")[2]) and len(shape) > 1):
        return "embedding"
    if _NORM.search(layer.rpartition(".")[2]) or own in _SCALES:
        return "norm"
    if len(shape) > 1:
        return "weight"
    if own in _BIASES or own.isdigit():
        return "bias"
    if int(shape == ()) or shape == (1,):
        return "scalar"
    return "bias" if "bias" in own else "norm"
