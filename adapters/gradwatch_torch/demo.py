"""The demonstration: a deep network in which gradients vanish, and the same one repaired as its report advises."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import gradwatch
from gradwatch_torch.progress import Progress

DEPTH: Final = 12
WIDTH: Final = 64
TRAINING_DIGITS: Final = 1400
BATCH: Final = 64
EPOCHS: Final = 20
LEARNING_RATE: Final = 0.1


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


@dataclass(frozen=True, slots=True)
class Digits:
    """Scikit-learn's 1,797 handwritten digits, shuffled: images scaled to [-1, 1], shape [n, 64], and labels, [n]."""

    images: Tensor
    labels: Tensor

    @staticmethod
    def shuffled(generator: torch.Generator) -> Digits:
        """Loads all digits in an order drawn from ``generator``."""
        images, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=generator)
        return Digits(torch.tensor(images, dtype=torch.float32)[order] / 8 - 1, torch.tensor(labels)[order])

    def split(self) -> tuple[Digits, Digits]:
        """Returns those to train on and those to test on."""
        n = TRAINING_DIGITS
        return Digits(self.images[:n], self.labels[:n]), Digits(self.images[n:], self.labels[n:])

    def batches(self, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """Returns one epoch of batches in a new order."""
        order = torch.randperm(len(self.labels), generator=generator)
        return [(self.images[i], self.labels[i]) for i in order.split(BATCH)]


def run(out: Path, *, seed: int) -> Sequence[Path]:
    """Trains both networks, watched, prints how well they learn, and returns their run directories, the sick first."""
    print(f"Two networks of {DEPTH} hidden layers learn to read handwritten digits.\n")
    print("sick: sigmoid after every layer")
    sick = train(sick_block, out / "sick", seed)
    print("\nrepaired, as the report advises: ReLU, He initialisation, normalisation")
    repaired = train(repaired_block, out / "repaired", seed)
    print(f"\nDigits read right: {sick:.0%} by the sick network, {repaired:.0%} by the repaired one.")
    return out / "sick", out / "repaired"


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
    generator = torch.Generator().manual_seed(seed)
    training, unseen = Digits.shuffled(generator).split()
    torch.manual_seed(seed)
    model = DeepNetwork(block)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    slow_down = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=epochs)
    progress = Progress(epochs * -(-TRAINING_DIGITS // BATCH))

    def tell(finding: gradwatch.Finding) -> None:
        progress.note(f"{finding.severity}, since step {finding.first_step}: {finding.title}")

    with gradwatch.watch(model, optimizer, run=path, on_finding=tell) as watch:
        for _ in range(epochs):
            for images, labels in training.batches(generator):
                loss = nn.functional.cross_entropy(model(images), labels)
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
    return float((model(digits.images).argmax(dim=1) == digits.labels).float().mean())
