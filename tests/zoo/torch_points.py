"""Points in a torch network where a signal passes: plants act there, and the plain record reads there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from tests.zoo.recipe import Effect, Recipe

EFFECTS: Final[dict[str, Callable[[Tensor, float], Tensor]]] = {
    "detach": lambda h, _: h.detach(),
    "round": lambda h, _: torch.round(h),
    "sign": lambda h, _: torch.sign(h),
    "scale": lambda h, size: h * size,
    "log": lambda h, _: torch.log(torch.relu(h)),
    "sqrt": lambda h, _: torch.sqrt(torch.relu(h)),
    "divide": lambda h, _: h / (h - h).abs().sum(-1, keepdim=True),
    "exp": lambda h, size: torch.exp(h * size),
}
ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "relu": functional.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "leaky": functional.leaky_relu,
    "linear": lambda h: h,
}


class Reader(Protocol):
    """What reads along."""

    def output(self, layer: str, values: Tensor) -> None:
        """Sees the outputs of a layer."""

    def units(self, layer: str, values: Tensor) -> None:
        """Sees the outputs of the nonlinearity behind it."""


class Points:
    """The points of one network."""

    def __init__(self, recipe: Recipe, chain: tuple[str, ...]) -> None:
        self.step = 0
        self.reader: Reader | None = None
        self._effects: dict[str, list[Effect]] = {name: [] for name in chain}
        for effect in recipe.effects:
            self._effects[chain[effect.layer]].append(effect)

    def output(self, layer: str, values: Tensor) -> Tensor:
        """Passes the outputs of a layer."""
        if self.reader is not None:
            self.reader.output(layer, values)
        return values

    def units(self, layer: str, values: Tensor) -> Tensor:
        """Passes the outputs of the nonlinearity behind a layer, changed by the effects planted there."""
        if self.reader is not None:
            self.reader.units(layer, values)
        for effect in self._effects.get(layer, ()):
            if self.step >= effect.start:
                values = EFFECTS[effect.how](values, effect.size)
        return values
