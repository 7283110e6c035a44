"""Traps: what makes a healthy run look sick. Each changes a recipe and leaves the training sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from tests.zoo.families import ADAPTIVE
from tests.zoo.recipe import Recipe

SCHEDULES: Final = ("warmup", "cosine", "drops", "restarts")


def _set(**changes: Any) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, **changes)


def _loss_factor(factor: float) -> Callable[[Recipe], Recipe]:
    """A factor on the loss cancels in an adaptive optimizer; elsewhere the rate makes up for it."""

    def change(recipe: Recipe) -> Recipe:
        adaptive = recipe.optimizer in (*ADAPTIVE, "adagrad")
        return replace(recipe, loss_weight=factor, rate=recipe.rate / (1.0 if adaptive else factor))

    return change


def _sum_loss(recipe: Recipe) -> Recipe:
    adaptive = recipe.optimizer in (*ADAPTIVE, "adagrad")
    return replace(recipe, rate=recipe.rate / (1.0 if adaptive else max(recipe.batch, 1) * 2))


def _hundred(recipe: Recipe) -> Recipe:
    return replace(recipe, depth=100, width=16, activation="tanh", init="orthogonal", norm="", steps=40)


def _big_weight(recipe: Recipe) -> Recipe:
    return replace(recipe, init="he", gains=((0, 5.0),), optimizer="sgd", rate=0.01)


TRAPS: Final[dict[str, Callable[[Recipe], Recipe]]] = {
    **{name: _set(schedule=name) for name in SCHEDULES},
    **{name: _set() for name in ("dropout", "zero-head", "ema", "top-k", "rezero", "residual", "zero-gamma", "fused")},
    **{name: _set() for name in ("tied", "unused-expert", "turns")},
    "accumulate": _set(accumulate=3, batch=24),
    "clip": _set(clip=1.0),
    "weight-decay": _set(weight_decay=1e-2),
    "big-loss": _loss_factor(1e3),
    "tiny-loss": _loss_factor(1e-3),
    "sum-loss": _sum_loss,
    "full-batch": _set(batch=0),
    "small-batch": _set(batch=4, steps=100),
    "frozen-prefix": _set(untrained=(0,)),
    "bf16-amp": _set(precision="bf16-amp"),
    "bf16": _set(precision="bf16"),
    "scaler": _set(precision="fp16-amp", scaler=True),
    "hundred": _hundred,
    "scaled-before-norm": lambda recipe: replace(recipe, norm="layer", activation="relu", gains=((2, 30.0),)),
    "big-weight": _big_weight,
}
"""What a trap changes in a recipe; some live in the networks, which read ``recipe.trap``."""


def trapped(recipe: Recipe) -> Recipe:
    """Returns the recipe with its trap set."""
    return TRAPS[recipe.trap](recipe) if recipe.trap else recipe


def needs_torch(trap: str) -> bool:
    """Tells whether a trap exists in torch only."""
    shared = {"", *SCHEDULES, "clip", "weight-decay", "big-loss", "tiny-loss", "full-batch", "small-batch", "bf16"}
    return trap not in shared | {"zero-head", "residual", "scaled-before-norm", "sum-loss"}
