"""Torch networks over sequences: recurrent ones, unrolled by hand or fused, and transformers."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.data import VOCABULARY
from tests.zoo.recipe import Recipe
from tests.zoo.torch_network import Network

CELLS = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
FUSED = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(Network):
    """An encoder of each time step, a recurrent cell, and a head on the last state."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.length = {"digits": 8, "few": 8, "memory": 24}[recipe.data]
        width = recipe.width
        self.encoder = nn.Linear(self.features // self.length, width)
        self.fused = recipe.trap == "fused"
        made = FUSED[recipe.family](width, width, batch_first=True) if self.fused else None
        options = {"nonlinearity": recipe.activation} if recipe.family == "rnn" else {}
        self.cell = made if made is not None else CELLS[recipe.family](width, width, **options)
        self.head = nn.Linear(width, self.outputs)
        self.finish(["encoder", "cell", "head"])
        if not self.fused:
            self._prepare()

    def _prepare(self) -> None:
        weight = self.cell.weight_hh
        if self.recipe.recurrent:
            nn.init.orthogonal_(weight, self.recipe.recurrent)
        if self.recipe.forget:
            width = self.recipe.width
            with torch.no_grad():
                self.cell.bias_hh[width : 2 * width] += self.recipe.forget

    def signal(self, inputs: Tensor) -> Tensor:
        """Reads the steps in order."""
        steps = inputs.unflatten(1, (self.length, -1))
        encoded = self.points.units("encoder", self.points.output("encoder", self.encoder(steps)))
        last = self.cell(encoded)[0][:, -1] if self.fused else self._unrolled(encoded)
        return self.points.output("head", self.head(self.points.units("cell", last)))

    def _unrolled(self, encoded: Tensor) -> Tensor:
        state: tuple[Tensor, ...] = ()
        for t in range(self.length):
            carried = state if len(state) > 1 else state[0] if state else None
            made = self.cell(encoded[:, t], carried)
            state = made if isinstance(made, tuple) else (made,)
            self.points.output(f"cell@{t}", state[0])
        return state[0]


class Transformer(Network):
    """Blocks of attention and feed-forward over the rows of digits, or over tokens with tied or free outputs."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        width = recipe.width
        self.tokens = recipe.data == "tokens"
        self.embed: nn.Module = nn.Embedding(VOCABULARY, width) if self.tokens else nn.Linear(8, width)
        self.positions = nn.Parameter(0.1 * torch.randn(16, width))
        self.blocks = nn.ModuleList([_block(recipe) for _ in range(recipe.depth)])
        self.last = nn.LayerNorm(width) if recipe.norm == "pre" else nn.Identity()
        self.head = nn.Linear(width, self.outputs)
        if recipe.trap == "tied" and isinstance(self.embed, nn.Embedding):
            nn.init.normal_(self.embed.weight, std=width**-0.5)
            self.head.weight = self.embed.weight
        names = ("attend", "project", "up", "down")
        self.finish(["embed", *(f"blocks.{i}.{name}" for i in range(recipe.depth) for name in names), "head"])
        if recipe.trap == "zero-branch":
            for name in self.chain:
                if name.endswith(("project", "down")):
                    nn.init.zeros_(cast("Tensor", self.get_submodule(name).weight))

    def signal(self, inputs: Tensor) -> Tensor:
        """Runs the blocks in order; tokens are masked causally with minus infinity."""
        x = inputs if self.tokens else inputs.unflatten(1, (8, 8))
        x = self.points.units("embed", self.points.output("embed", self.embed(x)))
        x = x + self.positions[: x.shape[1]]
        for i, block in enumerate(self.blocks):
            assert isinstance(block, nn.ModuleDict)
            x = self._residual(block["norm1"], x, self._attention, i, block)
            x = self._residual(block["norm2"], x, self._forward, i, block)
        x = self.last(x)
        return self.points.output("head", self.head(x if self.tokens else x.mean(1)))

    def _residual(self, norm: nn.Module, x: Tensor, part: object, i: int, block: nn.ModuleDict) -> Tensor:
        assert callable(part)
        if self.drops():
            return x
        if self.recipe.norm == "post":
            made: Tensor = norm(x + part(i, block, x))
            return made
        inside = norm(x) if self.recipe.norm == "pre" else x
        out: Tensor = x + part(i, block, inside)
        return out

    def _attention(self, i: int, block: nn.ModuleDict, x: Tensor) -> Tensor:
        whole = self.points.units(f"blocks.{i}.attend", self.points.output(f"blocks.{i}.attend", block["attend"](x)))
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in whole.chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if self.tokens:
            future = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
            scores = scores.masked_fill(future, float("-inf"))
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self._passed(f"blocks.{i}.project", block["project"](mixed))

    def _forward(self, i: int, block: nn.ModuleDict, x: Tensor) -> Tensor:
        h = self.act(f"blocks.{i}.up", self.points.output(f"blocks.{i}.up", block["up"](x)))
        return self._passed(f"blocks.{i}.down", block["down"](functional.dropout(h, 0.1, self._drops)))

    def _passed(self, name: str, values: Tensor) -> Tensor:
        return self.points.units(name, self.points.output(name, values))

    @property
    def _drops(self) -> bool:
        return self.training and self.recipe.trap == "dropout"


def _block(recipe: Recipe) -> nn.ModuleDict:
    width = recipe.width
    return nn.ModuleDict(
        {
            "norm1": nn.LayerNorm(width),
            "attend": nn.Linear(width, 3 * width),
            "project": nn.Linear(width, width),
            "norm2": nn.LayerNorm(width),
            "up": nn.Linear(width, 2 * width),
            "down": nn.Linear(2 * width, width),
        }
    )
