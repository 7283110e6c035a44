"""Reduces tensors to the core's statistics on the device they live on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from gradwatch.statistics import Statistics
from gradwatch_torch.device import OnDevice
from gradwatch_torch.host import reduce_on_host


class Measured(Protocol):
    """Statistics of m tensors that may still be on a device."""

    def ready(self) -> bool:
        """Tells without waiting whether ``resolve`` would not wait."""
        ...

    def resolve(self) -> Statistics:
        """Returns the statistics, shape [m]."""
        ...


def reduce(tensors: Sequence[Tensor], *, counts: bool = False, histogram: bool = False) -> Measured:
    """Reduces real tensors of any strides and dtype, in order.

    Args:
        tensors: dense tensors, all on one device or on several.
        counts: also take zeros and subnormals.
        histogram: also take the histogram.
    """
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return OnHost(reduce_on_host(tensors, counts=counts, histogram=histogram))
    return OnDevice(tensors, counts=counts, histogram=histogram)


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
