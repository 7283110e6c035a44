"""The torch optimizers of a recipe, with what is left out of them by mistake or on purpose."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import nn

from tests.zoo.recipe import Recipe
from tests.zoo.torch_composites import Adversarial
from tests.zoo.torch_network import Network

Make = Callable[..., torch.optim.Optimizer]

OPTIMIZERS: Final[dict[str, tuple[Make, dict[str, Any]]]] = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "nadam": (torch.optim.NAdam, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adagrad": (torch.optim.Adagrad, {}),
    "lbfgs": (torch.optim.LBFGS, {"max_iter": 2}),
}


def optimizers(model: Network, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Returns the optimizers in the order in which they step; an adversary has two."""
    if isinstance(model, Adversarial):
        parts: list[nn.Module] = [nn.ModuleList([model.discriminator, model.head]), model.generator]
        return [_made(recipe, list(part.parameters())) for part in parts]
    held = copy.deepcopy(model) if recipe.plumbing == "optimizer-copy" else model
    omitted = _parameters(held, recipe.omitted)
    still = _parameters(held, recipe.zero_rate)
    groups: list[Any] = [p for p in held.parameters() if id(p) not in omitted | still]
    if still:
        slow = [p for p in held.parameters() if id(p) in still]
        groups = [{"params": groups}, {"params": slow, "lr": 0.0}]
    return [_made(recipe, groups)]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all groups but those at 0 by mistake."""
    for i, group in enumerate(optimizer.param_groups):
        if i == 0:
            group["lr"] = rate


def _made(recipe: Recipe, parameters: Iterable[Any]) -> torch.optim.Optimizer:
    make, options = OPTIMIZERS[recipe.optimizer]
    if recipe.weight_decay:
        options = {**options, "weight_decay": recipe.weight_decay}
    return make(parameters, lr=recipe.rate, **options)


def _parameters(model: Network, positions: tuple[int, ...]) -> set[int]:
    return {id(p) for i in positions for p in model.weight_of(i).parameters()}
