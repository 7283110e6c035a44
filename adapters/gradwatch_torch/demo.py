"""The demonstration: a deep network in which gradients vanish, and the same one repaired as its report advises."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.examples.demonstration import DEPTH, EPOCHS, LEARNING_RATE, SLOWED_DOWN, WIDTH, tell
from gradwatch.examples.digits import BATCHES, Digits
from gradwatch.examples.progress import Progress


class DeepNetwork(nn.Module):
    """``DEPTH`` hidden layers, each made by ``block``, and an output layer for ten digits."""

    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*(block() for _ in range(DEPTH)))
        self.output = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of images, shape [n, 64] to [n, 10]."""
        logits: Tensor = self.output(self.hidden(x))
        return logits


def sick_block() -> nn.Module:
    """A layer whose sigmoid, of slope 1/4 at most, hands back a fraction of each gradient."""
    return nn.Sequential(OrderedDict(linear=nn.Linear(WIDTH, WIDTH), sigmoid=nn.Sigmoid()))


def repaired_block() -> nn.Module:
    """The same layer with ReLU, the initialisation made for it (He et al. 2015), and normalisation."""
    linear = nn.Linear(WIDTH, WIDTH)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    nn.init.zeros_(linear.bias)
    return nn.Sequential(OrderedDict(linear=linear, norm=nn.LayerNorm(WIDTH), relu=nn.ReLU()))


def run(out: Path, *, seed: int) -> Sequence[Path]:
    """Trains both networks, watched, prints how well they learn, and returns their run directories, the sick first."""
    return tell(out, partial(train, sick_block, seed=seed), partial(train, repaired_block, seed=seed))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Layers this small are slower on several threads, and far slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def train(block: Callable[[], nn.Module], path: Path, seed: int, *, epochs: int = EPOCHS) -> float:
    """Trains one network, watched, and returns the share of unseen digits that it reads right."""
    generator = np.random.default_rng(seed)
    training, unseen = Digits.shuffled(generator).split()
    torch.manual_seed(seed)
    model = DeepNetwork(block)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    slow_down = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, SLOWED_DOWN, total_iters=epochs)
    progress = Progress(epochs * BATCHES)
    with gradwatch.watch(model, optimizer, run=path, on_finding=progress.tell) as watch:
        for _ in range(epochs):
            for images, labels in training.batches(generator):
                loss = nn.functional.cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
                progress.advance(f"loss {loss.item():.3f}")
            slow_down.step()
        progress.finish()
    return accuracy(model, unseen)


@torch.no_grad()
def accuracy(model: nn.Module, digits: Digits) -> float:
    """Returns the share of digits that the model reads right."""
    logits: Tensor = model(torch.from_numpy(digits.images))
    return float((logits.argmax(dim=1) == torch.from_numpy(digits.labels)).float().mean())
