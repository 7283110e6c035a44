"""The README tells the truth about JAX: its train steps run as they stand, and what it promises of them holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import gradwatch
from tests.jax.programs import mlp
from tests.readme import NEEDS_README, blocks

pytestmark = NEEDS_README

STEPS = 30
WIDTHS = (8, 16, 2)


def loss_fn(logits: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def loader() -> Iterator[tuple[jax.Array, jax.Array]]:
    x = np.random.default_rng(0).normal(size=(STEPS, 32, WIDTHS[0])).astype(np.float32)
    return ((jnp.asarray(batch), jnp.asarray(batch.sum(axis=1) > 0, jnp.int32)) for batch in x)


def apply(params: Any, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    logits: jax.Array = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
    return logits


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> Any:
        return linen.Dense(WIDTHS[2])(linen.relu(linen.Dense(WIDTHS[1])(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(*WIDTHS[:2], rngs=rngs)
        self.last = nnx.Linear(*WIDTHS[1:], rngs=rngs)

    def __call__(self, x: jax.Array) -> Any:
        return self.last(nnx.relu(self.first(x)))


CLIPPED_TO = 1e-3
tx = optax.chain(optax.clip_by_global_norm(CLIPPED_TO), optax.adamw(1e-3))


def train_optax(train_step: Callable[..., Any]) -> None:
    params = mlp(WIDTHS)
    opt_state = tx.init(params)
    for x, y in loader():
        params, opt_state, _ = train_step(params, opt_state, x, y)


def train_linen(train_step: Callable[..., Any]) -> None:
    model = Linen()
    variables = model.init(jax.random.key(0), jnp.zeros((1, WIDTHS[0])))
    state = TrainState.create(  # type: ignore[no-untyped-call]
        apply_fn=model.apply, params=variables["params"], tx=tx
    )
    for x, y in loader():
        state, _ = train_step(state, x, y)


def train_nnx(train_step: Callable[..., Any]) -> None:
    model = Nnx(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for x, y in loader():
        train_step(model, optimizer, x, y)


def train_equinox(train_step: Callable[..., Any]) -> None:
    model: Any = eqx.nn.MLP(*WIDTHS[::2], WIDTHS[1], depth=1, key=jax.random.key(0))
    opt_state = tx.init(eqx.filter(model, eqx.is_array))
    for x, y in loader():
        model, opt_state, _ = train_step(model, opt_state, x, y)


LOOPS: dict[str, tuple[Callable[[Callable[..., Any]], None], set[str]]] = {
    "optax": (train_optax, {"Dense_0", "Dense_1"}),
    "linen": (train_linen, {"Dense_0", "Dense_1"}),
    "nnx": (train_nnx, {"first", "last"}),
    "equinox": (train_equinox, {"layers.0", "layers.1"}),
}


def test_every_train_step_of_the_page_is_tried() -> None:
    """The page has one block for each way to write a step, in this order, each with a run of its own."""
    found = [re.findall(r'run="runs/(\w+)"', block) for block in blocks("python", "In JAX")]
    assert found == [[name] for name in LOOPS]


@pytest.mark.parametrize("framework", LOOPS)
def test_the_train_step_runs_as_it_stands(
    framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every step of it is in the run, with gradients, updates, weights and the loss. Nothing is found."""
    monkeypatch.chdir(tmp_path)
    block = next(block for block in blocks("python", "In JAX") if f"runs/{framework}" in block)
    names: dict[str, Any] = {"gradwatch": gradwatch, "jax": jax, "optax": optax, "nnx": nnx, "eqx": eqx}
    names |= {"loss_fn": loss_fn, "apply": apply, "tx": tx}
    exec(compile(block, "README.md", "exec"), names)
    train, layers = LOOPS[framework]
    train(names["train_step"])
    names["train_step"].watch.close()
    assert "Gradients look healthy" in capsys.readouterr().err
    run = gradwatch.load(tmp_path / "runs" / framework)
    assert (run.path / "report.html").exists()
    assert run.recording.facts["framework"] == "JAX"
    for signal in ("gradient", "update", "weight"):
        frame = run.frame(signal)
        assert set(frame["layer"]) == layers
        assert frame.groupby("parameter", observed=True)["l2"].count().tolist() == [STEPS] * 4
    squares = run.frame("gradient").assign(square=lambda rows: rows["l2"] ** 2)
    assert (squares.groupby("step")["square"].sum() ** 0.5 > 10 * CLIPPED_TO).all()
    losses = run.recording.step_tables[0].logged["loss"]
    assert np.isfinite(losses).sum() == STEPS
    assert losses[-5:].mean() < losses[:5].mean()
