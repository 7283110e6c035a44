"""Trains under torchrun with DDP on gloo; rank 0 writes the averaged gradient's norms beside the run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gradwatch


def main(out: Path, wrap_first: bool, clip: bool) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    bare = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    model: nn.Module = bare
    if wrap_first:
        model = DistributedDataParallel(bare)
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.1)
    norms = []
    with gradwatch.watch(model, optimizer, run=out / "run"):
        if not wrap_first:
            model = DistributedDataParallel(bare)
        generator = torch.Generator().manual_seed(rank)
        for _ in range(12):
            optimizer.zero_grad()
            model(torch.randn(16, 4, generator=generator)).square().mean().backward()
            if clip:
                nn.utils.clip_grad_norm_(bare.parameters(), 0.05)
            norms.append(float(bare.get_parameter("0.weight").grad.norm()))  # type: ignore[union-attr]
            optimizer.step()
    (out / f"truth{rank}.json").write_text(json.dumps(norms))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "wrapped", sys.argv[3] == "clipped")
