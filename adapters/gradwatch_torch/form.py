"""What must hold of tensors before C may read their memory, found out once and then only compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from gradwatch import native
from gradwatch_torch.layout import flat, storage_order

KINDS: Final = {getattr(torch, name): code for name, code in native.KINDS.items()}
_PLAIN: Final = (Tensor, nn.Parameter)
"""Types whose memory holds their elements; what a subclass means by its memory is known to nobody else."""

_dtype, _is_cpu = Tensor.dtype.__get__, Tensor.is_cpu.__get__  # type: ignore[attr-defined]


class Form:
    """The types, dtypes, sizes and strides of tensors that all lie in one piece of the host's memory each."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._types = list(map(type, tensors))
        self._dtypes = list(map(_dtype, tensors))
        self._sizes = list(map(Tensor.numel, tensors))
        self._contiguous = list(map(Tensor.is_contiguous, tensors))
        self._odd = [(i, _strides(tensors[i])) for i, contiguous in enumerate(self._contiguous) if not contiguous]
        self.arrays = native.Arrays(self._sizes, [KINDS[dtype] for dtype in self._dtypes])

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Tells whether other tensors may be read just as the ones that this form was made of."""
        # Lists of bools, types and dtypes compare by identity, and ``map`` over a method runs without bytecode.
        return (
            list(map(type, tensors)) == self._types
            and all(map(_is_cpu, tensors))
            and list(map(_dtype, tensors)) == self._dtypes
            and list(map(Tensor.numel, tensors)) == self._sizes
            and list(map(Tensor.is_contiguous, tensors)) == self._contiguous
            and not any(map(Tensor.is_neg, tensors))
            and (not self._odd or all(_strides(tensors[i]) == strides for i, strides in self._odd))
        )


def form_of(tensors: Sequence[Tensor]) -> Form | None:
    """Returns the form of tensors, or None when C may not read one of them as it is."""
    return Form(tensors) if native.available() and all(map(_is_plain, tensors)) else None


def readable(tensors: Sequence[Tensor]) -> list[Tensor] | None:
    """Returns tensors of the same elements that C may read, copies where need be; None where that is impossible."""
    vectors = [flat(tensor) for tensor in tensors if type(tensor) in _PLAIN]
    return vectors if len(vectors) == len(tensors) and all(map(_is_plain, vectors)) else None


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in _PLAIN
        and tensor.is_cpu
        and tensor.layout == torch.strided
        and tensor.dtype in KINDS
        and not tensor.is_neg()
        and (tensor.is_contiguous() or tensor.permute(storage_order(tensor)).is_contiguous())
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def _strides(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...]] | None:
    return (tensor.shape, tensor.stride()) if tensor.layout == torch.strided else None
