"""The weights of an optimizer, and what its step adds to them."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import torch
from torch import Tensor

from gradwatch import native
from gradwatch_torch.form import Form
from gradwatch_torch.measure import Measured, Reader, local, reduce

HUGE: Final = 2**23
"""Bytes from which copies lie in huge pages: the kernel hands out 100 MB page by page in ten times the time of reading
them, and in three times with pages of 2 MB."""
_ALIGNMENT: Final = 64

_kind = attrgetter("shape", "dtype", "device")


class Weights:
    """Reads the same parameters at each of the schedule's steps.

    The copies made before a step are kept for the next one when that needs them too, and let go otherwise.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self._reader = Reader()
        self._copies: list[Tensor] = []
        self._kinds: list[Any] = []
        self._strides: list[tuple[int, ...]] = []
        self._form: Form | None = None
        self._addresses: list[int] = []
        self._copied = False

    def copy(self) -> None:
        """Remembers the weights as they are."""
        with torch.no_grad():
            now, plain = self._now()
            if not (plain and self._reader.form is self._form):
                self._make_room(now, plain=plain)
            if now:
                torch._foreach_copy_(self._copies, list(now))
        self._copied = True

    def forget(self) -> None:
        """Lets the copies go."""
        self._copies, self._kinds, self._form, self._copied = [], [], None, False

    def read(self, *, update: bool, weight: bool) -> tuple[Measured | None, Measured | None]:
        """Reduces what was added since ``copy``, and the weights.

        The update is None when there is no copy, or of other weights; and either where it is not asked for.
        """
        with torch.no_grad():
            now, plain = self._now()
            copied, self._copied = self._copied and update, False
            added = self._added(now, plain=plain) if copied else None
            if not weight:
                return added, None
            return added, self._reader.read(now) if plain else reduce(now)

    def _make_room(self, now: Sequence[Tensor], *, plain: bool) -> None:
        kinds = list(map(_kind, now))
        if kinds != self._kinds:
            self._copies, self._kinds = _room(now, plain=plain), kinds
            self._strides = list(map(Tensor.stride, self._copies))
        self._form = self._reader.form if plain and self._lies_alike(now) else None
        self._addresses = list(map(Tensor.data_ptr, self._copies))

    def _added(self, now: Sequence[Tensor], *, plain: bool) -> Measured | None:
        if plain and self._reader.form is self._form:
            return self._reader.read(now, flags=native.COUNTS, minus=self._addresses)
        if list(map(_kind, now)) != self._kinds:
            return None
        if plain and self._lies_alike(now):
            return self._reader.read(now, flags=native.COUNTS, minus=self._addresses)
        torch._foreach_neg_(self._copies)
        torch._foreach_add_(self._copies, list(now))
        return reduce(self._copies, counts=True)

    def _lies_alike(self, now: Sequence[Tensor]) -> bool:
        return list(map(Tensor.stride, now)) == self._strides

    def _now(self) -> tuple[Sequence[Tensor], bool]:
        """Returns this rank's weights, and whether C may read them."""
        plain = self._reader.lay_out(self._parameters)
        return ([local(parameter) for parameter in self._parameters], False) if plain is None else (plain, True)


def _room(tensors: Sequence[Tensor], *, plain: bool) -> list[Tensor]:
    """Returns tensors of the same shapes, dtypes and, where ``plain``, strides, with whatever is in the memory."""
    sizes = [-(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT for tensor in tensors]
    if not plain or sum(sizes) < HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return [torch.empty_like(tensor) for tensor in tensors]
    memory = mmap.mmap(-1, sum(sizes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    room, at = [], 0
    for tensor, size in zip(tensors, sizes, strict=True):
        if size:
            place = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=at)
            room.append(place.as_strided(tensor.shape, tensor.stride()))
        else:
            room.append(torch.empty_like(tensor))
        at += size
    return room
