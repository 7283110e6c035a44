"""The families: which data, sizes, optimizers and traps each is drawn with, and how its learning rates lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.zoo.recipe import Recipe

RATES: Final = {
    "sgd": (0.02, 0.1),
    "momentum": (0.004, 0.02),
    "nesterov": (0.004, 0.02),
    "adam": (1e-3, 5e-3),
    "adamw": (1e-3, 5e-3),
    "nadam": (1e-3, 4e-3),
    "rmsprop": (5e-4, 2e-3),
    "adagrad": (0.01, 0.05),
    "lbfgs": (0.3, 0.8),
}
"""Learning rates that are ordinary for an optimizer: the bounds of a log-uniform draw, times a family's pace."""

COMMON: Final = ("sgd", "momentum", "nesterov", "adam", "adamw", "nadam", "rmsprop", "adagrad")
ADAPTIVE: Final = ("adam", "adamw", "nadam", "rmsprop")
LOOPS: Final = (
    "",
    "warmup",
    "cosine",
    "drops",
    "restarts",
    "accumulate",
    "clip",
    "weight-decay",
    "big-loss",
    "sum-loss",
)
"""Traps that any family of classes can meet: they lie in the loop, not in the network."""
ALL: Final = ("torch", "linen", "nnx", "equinox")


@dataclass(frozen=True, slots=True)
class Family:
    """A family of networks.

    Attributes:
        data: data sets to draw from.
        depths: smallest and largest depth.
        widths: widths to draw from.
        activations: nonlinearities to draw from.
        norms: normalisations to draw from.
        optimizers: optimizers to draw from.
        traps: what can make a healthy run look sick.
        frameworks: where it is built.
        pace: factor on the ordinary learning rates.
        steps: optimizer steps.
        learns: whether the loss of a healthy run falls; of a game, or of a policy, its value says nothing.
    """

    data: tuple[str, ...]
    depths: tuple[int, int]
    widths: tuple[int, ...] = (24, 32, 48)
    activations: tuple[str, ...] = ("relu",)
    norms: tuple[str, ...] = ("",)
    optimizers: tuple[str, ...] = COMMON
    traps: tuple[str, ...] = LOOPS
    frameworks: tuple[str, ...] = ("torch",)
    pace: float = 1.0
    steps: int = 60
    learns: bool = True


_SMOOTH = ("relu", "tanh", "gelu", "silu", "leaky")
_BATCHES = ("full-batch", "small-batch", "batch-one", "label-noise", "alternating")
_NUMBERS = ("hard-batch", "mild-start", "nan-padding")
_NETWORK = (
    *(*_BATCHES, *_NUMBERS, "zero-head", "dropout", "tiny-loss", "high-rate", "hard-clip", "raw-before-norm"),
    *("frozen-prefix", "frozen-backbone", "ema", "evaluates", "bf16-amp", "scaler", "scaler-search"),
    *("top-k", "bf16", "big-weight", "confident", "converging"),
)
_PICTURES = ("label-noise", "batch-one", "alternating", "hard-batch", "mild-start", "zero-head", "evaluates")
_SEQUENCES = ("label-noise", "small-batch", "nan-padding", "alternating", "zero-head", "hard-clip")
_REGRESSION = ("", "warmup", "cosine", "drops", "full-batch", "small-batch", "accumulate", "clip", "ema", "mild-start")

