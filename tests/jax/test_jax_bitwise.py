"""Training is the same to the last bit with and without watching; where it is not, the network and the size are named.

Statistics are read from arrays that must be written out for them. Where the compiler would have computed such an array
inside a larger loop, it may round otherwise once it is written: see ``ROUNDED``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.jax.bitwise import ROUNDED, STEPS, difference, moved
from tests.jax.capturing import capture
from tests.jax.networks import DTYPES, MODES, NETWORKS

ROOT = Path(__file__).parents[2]
EVERYTHING = ["activation", "activation_gradient", "gradient", "update", "weight"]
SEEN = {"jit": EVERYTHING, "donated": EVERYTHING, "devices": EVERYTHING, "scan": ["gradient"]}
SEEN["remat"] = ["gradient", "update", "weight"]


def check(network: str, dtype: str, mode: str, found: dict[str, Any]) -> None:
    assert found["signals"] == SEEN[mode]
    assert found["calm"] == 0, "the gradient, updates, weights or activations cannot be read without changing bits"
    bound = ROUNDED.get((network, dtype), 0.0) if SEEN[mode] == EVERYTHING else 0.0
    assert found["all"] <= bound


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "devices"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("network", NETWORKS)
def test_watching_changes_no_bit(network: str, dtype: str, mode: str) -> None:
    """Over steps that sample everything and steps that sample little, trained parameters are the same to the bit."""
    check(network, dtype, mode, moved(network, dtype, mode))


@pytest.mark.parametrize("network", NETWORKS)
def test_watching_changes_no_bit_on_four_devices(network: str) -> None:
    """The same with batches spread over four devices and parameters on each."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(str(path) for path in (ROOT, ROOT / "adapters", ROOT / "reports")),
    }
    command = [sys.executable, "-m", "tests.jax.bitwise", network]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for case, found in json.loads(done.stdout.splitlines()[-1]).items():
        check(network, case.split()[1], "devices", found)


def squares(tree: Any) -> jax.Array:
    return jnp.sum(jnp.stack([jnp.sum(x * x) for x in jax.tree.leaves(tree)]))


@jax.jit
def normalised(params: Any, x: jax.Array) -> Any:
    def loss_fn(p: Any) -> jax.Array:
        return jnp.mean(jnp.square(jnp.tanh(x @ p["a"]) @ p["b"] - 0.5)) + 0.01 * squares(p)

    gradients = jax.grad(loss_fn)(params)
    norm = jnp.sqrt(squares(gradients))
    return jax.tree.map(lambda p, g: p - 0.1 * g / (norm + 1e-6), params, gradients)


def test_a_gradient_that_is_never_written_may_round_otherwise() -> None:
    """Where a step only divides the gradient by its norm, reading it moves a parameter by a few roundings at most."""
    rng = np.random.default_rng(0)
    start = {name: jnp.asarray(rng.normal(size=(32, 32)) * 0.2, jnp.float32) for name in "ab"}
    batches = [jnp.asarray(rng.normal(size=(16, 32)), jnp.float32) for _ in range(STEPS)]
    with capture(normalised, signals="gradient") as captured:
        bare = watched = start
        for x in batches:
            bare, watched = normalised(bare, x), captured.step(watched, x)
    assert len(captured.records) == STEPS
    assert difference(watched, bare) < 1e-6
