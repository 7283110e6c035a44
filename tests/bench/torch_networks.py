"""Networks of torch, each with a function that makes one batch's loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[], Tensor]


def mlp_50k() -> tuple[nn.Module, Loss]:
    """Returns an MLP of 12 layers of 64 units, 50,570 parameters in 26 tensors, with a batch of 256."""
    return stack(width=64, depth=12, batch=256)


def tensors_1000() -> tuple[nn.Module, Loss]:
    """Returns 499 residual layers of 16 units and a head: 1,000 tensors, 135,898 parameters; a batch of 64."""
    return residual(1000, width=16, batch=64)


def wide_100m() -> tuple[nn.Module, Loss]:
    """Returns an MLP of 100.6 million parameters in 8 tensors, with a batch of 32."""
    model = nn.Sequential(
        *(nn.Linear(1024, 6400), nn.ReLU()),
        *(nn.Linear(6400, 7168), nn.ReLU()),
        *(nn.Linear(7168, 6656), nn.ReLU()),
        nn.Linear(6656, 64),
    )
    return _classifying(model, 1024, 64, 32)


def gpt_25m() -> tuple[nn.Module, Loss]:
    """Returns a decoder of 25.5 million parameters in 102 tensors, with 128 tokens a step."""
    model = Gpt()
    ids = torch.randint(256, (1, 129))
    return model, lambda: functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def stack(width: int, depth: int, batch: int) -> tuple[nn.Module, Loss]:
    """Returns a plain MLP with 2 * depth + 2 tensors, depth * (width^2 + width) + 10 * (width + 1) parameters."""
    layers = [nn.Linear(width, width) for _ in range(depth)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # with torch's own start gradients vanish
    hidden = (nn.Sequential(layer, nn.ReLU()) for layer in layers)
    return _classifying(nn.Sequential(*hidden, nn.Linear(width, 10)), width, 10, batch)


def residual(tensors: int, width: int, batch: int) -> tuple[nn.Module, Loss]:
    """Returns a residual network with an even number of tensors."""
    blocks = (Residual(width) for _ in range(tensors // 2 - 1))
    return _classifying(nn.Sequential(*blocks, nn.Linear(width, 10)), width, 10, batch)


def _classifying(model: nn.Module, inputs: int, classes: int, batch: int) -> tuple[nn.Module, Loss]:
    x, y = torch.randn(batch, inputs), torch.randint(classes, (batch,))
    return model, lambda: functional.cross_entropy(model(x), y)


class Residual(nn.Module):
    """A layer whose output is added to its input, so that hundreds of them still learn."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        grown: Tensor = x + 0.05 * torch.tanh(self.linear(x))
        return grown


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        grown: Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return grown


class Gpt(nn.Module):
    """A small decoder."""

    def __init__(self, width: int = 512, depth: int = 8, vocabulary: int = 256, context: int = 128) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, 8) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        logits: Tensor = self.head(self.norm(self.blocks(hidden)))
        return logits
