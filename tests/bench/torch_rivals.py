"""Other tools for torch, used as their documentation says: each a context that gives what follows a backward."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, Final

import torch
from torch import Tensor, nn

After = Callable[[int, Tensor], object]
"""Takes the step's number and its loss."""


def nothing(step: int, loss: Tensor) -> None:
    """What a bare loop does after a backward."""


@contextmanager
def wandb(model: nn.Module, directory: str, *, log_freq: int) -> Iterator[After]:
    """Histograms of each gradient in every ``log_freq``-th step; its own process's time is not counted."""
    os.environ.update(WANDB_SILENT="true", WANDB_DIR=directory)
    tool = import_module("wandb")
    run = tool.init(mode="offline", dir=directory, project="bench")
    run.watch(model, log_freq=log_freq)
    yield lambda _, loss: run.log({"loss": loss.item()})
    run.finish()


@contextmanager
def tensorboard(model: nn.Module, directory: str, *, every: int) -> Iterator[After]:
    """A histogram of each gradient in every ``every``-th step."""
    writer = import_module("torch.utils.tensorboard").SummaryWriter(directory)
    names = list(model.named_parameters())

    def after(step: int, _: Tensor) -> None:
        if step % every == 0:
            for name, parameter in names:
                writer.add_histogram(name, parameter.grad, step)

    yield after
    writer.close()


@contextmanager
def grad_norm(model: nn.Module, _: str) -> Iterator[After]:
    """The norm of each gradient and of all, read every 50th step, as often as Lightning's Trainer logs."""
    norms_of = import_module("lightning.pytorch.utilities").grad_norm

    def after(step: int, _: Tensor) -> None:
        norms = norms_of(model, norm_type=2)
        if step % 50 == 0:
            for norm in norms.values():
                float(norm)

    yield after


@contextmanager
def anomaly(_: nn.Module, __: str) -> Iterator[After]:
    """Checks of every backward function for NaN, with the place of its forward call remembered."""
    with torch.autograd.set_detect_anomaly(True):
        yield nothing


@contextmanager
def naive(model: nn.Module, _: str) -> Iterator[After]:
    """The norm of each gradient, read at once."""
    names = list(model.named_parameters())

    def after(_: int, __: Tensor) -> dict[str, float]:
        return {name: parameter.grad.norm().item() for name, parameter in names if parameter.grad is not None}

    yield after


RIVALS: Final[dict[str, Callable[..., AbstractContextManager[After]]]] = {
    "wandb": wandb,
    "tensorboard": tensorboard,
    "grad-norm": grad_norm,
    "anomaly": anomaly,
    "naive": naive,
}


def attach(rival: str, model: nn.Module, directory: str, options: dict[str, Any]) -> AbstractContextManager[After]:
    """Returns the context of a rival."""
    return RIVALS[rival](model, directory, **options)
