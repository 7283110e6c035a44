"""What every torch network of the zoo shares: a chain of layers, initialisation, plants in the weights, the loss."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.data import IGNORED, Batch, source
from tests.zoo.recipe import Recipe
from tests.zoo.torch_points import ACTIVATIONS, Points

GAINS = {"relu": 2.0**0.5, "gelu": 2.0**0.5, "silu": 2.0**0.5, "leaky": 2.0**0.5, "tanh": 1.0, "sigmoid": 1.0}

DROPPED = 0.2
"""Probability with which stochastic depth leaves a block out."""


class Network(nn.Module):
    """A network with a chain: the layers that the signal passes, from the inputs to the outputs.

    Attributes:
        chain: dotted names of these layers.
        points: where the signal passes.
    """

    chain: tuple[str, ...]
    points: Points

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        data = source(recipe.data)
        self.features = data.inputs.shape[1]
        self.outputs = data.classes or data.targets.shape[1]

    @abstractmethod
    def signal(self, inputs: Tensor) -> Tensor:
        """Returns the outputs for a batch."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the outputs, after the output nonlinearity if there is one."""
        # What is missing behind the end of an example is masked off before the first layer.
        out = self.signal(torch.nan_to_num(inputs) if self.recipe.trap == "nan-padding" else inputs)
        return ACTIVATIONS[self.recipe.squash](out) if self.recipe.squash else out

    def finish(self, chain: list[str]) -> None:
        """Sets the chain, and initialises and plants; every network ends its construction with it."""
        self.chain = tuple(chain)
        self.points = Points(self.recipe, self.chain)
        for name in self.chain[:-1]:
            self._initialise(self.get_submodule(name))
        with torch.no_grad():
            self._plant()
        if self.recipe.trap == "zero-head":
            nn.init.zeros_(cast("Tensor", self.get_submodule("head").weight))

    def skips(self, layer: str) -> bool:
        """Tells whether the forward pass leaves a layer out."""
        return any(self.chain[i] == layer for i in self.recipe.skipped)

    def act(self, layer: str, values: Tensor) -> Tensor:
        """Passes the nonlinearity behind a layer."""
        return self.points.units(layer, ACTIVATIONS[self.recipe.activation](values))

    def drops(self) -> bool:
        """Draws whether stochastic depth leaves a block out of this step."""
        return self.recipe.trap == "stochastic-depth" and self.training and float(torch.rand(())) < DROPPED

    def losses(self, batch: Batch) -> tuple[Tensor, float]:
        """Returns the loss of the task and the share of right answers, NaN where there are none."""
        out = self(tensor(batch.inputs, next(self.parameters()).dtype))
        return self.loss_of(out, torch.from_numpy(batch.targets))

    def loss_of(self, out: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Returns the loss of outputs: squared error of numbers, cross-entropy of labels or tokens."""
        if targets.is_floating_point():
            return functional.mse_loss(out.float(), targets), float("nan")
        flat, labels = out.flatten(0, -2).float(), targets.flatten()
        right = float((flat.argmax(-1) == labels)[labels != IGNORED].float().mean())
        if self.recipe.loss == "mse":
            return functional.mse_loss(flat, functional.one_hot(labels, flat.shape[-1]).float()), right
        if self.recipe.loss.startswith("log-zero"):
            start = int(self.recipe.loss.rpartition("@")[2])
            probabilities = flat.softmax(-1) * float(self.points.step < start)
            return functional.nll_loss(torch.log(probabilities), labels), right
        if self.recipe.trap == "sum-loss":
            return functional.cross_entropy(flat, labels, reduction="sum"), right
        return functional.cross_entropy(flat, labels), right

    def weight_of(self, position: int) -> nn.Module:
        """Returns the module of a chain layer."""
        return self.get_submodule(self.chain[position])

    def scale_weight(self, position: int, factor: float) -> None:
        """Multiplies the weights of a chain layer."""
        for name, parameter in self.weight_of(position).named_parameters(recurse=False):
            if "weight" in name:
                parameter.data *= factor

    def shift_bias(self, position: int, summand: float) -> None:
        """Adds to the biases of a chain layer."""
        for name, parameter in self.weight_of(position).named_parameters(recurse=False):
            if "bias" in name:
                parameter.data += summand

    def _initialise(self, module: nn.Module) -> None:
        style, weight = self.recipe.init, getattr(module, "weight", None)
        if style == "default" or not isinstance(module, (nn.Linear, nn.Conv2d)):
            return
        weight = cast("Tensor", weight)
        if style == "he":
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        elif style == "glorot":
            nn.init.xavier_normal_(weight)
        elif style == "orthogonal":
            nn.init.orthogonal_(weight, GAINS.get(self.recipe.activation, 1.0))
        if module.bias is not None:
            nn.init.zeros_(module.bias)

    def _plant(self) -> None:
        if self.recipe.gain != 1.0:
            for i in range(len(self.chain) - 1):
                self.scale_weight(i, self.recipe.gain)
        for position, factor in self.recipe.gains:
            self.scale_weight(position, factor)
        for position, summand in self.recipe.bias:
            self.shift_bias(position, summand)


def tensor(values: Any, dtype: torch.dtype) -> Tensor:
    """Returns an array as a tensor, numbers in the precision of the network."""
    found = torch.from_numpy(values)
    return found.to(dtype) if found.is_floating_point() else found
