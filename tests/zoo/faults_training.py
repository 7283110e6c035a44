"""Plants in numbers and in the loop: what is not finite, underflow, spikes, updates, frozen parts, plumbing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from tests.zoo.data import source
from tests.zoo.families import hidden_layers
from tests.zoo.fault import Fault, Planted, Random, inner, late
from tests.zoo.faults_signal import CHAINS, CUTS, DESCENT, GROWN, PLAIN
from tests.zoo.recipe import Effect, Event, Recipe
from tests.zoo.recording import record

Plant = Callable[[Recipe, Random], Planted]
TORCH: Final = ("torch",)
CALM: Final = (*DESCENT, "adam", "adamw")
WIDE: Final = (*CHAINS, "logistic", "resnet", "transformer", "vae", "rnn", "gru", "lstm", "moe", "embedding")
LARGE: Final = frozenset({"exploding", "nonfinite", "oscillating", "dead-units", "spike", "saturated", "vanishing"})
MISFED: Final = LARGE | {"update-too-large"}


def operation(how: str) -> Plant:
    """An operation between two layers that makes something that is not finite, from a step on."""

    def plant(recipe: Recipe, random: Random) -> Planted:
        position = inner(recipe, random, hidden_layers(recipe))
        step = late(recipe, random)
        effect = Effect(position, how, step, 1e4)
        around = position, min(position + 1, hidden_layers(recipe))
        return Planted(replace(recipe, effects=(effect,)), recipe, around, step)

    return plant


def nan_inputs(recipe: Recipe, random: Random) -> Planted:
    """One missing value in one batch."""
    step = late(recipe, random)
    return Planted(replace(recipe, events=(Event(step, "nan"),)), recipe, (0,), step)


def zero_logarithm(recipe: Recipe, random: Random) -> Planted:
    """A logarithm of 0 in the loss, while all outputs are finite: no layer is to blame."""
    step = late(recipe, random)
    return Planted(replace(recipe, loss=f"log-zero@{step}"), recipe, (), step)


def half_parameters(recipe: Recipe, random: Random) -> Planted:
    """Parameters and gradients in fp16, a loss so small that gradients fall below 2^-24, and a rate to match."""
    twin = replace(recipe, norm="" if recipe.norm == "batch" else recipe.norm)
    weight = 10.0 ** float(random.uniform(-6, -5))
    sick = replace(twin, precision="fp16", loss_weight=weight, rate=min(twin.rate / weight, 3e4))
    return Planted(sick, twin)


def unscaled_half(recipe: Recipe, random: Random) -> Planted:
    """Mixed precision in fp16 without a loss scaler, with a small loss that an adaptive optimizer should not mind."""
    weight = 10.0 ** float(random.uniform(-6, -5))
    return Planted(replace(recipe, precision="fp16-amp", loss_weight=weight), recipe)


def _once(what: str, low: float, high: float) -> Plant:
    """Something that happens at one step of a longer run, which has time to come back."""

    def plant(recipe: Recipe, random: Random) -> Planted:
        twin = replace(recipe, steps=80)
        step = int(random.integers(20, 45))
        event = Event(step, what, size=low * (high / low) ** float(random.random()))
        return Planted(replace(twin, events=(event,)), twin, (), step)

    return plant


def reckless_rate(recipe: Recipe, random: Random) -> Planted:
    """A learning rate hundreds of times too high."""
    return Planted(replace(recipe, rate=recipe.rate * float(random.uniform(200, 1000))), recipe)


def reckless_later(recipe: Recipe, random: Random) -> Planted:
    """The same from the middle of training on."""
    step = late(recipe, random)
    event = Event(step, "rate", size=float(random.uniform(300, 1000)))
    return Planted(replace(recipe, events=(event,)), recipe, (), step)


def reckless_decay(recipe: Recipe, random: Random) -> Planted:
    """Weight decay that takes half of every weight at every step."""
    twin = replace(recipe, optimizer="sgd", rate=0.05)
    return Planted(replace(twin, weight_decay=float(random.uniform(8, 16))), twin)


def negligible_rate(recipe: Recipe, random: Random) -> Planted:
    """A learning rate a million times too low."""
    return Planted(replace(recipe, rate=recipe.rate * 10.0 ** float(random.uniform(-7, -5.5))), recipe)


def negligible_later(recipe: Recipe, random: Random) -> Planted:
    """A schedule that ends far too early."""
    step = int(random.integers(5, 12))
    factor = 0.0 if random.random() < 0.5 else 1e-7
    return Planted(replace(recipe, events=(Event(step, "rate", size=factor),)), recipe, (), step)


def lost_in_rounding(recipe: Recipe, random: Random) -> Planted:
    """Steps smaller than half the distance between two numbers of bf16."""
    twin = replace(recipe, rate=recipe.rate * float(random.uniform(0.03, 0.1)), steps=120)
    return Planted(replace(twin, precision="bf16"), twin)


def _curvature(recipe: Recipe, shift: float = 0.0) -> float:
    """The largest curvature of the squared error of a linear map with biases over the whole set."""
    data = source(recipe.data)
    inputs = np.concatenate([data.inputs + shift, np.ones((len(data.inputs), 1))], axis=1).astype(np.float64)
    outputs = data.classes or data.targets.shape[1]
    return float(2 * np.linalg.eigvalsh(inputs.T @ inputs / len(inputs))[-1] / outputs)


def edge_rate(recipe: Recipe, random: Random) -> Planted:
    """Gradient descent just below twice the inverse curvature: the sharpest direction swings and hardly decays."""
    data = "diabetes" if recipe.family == "linear" else "breast_cancer"
    twin = replace(recipe, data=data, loss="mse" if recipe.family == "logistic" else "", batch=0)
    heavy = 1.9 if recipe.optimizer == "momentum" else 1.0
    limit = 2 * heavy / _curvature(twin)
    twin = replace(twin, rate=0.3 * limit / heavy)
    return Planted(replace(twin, rate=limit * float(random.uniform(0.993, 1.004))), twin)


def uncentred_inputs(recipe: Recipe, random: Random) -> Planted:
    """Inputs with a mean, which makes one direction so steep that an ordinary rate lies at its edge."""
    data = str(random.choice(["wine", "breast_cancer"])) if recipe.family == "logistic" else "exact"
    twin = replace(recipe, data=data, loss="mse" if recipe.family == "logistic" else "", batch=0)
    shift = float(random.uniform(1.5, 4.0))
    rate = float(random.uniform(0.99, 1.003)) * 2 / _curvature(twin, shift)
    twin = replace(twin, rate=rate)
    return Planted(replace(twin, input_shift=shift), twin)


@functools.cache
def _steepness(recipe: Recipe) -> float:
    """The largest curvature of a loss that is square in what is trained, by four steps that go far beyond its edge.

    A step at rate r multiplies the error along a curvature c by 1 - r c, so the steepest direction soon is all.
    """
    errors = record(replace(recipe, rate=50.0, steps=5)).deltas["head"]
    return (1 + errors[4].rms / errors[3].rms) / 50.0


def edge_of_head(recipe: Recipe, random: Random) -> Planted:
    """A head on frozen features that are far from centred, under gradient descent at the edge of its steepness."""
    frozen = tuple(range(hidden_layers(recipe)))
    # In torch what asks for no gradient has none; in JAX no gradient is let through to what is labelled as still.
    stop = () if recipe.framework == "torch" else (Effect(frozen[-1], "detach"),)
    twin = replace(recipe, data="few", loss="mse", batch=0, norm="", untrained=frozen, effects=stop)
    limit = 2 / _steepness(twin)
    twin = replace(twin, rate=0.3 * limit)
    return Planted(replace(twin, rate=limit * float(random.uniform(0.998, 1.012))), twin)


def clipped_sum(recipe: Recipe, random: Random) -> Planted:
    """A loss made thousands of times larger, with a rate to match, under a clip that nobody adapted."""
    factor = 10.0 ** float(random.uniform(3, 4))
    twin = replace(recipe, loss_weight=factor, rate=recipe.rate / factor)
    return Planted(replace(twin, clip=1.0), twin)


def tight_clip(recipe: Recipe, random: Random) -> Planted:
    """A limit of the gradient's norm thousands of times below what the gradient is."""
    return Planted(replace(recipe, clip=10.0 ** float(random.uniform(-4, -2.3))), recipe)


