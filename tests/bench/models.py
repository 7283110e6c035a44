"""The networks whose steps are timed, each with a function that makes one batch's loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[], Tensor]


def mlp_50k() -> tuple[nn.Module, Loss]:
    """Returns an MLP of 12 layers of 64 units, 50,570 parameters in 26 tensors, with a batch of 256."""
    layers = [nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(12)]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    x, y = torch.randn(256, 64), torch.randint(10, (256,))
    return model, lambda: functional.cross_entropy(model(x), y)


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


def gpt_25m() -> tuple[nn.Module, Loss]:
    """Returns a decoder of 25.5 million parameters in 102 tensors, with 128 tokens a step."""
    model = Gpt()
    ids = torch.randint(256, (1, 129))
    return model, lambda: functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


MODELS: Final[dict[str, Callable[[], tuple[nn.Module, Loss]]]] = {"mlp-50k": mlp_50k, "gpt-25m": gpt_25m}
