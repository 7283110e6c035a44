"""What a tool is given: a training program that runs as it is and lets itself be watched."""

from __future__ import annotations

from typing import Any, Protocol

from tests.zoo.recipe import Recipe


class Observer:
    """Sees a training run from inside its loop; this one does nothing, and tools override what they need."""

    def begin(self, step: int) -> None:
        """Called before the forward pass of a step."""

    def gradients(self, step: int, names: tuple[str, ...]) -> None:
        """Called when the gradients of these parameters are whole and unscaled, before they are clipped."""

    def end(self, step: int, loss: Any, *, task: float, accuracy: float, clip: float) -> None:
        """Called after the optimizer's step.

        Args:
            step: counted from 0.
            loss: what was differentiated, a scalar of the framework.
            task: the loss of the task, without constant factors.
            accuracy: share of right answers in the batch, NaN where there are none.
            clip: the factor by which the gradient was clipped, 1 for none.
        """


class Program(Protocol):
    """A training program.

    Attributes:
        recipe: what it was built from.
        framework: ``torch`` or ``jax``.
        chain: dotted names of the layers that the signal passes, in forward order.
    """

    recipe: Recipe
    framework: str
    chain: tuple[str, ...]

    def train(self, observer: Observer) -> None:
        """Trains from the start to the end; a program is used once."""


def build(recipe: Recipe) -> Program:
    """Builds the program of a recipe; a framework is imported only for its own recipes."""
    if recipe.framework == "torch":
        from tests.zoo.torch_program import TorchProgram

        return TorchProgram(recipe)
    from tests.zoo.jax_program import JaxProgram

    return JaxProgram(recipe)
