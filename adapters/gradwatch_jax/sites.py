"""The sites of a step's layouts in the run's table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import Site, SiteTable
from gradwatch_jax.captured import Layout, Tap
from gradwatch_jax.names import Parameter

Ids = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]
"""Ids and sizes of sites."""


@dataclass(frozen=True, slots=True)
class Sites:
    """Where the rows of a layout belong.

    Attributes:
        gradients: for each place at which gradients are taken.
        parameters: those of the trained parameters, for ``update`` and ``weight``.
        activations: those of the layers that were read, for each signal; a layer may stand there repeatedly.
        steps: training steps that one call makes.
        kept: how many of them, the last ones, it keeps.
    """

    gradients: tuple[Ids, ...]
    parameters: dict[str, Ids]
    activations: dict[str, Ids]
    steps: int
    kept: int


class SiteIds:
    """Adds the sites of each new layout to the table, and remembers their ids."""

    def __init__(self, table: SiteTable, optimizer: str) -> None:
        self._table = table
        self._optimizer = optimizer
        self._known: dict[Layout, Sites] = {}

    def of(self, layout: Layout) -> Sites:
        """Returns the sites of a layout."""
        known = self._known.get(layout)
        if known is not None:
            return known
        trained = layout.trained.parameters if layout.trained is not None else ()
        ids = Sites(
            tuple(self._add("gradient", place.parameters, place.shards) for place in layout.gradients),
            {signal: self._add(signal, trained) for signal in ("update", "weight")},
            {signal: self._add_layers(signal, taps) for signal, taps in layout.activations.items()},
            layout.steps,
            layout.kept,
        )
        self._table.set_order(layout.layers)
        if len(self._known) < _MOST_LAYOUTS:
            self._known[layout] = ids
        return ids

    def _add_layers(self, signal: str, taps: Iterable[Tap]) -> Ids:
        found = list(taps)
        sites = [Site(signal, tap.name, tap.layer, tap.kind, optimizer=self._optimizer) for tap in found]
        ids = [self._table.add(site) for site in sites]
        return np.array(ids, dtype=np.uint32), np.array([tap.size for tap in found], dtype=np.int64)

    def _add(self, signal: str, parameters: Iterable[Parameter], shards: int = 1) -> Ids:
        found = list(parameters)
        ids = [self._table.add(_site(signal, parameter, self._optimizer)) for parameter in found]
        return np.array(ids, dtype=np.uint32), np.array([p.size * shards for p in found], dtype=np.int64)


_MOST_LAYOUTS: Final = 64


def _site(signal: str, parameter: Parameter, optimizer: str) -> Site:
    p = parameter
    return Site(signal, p.name, p.layer, p.role, p.shape, p.size, p.dtype, optimizer, fan_in=p.fan_in)
