"""Small networks of the common kinds, with data they can learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def digits() -> tuple[Tensor, Tensor]:
    """Returns scikit-learn's digits, pixels in [0, 1], shape [1797, 64], and their labels."""
    data = load_digits()
    return torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


class Recurrent(nn.Module):
    """Reads the rows of an image as a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x.view(-1, 8, 8))
        logits: Tensor = self.head(states[:, -1])
        return logits


class Transformer(nn.Module):
    """A pre-norm encoder over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.position = nn.Parameter(torch.randn(1, 8, 32) * 0.02)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encoder(self.embed(x.view(-1, 8, 8)) + self.position)
        logits: Tensor = self.head(self.norm(hidden).mean(dim=1))
        return logits


NETWORKS: Final[dict[str, Callable[[], nn.Module]]] = {
    "mlp": mlp,
    "cnn": cnn,
    "lstm": Recurrent,
    "transformer": Transformer,
}
