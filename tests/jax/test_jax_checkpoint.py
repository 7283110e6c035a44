"""Checkpoints of an optimizer with a ring, written and read by orbax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradwatch_jax
from tests.jax.programs import data, loss_fn, mlp, same

ocp = pytest.importorskip("orbax.checkpoint")

plain = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))
ringed = optax.chain(gradwatch_jax.optax_ring(), optax.clip_by_global_norm(1.0), optax.adam(1e-2))


def trained(tx: Any, params: Any, state: Any, steps: int) -> tuple[Any, Any]:
    for i in range(steps):
        updates, state = tx.update(jax.grad(loss_fn)(params, data(seed=i)), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(("writer", "reader"), [(ringed, plain), (plain, ringed), (ringed, ringed)])
def test_checkpoints_pass_between_optimizers_with_and_without_a_ring(writer: Any, reader: Any, tmp_path: Path) -> None:
    """A stripped state is written as a plain one; put back, training goes on as if it had not stopped."""
    params, state = trained(writer, mlp(), writer.init(mlp()), 3)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", {"params": params, "state": gradwatch_jax.strip(state)})
        checkpointer.wait_until_finished()
        blank = jax.tree.map(np.zeros_like, {"params": params, "state": plain.init(params)})
        loaded = checkpointer.restore(tmp_path / "saved", blank)
    back = jax.tree.map(jnp.asarray, loaded)
    resumed = gradwatch_jax.restore(back["state"], reader.init(params))
    kept: Any = jax.tree.structure(resumed)
    assert kept == jax.tree.structure(reader.init(params))
    continued, _ = trained(reader, back["params"], resumed, 2)
    assert same(continued, trained(writer, params, state, 2)[0])
