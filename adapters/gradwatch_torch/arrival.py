"""Numbers on their way between a device and the host, without waiting and without a call of CUDA to learn of it.

The device sets a flag in pinned memory behind the numbers. The writer thread reads the flag, because polling an event
there would spoil a CUDA graph that the training thread happens to capture: cudaEventQuery is forbidden to every thread
meanwhile.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

_ALIGNMENT: Final = 16
_SMALLEST: Final = 2**10
_PATIENCE: Final = 5.0
"""Seconds after which the whole device is waited for, which raises where the device has failed."""


class Arrival:
    """Tensors that are being copied to the host; on a CUDA device they are ready when its stream has come so far."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        tensors = [tensor.detach() for tensor in tensors]
        self._device = tensors[0].device
        self._block: Block | None = None
        if self._device.type == "cuda":
            self._block = take_block(self._device, sum(_room(tensor) for tensor in tensors))
            self._copies = self._block.receive(tensors)
        else:
            self._copies = [tensor.to("cpu", copy=True) for tensor in tensors]

    def ready(self) -> bool:
        """Tells without waiting whether the numbers are there."""
        return self._block is None or self._block.is_filled()

    def tensors(self) -> list[Tensor]:
        """Returns the copies; waits for the device if it must, so it is called on the writer thread."""
        if self._block is not None:
            _wait(self._block, self._device)
            self._copies = [copy.clone() for copy in self._copies]
            give_back(self._block)
            self._block = None
        return self._copies


class Block:
    """Pinned memory of a device's results, used again and again: its address stays, so graphs may write to it."""

    def __init__(self, device: torch.device, size: int) -> None:
        self.key = (device, size)
        with torch.inference_mode(mode=False):
            self._memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, pin_memory=device.type == "cuda")
            self._flag = self._memory[:8].view(torch.int64)
        self._seen = self._flag.numpy()
        self._seen[0] = 1

    def receive(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Enqueues copies of the tensors, and the flag after them, and returns where they will be."""
        self._seen[0] = 0
        copies, at = [], _ALIGNMENT
        for tensor in tensors:
            place = self._memory[at : at + tensor.numel() * tensor.element_size()].view(tensor.dtype)
            copies.append(place.view(tensor.shape).copy_(tensor, non_blocking=True))
            at += _room(tensor)
        self._flag.copy_(_one(self.key[0], stream(self.key[0])), non_blocking=True)
        return copies

    def is_filled(self) -> bool:
        """Tells whether what was enqueued last has arrived."""
        return bool(self._seen[0])


_free: dict[tuple[torch.device, int], deque[Block]] = {}


def take_block(device: torch.device, size: int) -> Block:
    """Returns a free block of at least so many bytes."""
    size = max(_SMALLEST, 1 << max(0, size - 1).bit_length())
    try:
        return _free[device, size].popleft()
    except (KeyError, IndexError):
        return Block(device, size)


def give_back(block: Block) -> None:
    """Makes a block free whose numbers have been read."""
    _free.setdefault(block.key, deque()).append(block)


def _room(tensor: Tensor) -> int:
    return -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT


@functools.lru_cache(maxsize=64)
def _one(device: torch.device, _: int) -> Tensor:
    """Returns what flags are set with: one for each stream, which is ordered after its making there."""
    with torch.inference_mode(mode=False):
        return torch.ones(1, dtype=torch.int64, device=device)


def _wait(block: Block, device: torch.device) -> None:
    began = time.monotonic()
    while not block.is_filled():
        if time.monotonic() - began > _PATIENCE:
            torch.cuda.synchronize(device)
            began = time.monotonic()
        time.sleep(1e-4)


def stream(device: torch.device) -> int:
    """Returns the number of the current stream of a device, 0 where there are none."""
    return torch.cuda.current_stream(device).stream_id if device.type == "cuda" else 0


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies from the host to a device without waiting for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def is_capturing() -> bool:
    """Tells whether a CUDA graph is being captured, where nothing is computed and so nothing arrives."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
