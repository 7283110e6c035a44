"""The slope of the gradient along depth that mean-field theory expects of weights of the size that they have.

Of random weights with variance s^2 a linear layer multiplies the mean square of the gradient that it hands back by
fan_out s^2, and an activation at inputs of variance q by E[f'(z)^2], z ~ N(0, q): chi, layer by layer (Poole et al.
2016; Schoenholz et al. 2017, eq. 5). A normalisation divides by the deviation of its input and multiplies by its scale.
The weight gradient is the product of what comes back and what went in, so that its rms at two layers differs by both.

Nothing is assumed of the network: the theory holds for plain chains, and a run shows whether its network is one. From
each layer with a weight matrix to the next there must be an activation or a normalisation, every module of a known
class, and what a layer reads must be what the module before it has put out. With a residual connection, a functional
activation, a gate or attention that is not so, and nothing is expected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.record import Site
from gradwatch.recording import Panel, Recording
from gradwatch.statistics import Float
from gradwatch_html.flow import Flow

FEWEST: Final = 3
"""Layers with a weight matrix, from which they have a slope."""

SAME: Final = 1e-3
"""Relative difference of two rms up to which one signal is the other: rounding, not another connection."""

INPUT: Final = ":input"
_NORMAL: Final = np.linspace(-8, 8, 1000)
_WEIGHTS: Final = np.exp(-(_NORMAL**2) / 2) / np.exp(-(_NORMAL**2) / 2).sum()
_DENSITY: Final = 1 / math.sqrt(2 * math.pi)
_NORMS: Final = ("LayerNorm", "RMSNorm")
_PASSES: Final = ("Identity", "Flatten")

Slope = Callable[[Float], npt.NDArray[Any]]


def _sigmoid(z: Float) -> Float:
    return np.asarray(1 / (1 + np.exp(-z)))


def _normal(z: Float) -> Float:
    return np.array([0.5 + 0.5 * math.erf(v / math.sqrt(2)) for v in z.tolist()])


DERIVATIVES: Final[Mapping[str, Slope]] = {
    "Sigmoid": lambda z: _sigmoid(z) * (1 - _sigmoid(z)),
    "Tanh": lambda z: 1 / np.cosh(z) ** 2,
    "ReLU": lambda z: (z > 0) * 1.0,
    "SiLU": lambda z: _sigmoid(z) * (1 + z * (1 - _sigmoid(z))),
    "GELU": lambda z: _normal(z) + z * _DENSITY * np.exp(-(z**2) / 2),
}
"""First derivative of each activation that is known, by class name."""


@dataclass(frozen=True, slots=True)
class _Chain:
    """The layers with a matrix from input to output, the modules behind each but the last, and the class of each."""

    layers: tuple[str, ...]
    between: tuple[tuple[str, ...], ...]
    matrices: tuple[Site, ...]
    classes: Mapping[str, str]


def expected_slopes(recording: Recording, curves: Flow) -> list[float | None]:
    """Returns the expected slope in decades a group towards the output, for each step of the curves.

    Taken from the newest activations and weights up to the step; None where the theory does not apply.
    """
    nothing: list[float | None] = [None] * len(curves.steps)
    activation, weight = recording.panel("activation"), recording.panel("weight")
    if len(recording.step_tables) != 1 or activation is None or weight is None or not len(activation.steps):
        return nothing
    chain = _chain(recording)
    if chain is None:
        return nothing
    depth = {name: i for i, name in enumerate(recording.sites.layers)}
    at = np.searchsorted(curves.groups[:, 0], [depth[name] for name in chain.layers], side="right") - 1
    rows = np.searchsorted(activation.steps, curves.steps, side="right") - 1
    slope_at: dict[int, float | None] = {-1: None}
    for row in np.unique(rows[rows >= 0]).tolist():
        sizes = _sizes(recording, activation, weight, row)
        profile = None if sizes is None else _profile(chain, sizes)
        slope_at[row] = None if profile is None else round(float(np.polyfit(at, profile, 1)[0]), 4)
    return [slope_at[row] for row in rows.tolist()]


def _chain(recording: Recording) -> _Chain | None:
    """Returns the chain of layers whose every part is known to the theory, or None."""
    classes = {site.layer: site.role for site in recording.sites if site.signal == "activation" and _is_output(site)}
    heavy = [site for site in recording.sites if site.signal == "gradient" and site.role in ("weight", "embedding")]
    matrices = {site.layer: site for site in heavy}
    if len(matrices) < max(FEWEST, len(heavy)) or not all(map(_is_matrix, heavy)):
        return None
    order = [name for name in recording.sites.layers if name in classes]
    places = [i for i, name in enumerate(order) if name in matrices]
    if len(places) < len(matrices):
        return None
    between = tuple(tuple(order[a + 1 : b]) for a, b in pairwise(places))
    known = (*DERIVATIVES, *_NORMS, *_PASSES)
    if not all(between) or any(classes[name] not in known for names in between for name in names):
        return None
    layers = tuple(order[i] for i in places)
    return _Chain(layers, between, tuple(matrices[name] for name in layers), classes)


def _is_output(site: Site) -> bool:
    return not site.name.endswith(INPUT)


def _is_matrix(site: Site) -> bool:
    return site.role == "weight" and len(site.shape) == 2 and site.fan_in is not None


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Sizes at one step: rms and deviation of each activation, rms of each parameter, by the site's name."""

    rms: Mapping[str, float]
    deviation: Mapping[str, float]
    weight: Mapping[str, float]

    def read(self, name: str, before: str) -> float:
        """Returns the rms of what a module reads: adapters leave out an input that is the output of a module."""
        return self.rms.get(name + INPUT, self.rms.get(before, math.nan))

    def follows(self, name: str, before: str) -> bool:
        """Tells whether a module reads what the one before it has put out."""
        size = self.rms.get(before, math.nan)
        return abs(self.read(name, before) - size) <= SAME * size


