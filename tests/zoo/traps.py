"""Traps: what makes a healthy run look sick. Each changes a recipe and leaves the training sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from tests.zoo.families import ADAPTIVE, hidden_layers
from tests.zoo.recipe import Event, Recipe

Change = Callable[[Recipe], Recipe]


def _set(**changes: Any) -> Change:
    return lambda recipe: replace(recipe, **changes)


def _adaptive(recipe: Recipe) -> bool:
    return recipe.optimizer in (*ADAPTIVE, "adagrad")


def _loss_factor(factor: float) -> Change:
    """A factor on the loss cancels in an adaptive optimizer; elsewhere the rate makes up for it."""
    return lambda recipe: replace(recipe, loss_weight=factor, rate=recipe.rate / (1.0 if _adaptive(recipe) else factor))


def _sum_loss(recipe: Recipe) -> Recipe:
    return replace(recipe, rate=recipe.rate / (1.0 if _adaptive(recipe) else max(recipe.batch, 1) * 2))


def _accumulate(recipe: Recipe) -> Recipe:
    """Micro-batches; in JAX every call is a step, and weights move at every second one (``optax.MultiSteps``)."""
    if recipe.framework == "torch":
        return replace(recipe, accumulate=3, batch=24)
    return replace(recipe, accumulate=2, batch=32, steps=2 * recipe.steps)


def _batch_one(recipe: Recipe) -> Recipe:
    """One example a step; a rate that such a batch can bear."""
    return replace(
        recipe, batch=1, steps=160, rate=0.3 * recipe.rate, norm="" if recipe.norm == "batch" else recipe.norm
    )


def _converging(recipe: Recipe) -> Recipe:
    """Whole batches until little is left to learn."""
    return replace(recipe, batch=0, steps=240, data="few" if recipe.data in ("digits", "heavy") else recipe.data)


def _frozen_backbone(recipe: Recipe) -> Recipe:
    """Only the head is trained, on random features."""
    return replace(recipe, norm="", untrained=tuple(range(hidden_layers(recipe))))


SCHEDULES: Final = ("warmup", "cosine", "drops", "restarts")
_LOOP: Final[dict[str, Change]] = {
    **{name: _set(schedule=name) for name in SCHEDULES},
    "accumulate": _accumulate,
    "clip": _set(clip=1.0),
    "hard-clip": _set(optimizer="adam", rate=2e-3, clip=1e-2),
    "weight-decay": _set(weight_decay=1e-2),
    "big-loss": _loss_factor(1e3),
    "tiny-loss": _loss_factor(1e-3),
    "sum-loss": _sum_loss,
    "high-rate": lambda recipe: replace(recipe, rate=3 * recipe.rate),
    "ema": _set(),
    "evaluates": _set(),
    "turns": _set(),
    "bf16-amp": _set(precision="bf16-amp"),
    "bf16": _set(precision="bf16"),
    "scaler": _set(precision="fp16-amp", scaler=True),
    "scaler-search": _set(precision="fp16-amp", scaler=True),
    "frozen-prefix": _set(untrained=(0,)),
    "frozen-backbone": _frozen_backbone,
}
"""What lies in the loop or in the optimizer."""

_DATA: Final[dict[str, Change]] = {
    "full-batch": _set(batch=0),
    "small-batch": _set(batch=4, steps=100),
    "batch-one": _batch_one,
    "converging": _converging,
    "label-noise": _set(),
    "alternating": _set(),
    "nan-padding": _set(),
    "padding": _set(data="tokens"),
    "hard-batch": _set(events=(Event(30, "inputs", size=2.5),)),
    "mild-start": _set(events=tuple(Event(step, "inputs", size=0.3) for step in range(8))),
    "raw-before-norm": _set(norm="layer", input_scale=100.0),
}
"""What lies in the batches."""

_NETWORK: Final[dict[str, Change]] = {
    **{name: _set() for name in ("dropout", "zero-head", "top-k", "rezero", "residual", "zero-gamma", "fused", "tied")},
    **{name: _set() for name in ("unused-expert", "stochastic-depth", "zero-branch")},
    "open-gates": _set(forget=3.0),
    "hundred": _set(depth=100, width=16, activation="tanh", init="orthogonal", norm="", steps=40),
    "scaled-before-norm": _set(norm="layer", activation="relu", gains=((2, 30.0),)),
    "big-weight": _set(init="he", gains=((0, 5.0),), optimizer="sgd", rate=0.01),
    "confident": lambda recipe: replace(
        recipe, data="breast_cancer", loss="mse", squash="sigmoid", steps=120, rate=3 * recipe.rate
    ),
}
"""What lies in the network, which reads ``recipe.trap`` where the recipe says no more."""

TRAPS: Final[dict[str, Change]] = {**_LOOP, **_DATA, **_NETWORK}

_TORCH: Final = frozenset(
    {
        *("ema", "evaluates", "turns", "bf16-amp", "scaler", "scaler-search"),
        *("dropout", "top-k", "rezero", "zero-gamma", "fused", "tied", "unused-expert", "hundred", "big-weight"),
    }
)


def trapped(recipe: Recipe) -> Recipe:
    """Returns the recipe with its trap set."""
    return TRAPS[recipe.trap](recipe) if recipe.trap else recipe


def needs_torch(trap: str) -> bool:
    """Tells whether a trap exists in torch only."""
    return trap in _TORCH
