"""A real training of more than 200 layers over 2,000 steps, in which one block is cut off halfway."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

import gradwatch
from gradwatch.examples.digits import Digits

STAGES, BLOCKS, WIDTH, BATCH = 10, 10, 16, 16
STEPS: Final = 2_000
WARM_UP: Final = 100
CUT_BLOCK, CUT_STEP = "stages.6.blocks.3", 1_200
CUT: Final = (f"{CUT_BLOCK}.up", f"{CUT_BLOCK}.down")
"""The layers that get no gradient from ``CUT_STEP`` on."""


class Block(nn.Module):
    """A residual branch of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, WIDTH, bias=False)
        self.down = nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.kaiming_normal_(self.up.weight, nonlinearity="relu")
        nn.init.normal_(self.down.weight, std=1 / math.sqrt(WIDTH * STAGES * BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the stream with the branch added, shape [n, WIDTH]."""
        branch: Tensor = self.down(torch.relu(self.up(x)))
        return x + branch


class Stage(nn.Module):
    """``BLOCKS`` residual blocks, then a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the normalised stream, shape [n, WIDTH]."""
        stream: Tensor = self.norm(self.blocks(x))
        return stream


class DeepNetwork(nn.Module):
    """202 linear layers and 10 normalisations: images of 64 pixels to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(64, WIDTH)
        self.stages = nn.Sequential(*(Stage() for _ in range(STAGES)))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits, shape [n, 10]."""
        logits: Tensor = self.head(self.stages(self.stem(images)))
        return logits


def rate(step: int) -> float:
    """Returns the share of the learning rate at a step: warm-up, then half a cosine."""
    return (step + 1) / WARM_UP if step < WARM_UP else 0.5 + 0.5 * math.cos(math.pi * step / STEPS)


def train(path: Path) -> None:
    """Trains on scikit-learn's digits, watched, and leaves the run in ``path``.

    From ``CUT_STEP`` on the cut block's branch is detached: it still shapes the output, and learns nothing.
    """
    torch.manual_seed(0)
    digits = Digits.shuffled(np.random.default_rng(0))
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    model = DeepNetwork()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    cut = model.get_submodule(CUT_BLOCK)
    with gradwatch.watch(model, optimizer, run=path, report=False, on_finding=lambda _: None) as watch:
        for step in range(STEPS):
            if step == CUT_STEP:
                cut.register_forward_hook(lambda _, inputs, outputs: inputs[0] + (outputs - inputs[0]).detach())
            batch = torch.randint(len(labels), (BATCH,))
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            watch.log(loss=loss)
