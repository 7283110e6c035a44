"""A recipe as a torch training loop, written as its users write it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.zoo.data import Batch, micro_batches
from tests.zoo.program import Observer
from tests.zoo.recipe import Recipe, rates
from tests.zoo.torch_composites import Adversarial
from tests.zoo.torch_families import NETWORKS
from tests.zoo.torch_optimizers import optimizers, set_rate

Losses = Callable[[Batch], tuple[Tensor, float]]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchProgram:
    """A torch training program; a tool may read and wrap ``model`` and ``optimizers`` before it trains."""

    framework = "torch"

    def __init__(self, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.model = NETWORKS[recipe.family](recipe)
        self.chain = self.model.chain
        if recipe.precision in DTYPES:
            self.model.to(DTYPES[recipe.precision])
        for position in recipe.untrained:
            self.model.weight_of(position).requires_grad_(False)
        self.optimizers = optimizers(self.model, recipe)
        self.scaler = torch.amp.GradScaler("cpu", _scale(recipe)) if recipe.scaler else None
        self._batches, self._rates = micro_batches(recipe), rates(recipe)
        self._average = copy.deepcopy(self.model) if recipe.trap == "ema" else None

    def train(self, observer: Observer) -> None:
        """Trains for all steps of the recipe."""
        self.model.train(self.recipe.plumbing != "eval-mode")
        for step in range(self.recipe.steps):
            self._happen(step)
            observer.begin(step)
            if self.recipe.trap == "evaluates" and step % 10 == 9:
                self._evaluate(step)
            for optimizer, losses in self._turns():
                set_rate(optimizer, float(self._rates[step]))
                loss, task, accuracy, clip = self._step(step, optimizer, losses, observer)
            observer.end(step, loss, task=task, accuracy=accuracy, clip=clip)

    def names(self, optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
        """Returns the parameters that an optimizer trains, or should have been given."""
        if len(self.optimizers) == 1:
            return tuple(name for name, _ in self.model.named_parameters())
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return tuple(name for name, p in self.model.named_parameters() if id(p) in held)

    def _turns(self) -> list[tuple[torch.optim.Optimizer, Losses]]:
        if isinstance(self.model, Adversarial):
            return [(self.optimizers[0], self.model.discriminate), (self.optimizers[1], self.model.losses)]
        return [(self.optimizers[0], self.model.losses)]

    def _evaluate(self, step: int) -> None:
        """Passes the step's batch in evaluation mode, without gradients."""
        self.model.eval()
        with torch.no_grad():
            self.model.losses(self._batches[step][0])
        self.model.train()

    def _happen(self, step: int) -> None:
        self.model.points.step = step
        with torch.no_grad():
            for event in self.recipe.events:
                if event.step == step and event.what == "weight":
                    self.model.scale_weight(event.layer, event.size)
                elif event.step == step and event.what == "bias":
                    self.model.shift_bias(event.layer, event.size)

    def _step(
        self, step: int, optimizer: torch.optim.Optimizer, losses: Losses, observer: Observer
    ) -> tuple[Tensor, float, float, float]:
        if self.recipe.optimizer == "lbfgs":
            return self._closed(step, optimizer, losses, observer)
        loss, task, accuracy = self._backward(step, optimizer, losses)
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        observer.gradients(step, self.names(optimizer))
        clip = self._clip()
        self._apply(optimizer)
        if self._average is not None:
            self._follow(self._average)
        return loss, task, accuracy, clip

    def _closed(
        self, step: int, optimizer: torch.optim.Optimizer, losses: Losses, observer: Observer
    ) -> tuple[Tensor, float, float, float]:
        found: list[tuple[Tensor, float, float]] = []

        def closure() -> Tensor:
            found.append(self._backward(step, optimizer, losses))
            if len(found) == 1:
                observer.gradients(step, self.names(optimizer))
            return found[-1][0]

        optimizer.step(closure)  # type: ignore[arg-type]
        return (*found[0], 1.0)

    def _backward(self, step: int, optimizer: torch.optim.Optimizer, losses: Losses) -> tuple[Tensor, float, float]:
        if self.recipe.plumbing != "keep-gradients":
            optimizer.zero_grad()
        parts: list[tuple[float, float]] = []
        for batch in self._batches[step]:
            with torch.autocast("cpu", *self._autocast()):
                task, accuracy = losses(batch)
            loss = task * (batch.factor / self.recipe.accumulate)
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            parts.append((float(task.detach()), accuracy))
        count = len(parts)
        return loss.detach(), sum(part[0] for part in parts) / count, sum(part[1] for part in parts) / count

    def _autocast(self) -> tuple[Any, ...]:
        kind = {"bf16-amp": torch.bfloat16, "fp16-amp": torch.float16}.get(self.recipe.precision)
        return (kind or torch.bfloat16, kind is not None)

    def _clip(self) -> float:
        if self.recipe.clip == float("inf"):
            return 1.0
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip))
        return min(1.0, self.recipe.clip / norm) if norm > 0 else 1.0

    def _apply(self, optimizer: torch.optim.Optimizer) -> None:
        if self.recipe.plumbing == "no-step":
            return
        for _ in range(2 if self.recipe.plumbing == "double-step" else 1):
            if self.scaler is None:
                optimizer.step()
            else:
                self.scaler.step(optimizer)
                self.scaler.update()

    def _follow(self, average: torch.nn.Module) -> None:
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)


def _scale(recipe: Recipe) -> float:
    """The first scale of a dynamic scaler: torch's default, or one so large that its first steps are skipped."""
    return 2.0 ** (24 if recipe.trap == "scaler-search" else 16)
