"""The networks whose steps are timed, by name; which framework trains each, and for how many steps it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the bench, and how many steps tell what.

    Attributes:
        name: as on the command line.
        framework: "torch" or "jax".
        maker: the function of ``torch_networks`` or ``jax_networks`` that makes it.
        batch: what one step trains on.
        steady: steps of the steady state; enough for 4 s where a step is short, since the writer works in bursts.
        sampled: steps of what is captured on every k-th step only, and has no other phases.
        short: steps of what costs the same at every step.
        reading: steps over which reads are timed; every other one times one read.
    """

    name: str
    framework: str
    maker: str
    batch: str
    steady: int
    sampled: int
    short: int
    reading: int = 0


NETWORKS: Final = {
    network.name: network
    for network in (
        Network("mlp-50k", "torch", "mlp_50k", "256 examples", steady=2560, sampled=2560, short=512, reading=640),
        Network("tensors-1000", "torch", "tensors_1000", "64 examples", steady=256, sampled=256, short=100, reading=96),
        Network("gpt-25m", "torch", "gpt_25m", "128 tokens", steady=256, sampled=60, short=24, reading=64),
        Network("wide-100m", "torch", "wide_100m", "32 examples", steady=256, sampled=60, short=16, reading=48),
        Network("jax-mlp", "jax", "plain_mlp", "256 examples", steady=1024, sampled=1024, short=256),
        Network("linen-mlp", "jax", "linen_mlp", "256 examples", steady=1024, sampled=1024, short=256),
        Network("jax-gpt-23m", "jax", "plain_gpt", "256 tokens", steady=256, sampled=60, short=24),
        Network("linen-gpt-23m", "jax", "linen_gpt", "256 tokens", steady=256, sampled=60, short=24),
    )
}
SMALL: Final = ("mlp-50k", "tensors-1000", "jax-mlp", "linen-mlp")
