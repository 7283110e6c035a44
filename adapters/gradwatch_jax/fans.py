"""How many weights an output of a layer sums over, told from the names that JAX's libraries give to their arrays."""

from __future__ import annotations

import math
import re
from typing import Final

_OUTPUTS_LAST: Final = re.compile(r"kernel|w|w_i|w_h|lora_a|lora_b")
"""Flax linen and NNX: [in, out] and [*k, in / groups, out]; haiku the same, and its GRU."""
_OUTPUTS_FIRST: Final = re.compile(r"weight|weight_ih|weight_hh")
"""Equinox: [out, in] and [out, in / groups, *k], also of transposed convolutions."""
_TABLE: Final = re.compile(r"embeddings?")
_EMBEDDING: Final = re.compile(r"embed", re.IGNORECASE)
_HEADS: Final = frozenset({"query", "key", "value"})


def fan_in(layer: str, own: str, shape: tuple[int, ...]) -> int | None:
    """Returns the fan-in of an array, see ``gradwatch.record.Site``; None for a name that says nothing.

    A depthwise convolution sums over its kernel alone. The rows of a table are looked up, so each output is one of its
    elements. Two layers have other axes: a projection to the heads of Flax's attention, [in, heads, features of a
    head], and haiku's transposed convolutions, [*k, out, in].

    Args:
        layer: dotted path of the layer.
        own: the array's name in it.
        shape: of the array.
    """
    if len(shape) < 2 or not math.prod(shape):
        return None
    called = layer.rpartition(".")[2]
    if _TABLE.fullmatch(own) or (own == "weight" and len(shape) == 2 and _EMBEDDING.search(called)):
        return 1
    outputs = _outputs(called, own, shape)
    return None if outputs is None else math.prod(shape) // outputs


def _outputs(called: str, own: str, shape: tuple[int, ...]) -> int | None:
    if _OUTPUTS_FIRST.fullmatch(own):
        return shape[0]
    if not _OUTPUTS_LAST.fullmatch(own):
        return None
    if own == "kernel" and len(shape) == 3 and called in _HEADS:
        return shape[1] * shape[2]
    return shape[-2] if own == "w" and "transpose" in called else shape[-1]
