"""What watching adds to the compilation of a JAX step with 512 parameter arrays: 256 dense layers of 64x64.

    python -m tests.bench.compile_time [--networks plain flax] [--optimizers sgd adamw] [--repeats 3] [--json]

Each reading is the CPU time of the first call of a jitted step, in a process of its own: its tracing, lowering and
compilation, and one run. Bare and watched take turns, on one thread for XLA's operations. In ``plain``, a function of
a dictionary, no layer is known; in ``flax`` the activations of all layers are read too. The medians are compared, and
the exit code is 1 where a difference or a ratio is above its limit. GRADWATCH_NATIVE=0 leaves out the call in C.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any, Final

LAYERS: Final = 256
WIDTH: Final = 64
BATCH: Final = 16
OPTIMIZERS: Final = ("sgd", "adamw")
MOST_SECONDS: Final = 2.5
"""CPU seconds that watching may add."""
MOST_RATIO: Final = 1.4
"""Watched to bare."""


def plain() -> Callable[..., Any]:
    """Returns the network as a function of parameters and inputs."""
    import jax.numpy as jnp

    def apply(params: Any, x: Any) -> Any:
        for i in range(LAYERS):
            x = jnp.tanh(x @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"])
        return x

    return apply


def flax() -> Callable[..., Any]:
    """Returns the same network made of Flax layers."""
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            for _ in range(LAYERS):
                x = linen.tanh(linen.Dense(WIDTH)(x))
            return x

    return lambda params, x: Network().apply({"params": params}, x)


NETWORKS: Final[dict[str, Callable[[], Callable[..., Any]]]] = {"plain": plain, "flax": flax}


def train_step(apply: Callable[..., Any], optimizer: Any) -> Callable[..., Any]:
    """Returns a jitted step."""
    import jax
    import jax.numpy as jnp
    import optax

    @jax.jit
    def step(params: Any, state: Any, x: Any) -> Any:
        gradients = jax.grad(lambda p: jnp.mean(jnp.square(apply(p, x) - 0.5)))(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step


def worker(name: str, optimizer: str, watched: bool) -> float:
    """Returns the CPU seconds of the first call."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import gradwatch

    rng = np.random.default_rng(0)
    params = {
        f"Dense_{i}": {
            "kernel": jnp.asarray(rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5, jnp.float32),
            "bias": jnp.asarray(np.zeros(WIDTH, np.float32)),
        }
        for i in range(LAYERS)
    }
    x = jnp.asarray(rng.normal(size=(BATCH, WIDTH)), jnp.float32)
    rule = {"sgd": optax.sgd, "adamw": optax.adamw}[optimizer](1e-3)
    state = rule.init(params)
    step: Any = train_step(NETWORKS[name](), rule)
    with ExitStack() as stack:
        if watched:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            step = gradwatch.watch(run=directory, report=False)(step)
            stack.callback(step.watch.close)
        began = time.process_time()
        jax.block_until_ready(step(params, state, x))
        return time.process_time() - began


def run(name: str, optimizer: str, watched: bool) -> float:
    """Runs a worker in a process of its own."""
    task = (name, optimizer, "watched" if watched else "bare")
    command = [sys.executable, "-m", "tests.bench.compile_time", "--worker", *task]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds: float = json.loads(done.stdout.splitlines()[-1])
    return seconds


def measure(name: str, optimizer: str, repeats: int) -> dict[str, Any]:
    """Measures one network with one optimizer; returns the readings, and what the medians come to."""
    readings: dict[bool, list[float]] = {False: [], True: []}
    for repeat in range(repeats):
        for watched in (False, True) if repeat % 2 == 0 else (True, False):
            readings[watched].append(run(name, optimizer, watched))
    bare, watched_s = median(readings[False]), median(readings[True])
    return {
        "network": name,
        "optimizer": optimizer,
        "bare_s": readings[False],
        "watched_s": readings[True],
        "difference_s": watched_s - bare,
        "ratio": watched_s / bare,
        "within": watched_s - bare <= MOST_SECONDS and watched_s / bare <= MOST_RATIO,
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """Returns the results as a table in Markdown: medians, and the range of the readings."""

    def cell(readings: Sequence[float]) -> str:
        return f"{median(readings):.2f} [{min(readings):.2f}..{max(readings):.2f}]"

    lines = [
        f"| first call, CPU s | bare | watched | difference (limit {MOST_SECONDS}) | ratio (limit {MOST_RATIO}) |",
        "|---|---|---|---|---|",
    ]
    for r in results:
        cells = [cell(r["bare_s"]), cell(r["watched_s"]), f"{r['difference_s']:.2f}", f"{r['ratio']:.2f}"]
        lines.append(f"| {r['network']}, {r['optimizer']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measures and prints; returns 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, optimizer, kind = options.worker
        print(json.dumps(worker(name, optimizer, kind == "watched")))
        return 0
    results = [measure(n, o, options.repeats) for n in options.networks for o in options.optimizers]
    print(json.dumps(results) if options.json else table(results))
    return 0 if all(r["within"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
