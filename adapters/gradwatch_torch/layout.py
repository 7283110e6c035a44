"""Tensors as one dimension, in storage order, and the parts of them that are read."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

EXACT: Final = 2**16
SAMPLE: Final = (16, 8)
"""Histograms of tensors above ``EXACT`` elements count one of every 16 blocks of 8 elements: larger ones would lie
in too few rows of a matrix. Which one goes by the golden ratio, whose multiples fall evenly: a fixed place would see
the same columns of every row."""

_GOLDEN: Final = 0.6180339887498949


def flat(tensor: Tensor) -> Tensor:
    """Returns the elements as one dimension in storage order, copying only where the strides leave gaps."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    tensor = tensor.resolve_neg()
    if not tensor.is_contiguous():
        tensor = tensor.permute(storage_order(tensor))
    return tensor.reshape(-1)


def storage_order(tensor: Tensor) -> list[int]:
    """Returns the dimensions from the one whose neighbours lie farthest apart to the one whose lie closest."""
    strides = tensor.stride()
    return sorted(range(tensor.ndim), key=lambda d: -strides[d])


def wide(tensor: Tensor) -> Tensor:
    """Returns half and smaller types as float32."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def smallest_normal(tensor: Tensor) -> float:
    """Returns the smallest normal number of the tensor's dtype; 0 for dtypes without subnormals."""
    return float(torch.finfo(tensor.dtype).smallest_normal) if tensor.dtype.is_floating_point else 0.0


def sample(vector: Tensor) -> Tensor:
    """Returns the elements that a histogram counts."""
    if vector.numel() <= EXACT:
        return vector
    blocks, size = SAMPLE
    groups = vector[: vector.numel() // (blocks * size) * blocks * size].view(-1, blocks, size)
    index = torch.arange(len(groups), dtype=torch.float64, device=vector.device)
    return groups[index.long(), (torch.frac(index * _GOLDEN) * blocks).long()].reshape(-1)
