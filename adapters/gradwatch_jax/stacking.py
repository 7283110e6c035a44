"""Layers that are stacked: arrays that a scan takes apart along their first axis, one slice for each of equal layers.

So it is in ``flax.linen.scan``, ``flax.nnx.scan`` and loops of one's own. Each slice is a parameter of its own:
``blocks.kernel`` of shape [12, 64, 64] is blocks.0.kernel to blocks.11.kernel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gradwatch_jax.names import Parameter, described

MOST_LAYERS: Final = 256
"""Slices beyond which a first axis is no depth."""
_UNNAMED: Final = re.compile(r"(?!Scan)[A-Z]\w*_\d+")
"""What linen calls layers by itself; the scanned block is called ``ScanBlock_0``."""


@dataclass(frozen=True, slots=True)
class Row:
    """A parameter as it is reported.

    Attributes:
        parameter: its description.
        leaf: position of the array.
        index: of the slice, or None for the whole array.
    """

    parameter: Parameter
    leaf: int
    index: int | None = None

    def of(self, arrays: Sequence[Any]) -> Any:
        """Returns the parameter's part of one of several parallel lists of arrays."""
        array = arrays[self.leaf]
        return array if self.index is None else array[self.index]


def rows(parameters: Sequence[Parameter], order: Sequence[int], walks: Sequence[Sequence[int]]) -> list[Row]:
    """Returns the rows in the order of use: slice by slice where arrays are stacked.

    A scan over arrays of which none has slices of two dimensions walks along something else: a table of positions, say.

    Args:
        parameters: descriptions of the whole arrays.
        order: all their positions, in the order of use.
        walks: the positions of those that each scan takes apart.
    """
    stack_of: dict[int, list[int]] = {}
    for walk in walks:
        shapes = [parameters[i].shape for i in walk]
        if max(map(len, shapes)) > 2 and shapes[0][0] <= MOST_LAYERS:
            stack = [i for i in order if i in walk and i not in stack_of]
            stack_of.update(dict.fromkeys(stack, stack))
    found: list[Row] = []
    for i in order:
        stack = stack_of.get(i, [])
        if not stack:
            found.append(Row(parameters[i], i))
        elif i == stack[0]:
            found.extend(_slices(parameters, stack))
    return found


def _slices(parameters: Sequence[Parameter], stack: Sequence[int]) -> list[Row]:
    depth = parameters[stack[0]].shape[0]
    cut = _depth([parameters[i].name.split(".")[:-1] for i in stack])
    return [Row(_slice(parameters[i], cut, at), i, at) for at in range(depth) for i in stack]


def _slice(parameter: Parameter, cut: int, at: int) -> Parameter:
    parts = parameter.name.split(".")
    return described(".".join([*parts[:cut], str(at), *parts[cut:]]), parameter.shape[1:], parameter.dtype)


def _depth(paths: Sequence[Sequence[str]]) -> int:
    """Returns how many first parts name the stack: those that all have in common.

    A linen layer without a name of its own, ``blocks.Dense_0``, is all that stands in each block.
    """
    shared = 0
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    while shared > 1 and _UNNAMED.fullmatch(paths[0][shared - 1]):
        shared -= 1
    return shared