def omitted(recipe: Recipe, random: Random) -> Planted:
    """A layer that the optimizer was not given."""
    position = inner(recipe, random, hidden_layers(recipe))
    return Planted(replace(recipe, omitted=(position,)), recipe, (position,))


def zero_rate(recipe: Recipe, random: Random) -> Planted:
    """A group of the optimizer whose learning rate is 0."""
    position = inner(recipe, random, hidden_layers(recipe))
    return Planted(replace(recipe, zero_rate=(position,)), recipe, (position,))


def untrained(recipe: Recipe, random: Random) -> Planted:
    """A layer in the middle that asks for no gradient."""
    position = inner(recipe, random, hidden_layers(recipe))
    return Planted(replace(recipe, untrained=(position,)), recipe, (position,))


def mistake(name: str) -> Plant:
    """A mistake of the loop."""

    def plant(recipe: Recipe, random: Random) -> Planted:
        return Planted(replace(recipe, plumbing=name), recipe)

    return plant


def raw_inputs(recipe: Recipe, random: Random) -> Planted:
    """Inputs that nobody normalised."""
    twin = replace(recipe, norm="")
    scale, shift = float(random.uniform(50, 255)), float(random.choice([0.0, 100.0]))
    return Planted(replace(twin, input_scale=scale, input_shift=shift), twin, (0,))


