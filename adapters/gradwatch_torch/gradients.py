"""The gradients of a list of parameters: which there are, and their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import attrgetter
from typing import Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gradwatch_torch.measure import Measured, Reader

Ids = npt.NDArray[np.uint32]
NONE: Final[Ids] = np.zeros(0, dtype=np.uint32)

_gradient = attrgetter("grad")


class Gradients:
    """Reads ``.grad`` of the same parameters at each step.

    Attributes:
        present: sites of the parameters that had a gradient at the last reading.
        absent: sites of those that require one and had none.
        sharded: whether a gradient was one rank's part of a distributed one.
    """

    def __init__(self, parameters: Sequence[Tensor], sites: Ids) -> None:
        self.present = self.absent = NONE
        self.sharded = False
        self._parameters = parameters
        self._sites = sites
        self._types: list[type] | None = None
        self._given: list[bool] = []
        self._missing: list[tuple[Tensor, int]] = []
        self._reader = Reader()

    def read(self, *, full: bool, only_absent: bool = False) -> Measured | None:
        """Reduces the gradients there are, zeros, subnormals and histogram too if ``full``; None without any."""
        gradients = list(map(_gradient, self._parameters))
        types = list(map(type, gradients))
        if types != self._types:
            self._arrange(types)
        if self._missing:
            absent = [site for parameter, site in self._missing if parameter.requires_grad]
            self.absent = np.array(absent, dtype=np.uint32) if absent else NONE
        if only_absent or not len(self.present):
            return None
        there = list(compress(gradients, self._given)) if self._missing else gradients
        return self._reader.reduce(there, counts=full, histogram=full)

    def _arrange(self, types: list[type]) -> None:
        self._types = types
        self._given = [kind is not type(None) for kind in types]
        self.sharded = any(hasattr(kind, "to_local") for kind in types)
        self.present, self.absent = self._sites[np.array(self._given, dtype=np.bool_)], NONE
        sites = self._sites.tolist()
        self._missing = [
            (parameter, site)
            for parameter, site, given in zip(self._parameters, sites, self._given, strict=True)
            if not given
        ]