FAMILIES: Final[dict[str, Family]] = {
    "linear": Family(
        ("diabetes", "teacher", "exact"),
        (1, 1),
        (1,),
        ("linear",),
        traps=(*_REGRESSION, "batch-one", "converging", "hard-batch", "nan-padding"),
        frameworks=ALL,
    ),
    "logistic": Family(
        ("digits", "breast_cancer", "wine", "heavy"),
        (1, 1),
        (1,),
        ("linear",),
        optimizers=(*COMMON, "lbfgs"),
        traps=(*LOOPS, *_BATCHES, *_NUMBERS, "ema", "zero-head", "high-rate", "converging", "confident"),
        frameworks=ALL,
    ),
    "mlp": Family(
        ("digits", "breast_cancer", "wine", "heavy"),
        (2, 6),
        activations=_SMOOTH,
        norms=("", "", "batch", "layer"),
        traps=(*LOOPS, *_NETWORK),
        frameworks=ALL,
        optimizers=(*COMMON, "lbfgs"),
    ),
    "plain": Family(
        ("digits",),
        (8, 16),
        (24, 32),
        ("relu", "tanh"),
        traps=(*LOOPS, "rezero", "residual", "hundred", "scaled-before-norm", "stochastic-depth", "hard-clip"),
        frameworks=ALL,
        pace=0.4,
    ),
    "cnn": Family(
        ("digits",),
        (3, 5),
        (8, 12),
        ("relu", "leaky", "gelu"),
        ("", "batch"),
        traps=(*LOOPS, *_PICTURES, "ema", "frozen-prefix", "frozen-backbone"),
        frameworks=ALL,
    ),
    "resnet": Family(
        ("digits",),
        (2, 3),
        (8, 12),
        norms=("batch",),
        traps=(*LOOPS, "zero-gamma", "stochastic-depth", "label-noise", "hard-batch", "zero-head", "evaluates"),
    ),
    "rnn": Family(("digits",), (8, 8), (16, 24), ("tanh",), traps=(*LOOPS, *_SEQUENCES, "fused"), frameworks=ALL),
    "gru": Family(("digits",), (8, 8), (16, 24), ("tanh",), traps=(*LOOPS, *_SEQUENCES, "fused"), optimizers=ADAPTIVE),
    "lstm": Family(
        ("digits",),
        (8, 8),
        (16, 24),
        ("tanh",),
        traps=(*LOOPS, *_SEQUENCES, "fused", "open-gates"),
        optimizers=ADAPTIVE,
        frameworks=ALL,
    ),
    "transformer": Family(
        ("digits", "tokens"),
        (1, 3),
        (16, 24),
        ("relu", "gelu"),
        ("pre", "post"),
        optimizers=ADAPTIVE,
        traps=(
            *(*LOOPS, "dropout", "tied", "bf16-amp", "stochastic-depth", "zero-branch", "zero-head", "padding"),
            *("label-noise", "hard-clip"),
        ),
        frameworks=ALL,
    ),
    "vae": Family(("digits",), (4, 4), optimizers=ADAPTIVE, activations=_SMOOTH, traps=_REGRESSION, frameworks=ALL),
    "gan": Family(("teacher",), (4, 4), (24, 32), optimizers=("adam",), traps=("",), pace=0.5, learns=False),
    "policy": Family(("digits",), (2, 3), optimizers=ADAPTIVE, traps=("", "clip"), learns=False),
    "moe": Family(("digits",), (3, 3), activations=_SMOOTH, traps=(*LOOPS, "unused-expert")),
    "lora": Family(("digits",), (3, 3), optimizers=ADAPTIVE, traps=LOOPS, pace=2.0),
    "embedding": Family(("tokens",), (3, 3), optimizers=ADAPTIVE, traps=(*LOOPS, "padding", "scaler"), pace=3.0),
    "tied": Family(("digits",), (3, 3), activations=("tanh", "relu"), traps=_REGRESSION),
    "multitask": Family(("digits",), (2, 4), activations=_SMOOTH, traps=(*LOOPS, "turns")),
}


def hidden_layers(recipe: Recipe) -> int:
    """Returns how many layers of the chain stand before its last one."""
    fixed = {"rnn": 2, "gru": 2, "lstm": 2, "vae": 5, "gan": 4, "moe": 5, "lora": 4, "embedding": 2, "tied": 1}
    if recipe.family in fixed:
        return fixed[recipe.family]
    if recipe.family == "resnet":
        return 1 + 2 * recipe.depth
    return 1 + 4 * recipe.depth if recipe.family == "transformer" else recipe.depth - 1
