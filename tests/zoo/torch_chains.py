"""Torch networks without memory: linear, multilayer, plain deep, convolutional and residual ones."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.recipe import Recipe
from tests.zoo.torch_network import Network

RESIDUAL = ("residual", "stochastic-depth")
"""Traps that make residual blocks of the layers of a chain."""


class Chain(Network):
    """Hidden linear layers and a head; without hidden layers linear or logistic regression."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        sizes = [self.features, *[recipe.width] * (recipe.depth - 1)]
        self.hidden = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])
        norms = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        made = [norms[recipe.norm](recipe.width) for _ in self.hidden] if recipe.norm else []
        self.norms = nn.ModuleList(made)
        self.head = nn.Linear(sizes[-1], self.outputs)
        self.gates = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in self.hidden if recipe.trap == "rezero"])
        self.finish([*(f"hidden.{i}" for i in range(len(self.hidden))), "head"])

    def signal(self, inputs: Tensor) -> Tensor:
        """Passes the hidden layers in order."""
        x = inputs
        for i, layer in enumerate(self.hidden):
            x = x if self.skips(f"hidden.{i}") else self._block(i, layer, x)
        if self.recipe.trap == "top-k":
            x = x * (x >= x.topk(max(2, x.shape[1] // 8), dim=1).values[:, -1:])
        return self.points.output("head", self.head(x))

    def _block(self, i: int, layer: nn.Module, x: Tensor) -> Tensor:
        same = x.shape[1] == self.recipe.width
        if same and self.drops():
            return x
        h = self.points.output(f"hidden.{i}", layer(x))
        h = self.norms[i](h) if self.norms else h
        h = self.act(f"hidden.{i}", h)
        if self.recipe.trap == "dropout" or self.recipe.plumbing == "eval-mode":
            h = functional.dropout(h, 0.2, self.training)
        if self.recipe.trap == "rezero":
            return x + self.gates[i] * h if same else h
        return x + h / len(self.hidden) ** 0.5 if self.recipe.trap in RESIDUAL and same else h


class Convolutional(Network):
    """Convolutions over the 8 x 8 digits and a linear head."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        sizes = [1, *[recipe.width] * (recipe.depth - 1)]
        self.hidden = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(sizes)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(recipe.width) for _ in self.hidden] if recipe.norm else [])
        self.head = nn.Linear(recipe.width * 4, self.outputs)
        self.finish([*(f"hidden.{i}" for i in range(len(self.hidden))), "head"])

    def signal(self, inputs: Tensor) -> Tensor:
        """Pools once in the middle and at the end."""
        x = inputs.unflatten(1, (1, 8, 8))
        for i, layer in enumerate(self.hidden):
            if self.skips(f"hidden.{i}"):
                continue
            h = self.points.output(f"hidden.{i}", layer(x))
            x = self.act(f"hidden.{i}", self.norms[i](h) if self.norms else h)
            x = functional.max_pool2d(x, 2) if i == len(self.hidden) // 2 else x
        return self.points.output("head", self.head(functional.adaptive_avg_pool2d(x, 2).flatten(1)))


class Residual(Network):
    """Residual blocks of two convolutions with batch normalisation; zero-gamma as a trap, no norm as a fault."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        width = recipe.width
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList()
        for _ in range(recipe.depth):
            block = nn.ModuleDict({"first": nn.Conv2d(width, width, 3, padding=1)})
            block["second"] = nn.Conv2d(width, width, 3, padding=1)
            if recipe.norm:
                block.update({"norm1": nn.BatchNorm2d(width), "norm2": nn.BatchNorm2d(width)})
            self.blocks.append(block)
        self.head = nn.Linear(width, self.outputs)
        parts = [f"blocks.{i}.{part}" for i in range(recipe.depth) for part in ("first", "second")]
        self.finish(["stem", *parts, "head"])
        if recipe.trap == "zero-gamma":
            for name, weight in self.named_parameters():
                if name.endswith("norm2.weight"):
                    nn.init.zeros_(weight)

    def signal(self, inputs: Tensor) -> Tensor:
        """Adds every block to the stream."""
        x = self.act("stem", self.points.output("stem", self.stem(inputs.unflatten(1, (1, 8, 8)))))
        for i in range(len(self.blocks)):
            x = x if self.drops() else functional.relu(x + self._branch(i, x))
        return self.points.output("head", self.head(x.mean((2, 3))))

    def _branch(self, i: int, x: Tensor) -> Tensor:
        block = self.blocks[i]
        assert isinstance(block, nn.ModuleDict)
        for part, norm in (("first", "norm1"), ("second", "norm2")):
            name = f"blocks.{i}.{part}"
            x = self.points.output(name, block[part](x))
            x = block[norm](x) if norm in block else x
            x = self.act(name, x) if part == "first" else self.points.units(name, x)
        return x
