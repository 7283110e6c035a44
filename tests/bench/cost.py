"""What watching costs: paired whole steps, process CPU time, sampled and unsampled steps apart.

    python -m tests.bench.cost [--models mlp-50k gpt-25m] [--pairs 5] [--json]

Bare and watched training run in processes of their own, in the order ABBA, on one thread. CPU time is the process's,
so the writer thread counts. A watched step is compared with the bare run's mean step of its pair.
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
from contextlib import nullcontext
from statistics import mean
from typing import Any, Final

STEPS: Final = {"mlp-50k": 512, "gpt-25m": 194}
WARM_UP: Final = 8

KINDS: Final[dict[str, Callable[[int], bool]]] = {
    "steps 0-15: all signals": lambda s: s < 16,
    "steps 16-63: update, weight": lambda s: 16 <= s < 64,
    "lean gradient": lambda s: s >= 64 and s % 8 != 0,
    "every 8th: + histogram": lambda s: s >= 64 and s % 8 == 0 and s % 32 != 0,
    "every 32nd: + update, weight": lambda s: s >= 64 and s % 32 == 0 and s % 64 != 0,
    "every 64th: + activations": lambda s: s >= 64 and s % 64 == 0,
}
IN_64_STEPS: Final = {
    "lean gradient": 56,
    "every 8th: + histogram": 6,
    "every 32nd: + update, weight": 1,
    "every 64th: + activations": 1,
}
"""How often each kind of step comes in the steady state."""


def worker(name: str, watched: bool) -> list[float]:
    """Trains; returns each step's process CPU time in seconds."""
    import torch

    import gradwatch
    from tests.bench.models import MODELS

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, loss = MODELS[name]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> float:
        began = time.process_time()
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - began

    for _ in range(WARM_UP):
        step()
    with tempfile.TemporaryDirectory() as directory:
        watch: Any = gradwatch.watch(model, optimizer, run=directory, report=False) if watched else nullcontext()
        with watch:
            return [step() for _ in range(STEPS[name])]


def run(name: str, watched: bool) -> list[float]:
    """Runs a worker in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.cost", "--worker", name, "watched" if watched else "bare"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times


def measure(name: str, pairs: int) -> dict[str, Any]:
    """Measures one model; returns the ratios of each kind of step, one a pair."""
    ratios: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "steady state")}
    bare_steps = []
    for pair in range(pairs):
        order = (False, True) if pair % 2 == 0 else (True, False)
        times = {watched: run(name, watched) for watched in order}
        bare = mean(times[False][64:])
        bare_steps.append(bare)
        for kind, belongs in KINDS.items():
            ratios[kind].append(mean(t for s, t in enumerate(times[True]) if belongs(s)) / bare)
        ratios["steady state"].append(sum(n * ratios[kind][-1] for kind, n in IN_64_STEPS.items()) / 64)
    return {"model": name, "bare_step_ms": 1000 * mean(bare_steps), "ratios": ratios}


def table(results: Sequence[dict[str, Any]]) -> str:
    """Returns the ratios as a table in Markdown: mean, and the range over the pairs."""
    heads = [f"{r['model']} (bare step {r['bare_step_ms']:.2f} ms)" for r in results]
    lines = [f"| watched / bare | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for kind in (*KINDS, "steady state"):
        cells = [f"{mean(v):.3f} [{min(v):.3f}..{max(v):.3f}]" for r in results for v in [r["ratios"][kind]]]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker[0], options.worker[1] == "watched")))
        return
    results = [measure(name, options.pairs) for name in options.models]
    print(json.dumps(results) if options.json else table(results))


if __name__ == "__main__":
    main()
