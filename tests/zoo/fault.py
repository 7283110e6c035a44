"""What a fault is: a plant in a recipe, and the truth about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.zoo.recipe import Recipe

Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Planted:
    """A recipe with a fault in it.

    Attributes:
        sick: the recipe with the plant.
        twin: the same recipe without it.
        culprits: positions in the chain any of which may be named; empty when the whole run is at fault.
        onset: the step at which it begins, or None when the oracle has to find it.
    """

    sick: Recipe
    twin: Recipe
    culprits: tuple[int, ...] = ()
    onset: int | None = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to plant a kind of fault.

    Attributes:
        kind: the kind that a tool has to name.
        plant: changes the recipe of a draw.
        families: where it can be planted.
        tolerated: kinds that may follow from it and are not wrong.
        also: kinds that are as right.
        optimizers: those with which it is drawn; empty for those of the family.
        frameworks: where it can be planted.
    """

    kind: str
    plant: Callable[[Recipe, Random], Planted]
    families: tuple[str, ...]
    tolerated: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()
    optimizers: tuple[str, ...] = ()
    frameworks: tuple[str, ...] = ("torch", "linen", "nnx", "equinox")


def late(recipe: Recipe, random: Random) -> int:
    """Returns a step in the middle of a run."""
    return int(random.integers(recipe.steps // 4, (2 * recipe.steps) // 3))


def inner(recipe: Recipe, random: Random, layers: int) -> int:
    """Returns the position of a hidden layer that has a layer before it where there is one."""
    return int(random.integers(min(1, layers - 1), layers))
