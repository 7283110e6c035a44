"""Where each site stands: the site table turned into index arrays, once per version of the table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import PARAMETER_SIGNALS, Site, SiteTable
from gradwatch.statistics import Float

Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

INPUT: Final = ":input"
NOWHERE: Final = -1
_ROUNDING: Final = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float64": 2.0**-53}
"""Half a unit in the last place of 1, by format; float32 is the rest. Source: their fractions of 7, 10 and 52 bits."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Two axes that only ever grow, p parameters and l layers, each in order of first registration.

    Depth is apart from them, because the layers' order may come after the first records.

    Attributes:
        version: of the site table.
        parameters: names, p of them.
        layers: names, l of them.
        layer_of: the layer of each parameter, shape [p].
        numel: shape [p].
        initial_rms: 1 / sqrt(3 fan_in), the weight rms of the common initialisation, uniform within 1 / sqrt(fan_in);
            a floor under the size of weights that start at 0, shape [p].
        rounding: half a unit in the last place of 1 in the parameter's format, shape [p].
        trained: parameters in an optimizer, shape [p].
        missing: parameters that require a gradient but are in no optimizer, shape [p].
        untrained: weights of two or more dimensions that require no gradient, shape [p].
        matrix: trained weights of two or more dimensions, the only ones in depth and ratio rules, shape [p].
        weight: trained or missing parameters in the role of a weight, shape [p].
        shapes: shape [p] of tuples, as a list.
        half: parameters of which the format, or that of their layer's activations, is float16: their gradients lose
            what is below 2^-24 of the loss scale, shape [p].
        class_of: class name of each layer, "" where no activation was captured, l of them.
        depth: layer indices from the input to the output, shape [l].
        chain: layer indices of the layers that own a matrix, from the input to the output, shape [c].
        primary: the largest matrix of each layer in ``chain``, as parameter indices, shape [c].
        parameter_slot, output_slot, input_slot: for each site its place on an axis, or ``NOWHERE``, shape [sites].
    """

    version: int
    parameters: tuple[str, ...]
    layers: tuple[str, ...]
    layer_of: Index
    numel: Index
    initial_rms: Float
    rounding: Float
    trained: Mask
    missing: Mask
    untrained: Mask
    matrix: Mask
    weight: Mask
    shapes: tuple[tuple[int, ...], ...]
    half: Mask
    class_of: tuple[str, ...]
    depth: Index
    chain: Index
    primary: Index
    parameter_slot: Index
    output_slot: Index
    input_slot: Index

    def names(self, layers: Iterable[int]) -> tuple[str, ...]:
        """Returns the names of layers."""
        return tuple(self.layers[int(i)] for i in layers)

    def rank(self) -> Index:
        """Returns each layer's place in the order of depth, shape [l]."""
        rank = np.empty(len(self.depth), dtype=np.int64)
        rank[self.depth] = np.arange(len(self.depth))
        return rank


def lay_out(table: SiteTable) -> Layout:
    """Reads the whole table; called when its version changed."""
    version, sites = table.version, tuple(table)
    layers = {name: i for i, name in enumerate(dict.fromkeys(site.layer for site in sites))}
    parameters: dict[str, Site] = {}
    for site in sites:
        if site.parameter is not None:
            parameters.setdefault(site.parameter, site)
    slots = {name: i for i, name in enumerate(parameters)}
    owned = tuple(parameters.values())
    columns = _parameter_columns(owned, layers)
    depth = np.array([layers[name] for name in table.layers if name in layers], dtype=np.int64)
    chain, primary = _chain(depth, columns["layer_of"], columns["matrix"], columns["numel"])
    return Layout(
        version=version,
        parameters=tuple(parameters),
        layers=tuple(layers),
        shapes=tuple(site.shape for site in owned),
        class_of=_classes(sites, layers),
        depth=depth,
        chain=chain,
        primary=primary,
        half=_half(sites, owned),
        **columns,
        **_site_slots(sites, layers, slots),
    )


def _parameter_columns(owned: tuple[Site, ...], layers: dict[str, int]) -> dict[str, Any]:
    status = np.array([site.status for site in owned])
    numel = np.array([site.numel for site in owned], dtype=np.int64)
    fan_in = np.array([_fan_in(site) for site in owned], dtype=np.float64)
    role = np.array([site.role == "weight" for site in owned], dtype=np.bool_)
    flat = np.array([len(site.shape) < 2 for site in owned], dtype=np.bool_)
    trained = status == "trained" if len(owned) else np.zeros(0, dtype=np.bool_)
    missing = status == "missing" if len(owned) else np.zeros(0, dtype=np.bool_)
    return {
        "layer_of": np.array([layers[site.layer] for site in owned], dtype=np.int64),
        "numel": numel,
        "initial_rms": 1 / np.sqrt(3.0 * fan_in),
        "rounding": np.array([_ROUNDING.get(site.dtype, 2.0**-24) for site in owned], dtype=np.float64),
        "trained": trained,
        "missing": missing,
        "untrained": (status == "frozen") & role & ~flat if len(owned) else np.zeros(0, dtype=np.bool_),
        "matrix": trained & role & ~flat,
        "weight": (trained | missing) & role,
    }


def _fan_in(site: Site) -> float:
    """Returns the weights that an output sums over; where the adapter does not know, the first axis is the outputs."""
    if site.fan_in is not None:
        return site.fan_in
    return max(site.numel, 1) / max(site.shape[0] if site.shape else 1, 1)


def _chain(depth: Index, layer_of: Index, matrix: Mask, numel: Index) -> tuple[Index, Index]:
    largest: dict[int, int] = {}
    for parameter in np.flatnonzero(matrix).tolist():
        layer = int(layer_of[parameter])
        if layer not in largest or numel[parameter] > numel[largest[layer]]:
            largest[layer] = parameter
    chain = [layer for layer in depth.tolist() if layer in largest]
    return np.array(chain, dtype=np.int64), np.array([largest[layer] for layer in chain], dtype=np.int64)


def _classes(sites: tuple[Site, ...], layers: dict[str, int]) -> tuple[str, ...]:
    names = [""] * len(layers)
    for site in sites:
        if site.parameter is None and site.name == site.layer:
            names[layers[site.layer]] = site.role
    return tuple(names)


def _half(sites: tuple[Site, ...], owned: tuple[Site, ...]) -> Mask:
    layers = {site.layer for site in sites if site.parameter is None and site.dtype == "float16"}
    return np.array([site.dtype == "float16" or site.layer in layers for site in owned], dtype=np.bool_)


def _site_slots(sites: tuple[Site, ...], layers: dict[str, int], slots: dict[str, int]) -> dict[str, Any]:
    found = np.full((3, len(sites)), NOWHERE, dtype=np.int64)
    for i, site in enumerate(sites):
        if site.signal in PARAMETER_SIGNALS:
            found[0, i] = slots[site.name]
        elif site.name == site.layer:
            found[1, i] = layers[site.layer]
        elif site.name == site.layer + INPUT:
            found[2, i] = layers[site.layer]
    return {"parameter_slot": found[0], "output_slot": found[1], "input_slot": found[2]}
