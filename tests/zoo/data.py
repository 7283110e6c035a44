"""The data: sets that ship with scikit-learn, synthetic ones, and the batches of a recipe."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.zoo.recipe import Recipe

Array = NDArray[Any]
VOCABULARY: Final = 64
"""Tokens of the synthetic language; the later half is rare."""
IGNORED: Final = -100
"""The label of what the loss leaves out."""


@dataclass(frozen=True)
class Data:
    """A data set: float32 inputs (n, features), or int64 tokens (n, length); labels, or float32 targets."""

    inputs: Array
    targets: Array
    classes: int


@dataclass(frozen=True)
class Batch:
    """What one backward pass is given, and the factor on its loss."""

    inputs: Array
    targets: Array
    factor: float = 1.0


def _tabular(name: str) -> Data:
    from sklearn import datasets

    loaded = getattr(datasets, f"load_{name}")()
    inputs = np.asarray(loaded.data, np.float32)
    inputs = (inputs - inputs.mean(0)) / (inputs.std(0) + 1e-6) if name != "digits" else _standard(inputs)
    if name == "diabetes":
        return Data(inputs, _standard(np.asarray(loaded.target, np.float32))[:, None], 0)
    return Data(inputs, np.asarray(loaded.target, np.int64), len(set(loaded.target)))


def _few() -> Data:
    """Every seventh of the digits: a set whose whole is a batch of ordinary size."""
    digits = _tabular("digits")
    return Data(digits.inputs[::7], digits.targets[::7], digits.classes)


def _standard(values: Array) -> Array:
    found: Array = ((values - values.mean()) / values.std()).astype(np.float32)
    return found


def _teacher() -> Data:
    """A linear map plus a nonlinear one, with noise."""
    random = np.random.default_rng(11)
    inputs = random.normal(size=(1024, 16)).astype(np.float32)
    hidden = np.tanh(inputs @ random.normal(size=(16, 32)) / 2)
    targets = hidden @ random.normal(size=(32, 4)) / 4 + inputs @ random.normal(size=(16, 4)) / 4
    return Data(inputs, _standard(targets + 0.1 * random.normal(size=targets.shape)), 0)


def _exact() -> Data:
    """Targets that a linear map fits exactly: the gradient falls by many decades, which is health."""
    random = np.random.default_rng(12)
    inputs = random.normal(size=(256, 8)).astype(np.float32)
    return Data(inputs, (inputs @ random.normal(size=(8, 2))).astype(np.float32), 0)


def _heavy() -> Data:
    """Two classes of which one is rare, with heavy tails."""
    random = np.random.default_rng(13)
    labels = (random.random(2048) < 0.1).astype(np.int64)
    inputs = random.standard_t(3, size=(2048, 16)) + 1.5 * labels[:, None]
    return Data(np.clip(inputs, -20, 20).astype(np.float32), labels, 2)


def _memory() -> Data:
    """Sequences of 24 steps of 4 numbers; the class is the sign pattern of the first step, the rest is noise."""
    random = np.random.default_rng(14)
    inputs = 0.3 * random.normal(size=(2048, 24, 4))
    labels = random.integers(0, 4, 2048)
    inputs[:, 0, :2] = 2.0 * np.stack([labels % 2, labels // 2], 1) - 1.0
    return Data(inputs.reshape(2048, -1).astype(np.float32), labels.astype(np.int64), 4)


def _tokens() -> Data:
    """A language of first-order chains: each token has three likely successors."""
    random = np.random.default_rng(15)
    successors = random.integers(0, VOCABULARY // 2, (VOCABULARY, 3))
    tokens = np.empty((1024, 13), np.int64)
    tokens[:, 0] = random.integers(0, VOCABULARY, 1024)
    for t in range(1, 13):
        tokens[:, t] = successors[tokens[:, t - 1], random.integers(0, 3, 1024)]
    return Data(tokens[:, :-1], tokens[:, 1:], VOCABULARY)


SOURCES: Final[dict[str, Callable[[], Data]]] = {
    **{name: functools.partial(_tabular, name) for name in ("digits", "breast_cancer", "wine", "diabetes")},
    "few": _few,
    "teacher": _teacher,
    "exact": _exact,
    "heavy": _heavy,
    "memory": _memory,
    "tokens": _tokens,
}


@functools.cache
def source(name: str) -> Data:
    """Returns a data set by name, made once a process."""
    return SOURCES[name]()


def micro_batches(recipe: Recipe) -> list[list[Batch]]:
    """Returns the micro-batches of every step, with the events that change them."""
    data, random = _trapped(recipe, source(recipe.data)), np.random.default_rng(recipe.seed)
    per_step = []
    for step in range(recipe.steps):
        pool = _pool(recipe, step, data)
        rows = []
        for _ in range(recipe.accumulate):
            chosen = pool if recipe.batch == 0 else pool[random.integers(0, len(pool), recipe.batch)]
            rows.append(_spoiled(recipe, step, data.inputs[chosen], data.targets[chosen]))
        per_step.append(rows)
    return per_step


def _trapped(recipe: Recipe, data: Data) -> Data:
    """Wrong labels, missing numbers behind the end of an example, or tokens that stand for nothing."""
    random, size = np.random.default_rng(21), len(data.inputs)
    if recipe.trap == "label-noise":
        wrong = random.random(data.targets.shape) < 0.25
        return replace(data, targets=np.where(wrong, random.integers(0, data.classes, wrong.shape), data.targets))
    if recipe.trap == "nan-padding":
        width = data.inputs.shape[1]
        ends = width - random.integers(0, 3, size) * (width // 8)
        return replace(data, inputs=np.where(np.arange(width) < ends[:, None], data.inputs, np.float32(np.nan)))
    if recipe.trap == "padding":
        behind = np.arange(data.inputs.shape[1]) >= random.integers(6, 13, size)[:, None]
        return replace(data, inputs=np.where(behind, 0, data.inputs), targets=np.where(behind, IGNORED, data.targets))
    return data


def _pool(recipe: Recipe, step: int, data: Data) -> Array:
    """The examples that a step may draw; alternating steps draw from one half of the classes each."""
    everything = np.arange(len(data.inputs))
    return everything[data.targets % 2 == step % 2] if recipe.trap == "alternating" else everything


def _spoiled(recipe: Recipe, step: int, inputs: Array, targets: Array) -> Batch:
    factor = recipe.loss_weight
    if inputs.dtype == np.float32:
        inputs = inputs * np.float32(recipe.input_scale) + np.float32(recipe.input_shift)
    if targets.dtype == np.float32:
        targets = targets * np.float32(recipe.target_scale)
    for event in recipe.events:
        if event.step != step:
            continue
        if event.what == "inputs":
            inputs = inputs * np.float32(event.size)
        elif event.what == "nan":
            inputs = inputs.copy()
            inputs[0, 0] = np.nan
        elif event.what == "loss":
            factor *= event.size
    return Batch(inputs, targets, factor)