def _sizes(recording: Recording, activation: Panel, weight: Panel, row: int) -> _Sizes | None:
    """Returns the sizes at a row of the activations, with the newest weights up to its step; None before the first."""
    latest = int(np.searchsorted(weight.steps, activation.steps[row], side="right")) - 1
    if latest < 0:
        return None
    rms = _rms(activation, row)
    mean = activation.sum[row] / np.maximum(activation.n[row], 1)
    deviation = np.sqrt(np.maximum(rms**2 - mean**2, 0))
    names, owners = ([recording.sites[int(site)].name for site in panel.sites] for panel in (activation, weight))
    columns = (names, rms), (names, deviation), (owners, _rms(weight, latest))
    rms_of, deviation_of, weight_of = (dict(zip(keys, values.tolist(), strict=True)) for keys, values in columns)
    return _Sizes(rms_of, deviation_of, weight_of)


def _rms(panel: Panel, row: int) -> Float:
    """Returns the rms of every site of a panel at one row, shape [m]; NaN where it was not taken."""
    return np.where(panel.n[row] > 0, panel.l2[row] / np.sqrt(np.maximum(panel.n[row], 1)), np.nan)


def _profile(chain: _Chain, sizes: _Sizes) -> Float | None:
    """Returns log10 of the weight gradient's expected rms at each layer, up to a constant; None off the theory."""
    back = [0.0]
    for place in reversed(range(len(chain.between))):
        gain = _gain(chain, sizes, place)
        if gain is None:
            return None
        back.append(back[-1] + gain)
    before = ("", *(names[-1] for names in chain.between))
    read = np.array([sizes.read(name, signal) for name, signal in zip(chain.layers, before, strict=True)])
    profile = np.array(back[::-1]) + np.log10(np.where(read > 0, read, math.nan))
    return profile if np.isfinite(profile).all() else None


def _gain(chain: _Chain, sizes: _Sizes, place: int) -> float | None:
    """Returns log10 of the gradient's rms at a layer's output over that at the next layer's, or None off the theory."""
    upper = chain.matrices[place + 1]
    square = (upper.numel / (upper.fan_in or 1)) * sizes.weight.get(upper.name, math.nan) ** 2
    signal = chain.layers[place]
    for name in chain.between[place]:
        square *= _square_of_module(chain.classes[name], name, signal, sizes)
        signal = name
    known = sizes.follows(chain.layers[place + 1], signal) and 0 < square < math.inf
    return 0.5 * math.log10(square) if known else None


def _square_of_module(kind: str, name: str, signal: str, sizes: _Sizes) -> float:
    """Returns the factor of a module between two layers on the gradient's mean square; NaN off the theory."""
    size = sizes.rms.get(signal, math.nan)
    if kind in DERIVATIVES:
        return mean_square_slope(DERIVATIVES[kind], size**2)
    if kind in _PASSES:
        return 1.0
    spread = sizes.deviation.get(signal, math.nan) if kind == "LayerNorm" else size
    scale = next((sizes.weight[f"{name}.{key}"] for key in ("weight", "scale") if f"{name}.{key}" in sizes.weight), 1.0)
    return (scale / spread) ** 2 if sizes.follows(name, signal) and spread > 0 else math.nan


def mean_square_slope(derivative: Slope, variance: float) -> float:
    """Returns E[f'(z)^2] over z of mean 0 and this variance, by the trapezoidal rule."""
    return float(np.sum(_WEIGHTS * derivative(math.sqrt(variance) * _NORMAL) ** 2))
