"""Reduces tensors to the core's statistics on the device they live on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gradwatch import native
from gradwatch.statistics import Statistics
from gradwatch_torch.device import OnDevice
from gradwatch_torch.form import Form, form_of, readable
from gradwatch_torch.host import reduce_on_host


class Measured(Protocol):
    """Statistics of m tensors that may still be on a device."""

    def ready(self) -> bool:
        """Tells without waiting whether ``resolve`` would not wait."""
        ...

    def resolve(self) -> Statistics:
        """Returns the statistics, shape [m]."""
        ...


class Reader:
    """Reduces the tensors of one place at each step: what holds for all of them is found out once.

    Tensors that C may read as they lie cost no more than comparing what may have changed, and one call for all.

    Attributes:
        plain: whether the tensors that were read last are known to be such ones.
    """

    def __init__(self) -> None:
        self.plain = False
        self._form: Form | None = None

    def reduce(self, tensors: Sequence[Tensor], *, counts: bool = False, histogram: bool = False) -> Measured:
        """Reduces real or complex tensors of any strides, dtype and layout, in order; see ``reduce``."""
        plain = self.lay_out(tensors)
        if plain is None:
            with torch.no_grad():
                return reduce([local(tensor) for tensor in tensors], counts=counts, histogram=histogram)
        return self.read(plain, flags=_flags(counts=counts, histogram=histogram))

    def lay_out(self, tensors: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """Returns what lies in this process's memory of tensors, ready for ``read``; None when C may not read it."""
        self.plain = self._form is not None and self._form.fits(tensors)
        if self.plain:
            return tensors
        with torch.no_grad():
            tensors = [local(tensor) for tensor in tensors]
        if self._form is None or not self._form.fits(tensors):
            self._form = form_of(tensors)
        return None if self._form is None else tensors

    @property
    def form(self) -> Form | None:
        """The form of what ``lay_out`` returned last; the same object as long as nothing of it changes."""
        return self._form

    def read(self, plain: Sequence[Tensor], *, flags: int = 0, minus: list[int] | None = None) -> Measured:
        """Reduces what ``lay_out`` returned, or its differences from tensors of the same form at other addresses."""
        assert self._form is not None
        return InC(self._form.arrays.reduce(list(map(Tensor.data_ptr, plain)), flags=flags, minus=minus))


def reduce(tensors: Sequence[Tensor], *, counts: bool = False, histogram: bool = False) -> Measured:
    """Reduces real or complex tensors of any strides and dtype, in order.

    Args:
        tensors: dense tensors, all on one device or on several.
        counts: also take zeros and subnormals.
        histogram: also take the histogram.
    """
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return OnDevice(tensors, counts=counts, histogram=histogram)
    vectors = readable(tensors) if native.available() else None
    if vectors is None:
        return OnHost(reduce_on_host(tensors, counts=counts, histogram=histogram))
    addresses = list(map(Tensor.data_ptr, vectors))
    return InC(Form(vectors).arrays.reduce(addresses, flags=_flags(counts=counts, histogram=histogram)))


def local(tensor: Tensor) -> Tensor:
    """Returns this rank's dense elements: of a DTensor its shard, of a sparse gradient its summed values."""
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    return tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor


@dataclass(frozen=True, slots=True)
class OnHost:
    """Statistics that are on the host already."""

    statistics: Statistics

    def ready(self) -> bool:
        """Always true."""
        return True

    def resolve(self) -> Statistics:
        """Returns the statistics."""
        return self.statistics


@dataclass(slots=True)
class InC:
    """Rows that C wrote, of which columns are made on the writer thread."""

    reduced: native.Reduced

    def ready(self) -> bool:
        """Always true."""
        return True

    def resolve(self) -> Statistics:
        """Returns the statistics."""
        return self.reduced.statistics()


def _flags(*, counts: bool, histogram: bool) -> int:
    return (native.COUNTS if counts else 0) | (native.HISTOGRAM if histogram else 0)
