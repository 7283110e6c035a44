"""What watching costs, beside what other tools cost: whole training steps, and reads of the gradients.

    python -m tests.bench [--networks mlp-50k gpt-25m] [--rows default every-10] [--json FILE]
    python -m tests.bench --quick

A whole step is CPU time of the process, the writer's thread included, in a process of its own. Each round runs bare
training, every row and bare training again; the next one runs them the other way round. A ratio is a row's step to the
mean of its round's two bare steps; how far these two are from each other is the noise. The default schedule is timed
from step 128 on, over at least 256 steps; "first 128 steps" are its steps 1 to 127, and "once" is what attaching and
step 0 add: imports, files, compilation. What has no such phases is timed over whole periods, on large networks over
fewer steps. Rivals take part in two rounds; a process that one starts beside is not counted. "memory" is the peak above
that of bare training, imports included. PyTorch trains on one thread, JAX on as many as it takes by itself.

Rivals that are not installed are named in the table. Each network's table is printed as soon as it is measured, and
FILE holds what is done so far. On two quiet cores the four small networks together take about 40 minutes, gpt-25m,
jax-gpt-23m and linen-gpt-23m about 35 each, and wide-100m 110; --rows default takes a third less of the large ones.
--quick takes about 10 minutes: 2 rounds of the small networks, at most 64 steps each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tests.bench import rounds
from tests.bench.networks import NETWORKS, SMALL
from tests.bench.rows import BARE, NOISE, ROWS, rows_for
from tests.bench.table import as_data, table

READS: Final = "reads"
QUICK: Final = {"pairs": 2, "steps": 64}
PACKAGES: Final = ("gradwatch", "torch", "jax", "flax", "wandb", "tensorboard", "lightning")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    options = _options(arguments)
    machine = _machine()
    print(machine["sentence"], flush=True)
    done: list[dict[str, Any]] = []
    for name in options.networks:
        network = NETWORKS[name]
        rows = rows_for(network, tuple(options.rows))
        measured = rounds.measure(network, rows, options.pairs, options.steps, reads=READS in options.rows)
        print(f"\n{table(measured)}", flush=True)
        done.append(as_data(measured))
        if options.json:
            options.json.write_text(json.dumps({"machine": machine, "networks": done}, indent=1), encoding="utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = [key for key in ROWS if key not in (BARE.key, NOISE.key)]
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--rows", nargs="+", choices=[*rows, READS], metavar="ROW", help=", ".join([*rows, READS]))
    parser.add_argument("--pairs", type=int, help="rounds of processes; 5 by default")
    parser.add_argument("--steps", type=int, help="limits the steps of the steady state")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also writes everything there")
    parser.add_argument("--quick", action="store_true", help="2 rounds, at most 64 steps, small networks by default")
    options = parser.parse_args(arguments)
    options.networks = options.networks or list(SMALL if options.quick else NETWORKS)
    options.rows = options.rows or [*rows, READS]
    options.pairs = options.pairs or (QUICK["pairs"] if options.quick else 5)
    options.steps = options.steps or (QUICK["steps"] if options.quick else None)
    return options


def _machine() -> dict[str, Any]:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    busy = " It is busy: trust no small difference." if load > 0.5 else ""
    return {
        "sentence": f"{platform.machine()}, {cores} cores, load {load:.1f}, Python {platform.python_version()}.{busy}",
        "cores": cores,
        "load": load,
        "processor": _processor(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
