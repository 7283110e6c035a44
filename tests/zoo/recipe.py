"""The recipe of a training run: what both frameworks build from, and what a plant changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that the forward pass does to the outputs of a chain layer.

    Attributes:
        layer: position in the chain.
        how: ``detach round sign scale log sqrt divide``.
        start: the first step at which it acts.
        size: the factor of ``scale``.
    """

    layer: int
    how: str
    start: int = 0
    size: float = 1.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens before one step.

    Attributes:
        step: the step before which it happens.
        what: ``weight`` (factor), ``bias`` (summand), ``inputs`` (factor, this batch), ``nan`` (in this batch),
            ``loss`` (factor, this batch), ``rate`` (factor, from here on), ``rate-once`` (factor, this step).
        layer: position in the chain, for ``weight`` and ``bias``.
        size: the factor or summand.
    """

    step: int
    what: str
    layer: int = 0
    size: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a run; equal recipes train equally.

    Attributes:
        framework: ``torch linen nnx equinox``.
        family: the kind of network, a key of ``FAMILIES``.
        data: the data set, a key of ``SOURCES``.
        depth: layers, blocks or time steps, as the family says.
        width: units of a hidden layer.
        activation: nonlinearity of the hidden layers.
        init: initialisation of the hidden layers: ``default he glorot orthogonal``, or ``gauss`` times ``gain``.
        gain: factor on the initial hidden weights.
        norm: ``"" batch layer``; of a transformer ``pre post``.
        optimizer: a key of the programs' tables of optimizers.
        rate: learning rate.
        weight_decay: as the optimizer takes it.
        schedule: ``constant warmup cosine drops restarts``.
        precision: ``fp32``; ``bf16 fp16`` parameters and all; ``bf16-amp fp16-amp`` as autocast does.
        scaler: whether a dynamic loss scaler is used.
        accumulate: micro-batches a step; in JAX, steps an update.
        clip: limit of the global gradient norm, infinite for none.
        batch: examples a micro-batch; 0 for all of them.
        steps: optimizer steps.
        seed: of weights and batches.
        trap: what makes a healthy run look sick, or ``""``.
        tail: what the optimizer does beside: ``ema frozen-prefix`` and the like are traps.
        loss_weight: constant factor on the loss.
        input_scale: constant factor on the inputs.
        input_shift: constant summand on the inputs.
        target_scale: constant factor on regression targets.
        squash: output nonlinearity, or ``""``.
        loss: ``""`` for what fits the data; ``log-zero`` for a logarithm that meets 0; ``mse`` on one-hot targets.
        recurrent: spectral radius of a recurrent weight, or 0 for the default.
        forget: summand on the forget gate's bias.
        gains: positions in the chain with factors on their initial weights.
        bias: positions in the chain with summands on their initial biases.
        effects: what the forward pass does to outputs.
        events: what happens between steps.
        omitted: positions that the optimizer does not hold.
        zero_rate: positions whose learning rate is 0.
        untrained: positions that ask for no gradient.
        skipped: positions that the forward pass leaves out.
        plumbing: mistakes of the loop: ``keep-gradients double-step eval-mode no-step optimizer-copy``.
    """

    framework: str
    family: str
    data: str
    depth: int
    width: int
    activation: str = "relu"
    init: str = "he"
    gain: float = 1.0
    norm: str = ""
    optimizer: str = "sgd"
    rate: float = 0.05
    weight_decay: float = 0.0
    schedule: str = "constant"
    precision: str = "fp32"
    scaler: bool = False
    accumulate: int = 1
    clip: float = float("inf")
    batch: int = 64
    steps: int = 60
    seed: int = 0
    trap: str = ""
    loss_weight: float = 1.0
    input_scale: float = 1.0
    input_shift: float = 0.0
    target_scale: float = 1.0
    squash: str = ""
    loss: str = ""
    recurrent: float = 0.0
    forget: float = 0.0
    gains: tuple[tuple[int, float], ...] = ()
    bias: tuple[tuple[int, float], ...] = ()
    effects: tuple[Effect, ...] = ()
    events: tuple[Event, ...] = ()
    omitted: tuple[int, ...] = ()
    zero_rate: tuple[int, ...] = ()
    untrained: tuple[int, ...] = ()
    skipped: tuple[int, ...] = ()
    plumbing: str = ""


def rates(recipe: Recipe) -> NDArray[np.float64]:
    """Returns the learning rate of every step: the schedule, with the events that change it."""
    step = np.arange(recipe.steps, dtype=np.float64)
    shape = {
        "constant": np.ones_like(step),
        "warmup": np.minimum(step / 10, 1.0),
        "cosine": 0.5 * (1 + np.cos(np.pi * step / recipe.steps)),
        "drops": 10.0 ** -np.floor(2 * step / recipe.steps),
        "restarts": 0.5 * (1 + np.cos(np.pi * (step % 20) / 20)),
    }[recipe.schedule]
    found = recipe.rate * shape
    for event in recipe.events:
        if event.what == "rate":
            found[event.step :] *= event.size
        elif event.what == "rate-once":
            found[event.step] *= event.size
    return found