def raw_targets(recipe: Recipe, random: Random) -> Planted:
    """Regression targets thousands of times the outputs."""
    return Planted(replace(recipe, target_scale=float(random.uniform(1e3, 1e4))), recipe)


def norm_of_one(recipe: Recipe, random: Random) -> Planted:
    """Batch normalisation over batches of one example."""
    twin = replace(recipe, norm="batch", batch=32)
    return Planted(replace(twin, batch=1), twin)


FAULTS: Final[dict[str, Fault]] = {
    "log": Fault("nonfinite", operation("log"), CUTS),
    "divide": Fault("nonfinite", operation("divide"), CUTS),
    "sqrt": Fault("nonfinite", operation("sqrt"), PLAIN),
    "exp": Fault("nonfinite", operation("exp"), CHAINS, frozenset({"exploding"})),
    "nan-inputs": Fault("nonfinite", nan_inputs, (*CHAINS, "linear", "logistic", "vae", "rnn", "lstm")),
    "zero-logarithm": Fault("nonfinite", zero_logarithm, ("logistic", "mlp", "cnn", "rnn", "transformer")),
    "half-parameters": Fault(
        "underflow",
        half_parameters,
        ("mlp", "plain", "multitask"),
        frozenset({"vanishing", "update-too-small"}),
        optimizers=("sgd",),
    ),
    "unscaled-half": Fault(
        "underflow",
        unscaled_half,
        ("mlp", "plain", "cnn", "moe"),
        frozenset({"vanishing", "update-too-small"}),
        optimizers=("adam", "adamw"),
        frameworks=TORCH,
    ),
    "bad-batch": Fault("spike", _once("inputs", 10, 100), (*CHAINS, "rnn"), MISFED, optimizers=CALM),
    "rate-once": Fault(
        "spike", _once("rate-once", 10, 100), (*CHAINS, "logistic"), MISFED, frozenset({"update-too-large"})
    ),
    "loss-once": Fault("spike", _once("loss", 30, 300), (*CHAINS, "logistic"), MISFED, optimizers=DESCENT),
    "reckless-rate": Fault("update-too-large", reckless_rate, WIDE, LARGE),
    "reckless-later": Fault("update-too-large", reckless_later, WIDE, LARGE),
    "reckless-decay": Fault("update-too-large", reckless_decay, PLAIN, LARGE, optimizers=("sgd",)),
    "negligible-rate": Fault("update-too-small", negligible_rate, WIDE),
    "negligible-later": Fault("update-too-small", negligible_later, WIDE),
    "lost-in-rounding": Fault(
        "update-too-small",
        lost_in_rounding,
        ("mlp", "plain", "multitask"),
        frozenset({"frozen", "vanishing"}),
        optimizers=DESCENT,
    ),
    "edge-rate": Fault("oscillating", edge_rate, ("linear", "logistic"), GROWN, optimizers=("sgd", "momentum")),
    "uncentred": Fault(
        "oscillating", uncentred_inputs, ("linear", "logistic"), GROWN | {"plumbing"}, optimizers=("sgd",)
    ),
    "edge-of-head": Fault("oscillating", edge_of_head, ("mlp", "plain", "cnn", "rnn"), GROWN, optimizers=("sgd",)),
    "tight-clip": Fault(
        "clipping",
        tight_clip,
        (*CHAINS, "resnet", "rnn", "logistic"),
        frozenset({"update-too-small"}),
        optimizers=DESCENT,
    ),
    "clipped-sum": Fault(
        "clipping",
        clipped_sum,
        (*CHAINS, "resnet", "rnn", "logistic"),
        frozenset({"update-too-small"}),
        optimizers=DESCENT,
    ),
    "omitted": Fault("frozen", omitted, (*CUTS, "rnn", "moe")),
    "zero-rate": Fault("frozen", zero_rate, (*CUTS, "rnn", "moe"), frameworks=TORCH),
    "untrained": Fault("frozen", untrained, (*CHAINS, "rnn", "vae"), frameworks=TORCH),
    "optimizer-copy": Fault("frozen", mistake("optimizer-copy"), WIDE, frozenset({"plumbing"}), frameworks=TORCH),
    "no-step": Fault("frozen", mistake("no-step"), WIDE, frozenset({"plumbing"})),
    "keep-gradients": Fault("plumbing", mistake("keep-gradients"), WIDE, MISFED),
    "eval-mode": Fault("plumbing", mistake("eval-mode"), ("resnet",), MISFED, frameworks=TORCH),
    "norm-of-one": Fault("plumbing", norm_of_one, ("resnet", "cnn"), MISFED, frameworks=TORCH),
    "raw-inputs": Fault("plumbing", raw_inputs, (*CHAINS, "logistic"), MISFED, optimizers=DESCENT),
    "raw-targets": Fault("plumbing", raw_targets, ("linear",), MISFED, optimizers=("adam", "rmsprop", "nadam")),
}
