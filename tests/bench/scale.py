"""What capture of the gradients costs, against the number of parameters and against the number of tensors.

    python -m tests.bench.scale [--largest 1000000] [--processes 3] [--json FILE]

The first table grows an MLP of 8 layers from 10^4 to 10^8 parameters, the second a residual network from 10 to 10^4
tensors of at most 256 elements. All figures are medians over the steps of a process, means over processes, in CPU time;
see ``tests.bench.reads``. On two quiet cores it takes about 10 minutes, 5 of them for 10^8 parameters.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

from tests.bench import worker

PARAMETERS: Final = (10**4, 10**5, 10**6, 10**7, 10**8)
TENSORS: Final = (10, 100, 1_000, 10_000)
DEPTH: Final = 8
STEPS: Final = 112
FEW_STEPS: Final = 48
"""Steps of networks whose step takes most of a second."""

HEAD = (
    "| parameters | tensors | bare step | one read | lean | with histogram | lean, of a step | step's end | writer |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def of_parameters(count: int) -> dict[str, Any]:
    """Returns the task for an MLP of about so many parameters."""
    width = round((count / DEPTH) ** 0.5)
    steps = FEW_STEPS if count >= PARAMETERS[-1] else STEPS
    return {"reads": {"maker": "stack", "steps": steps, "width": width, "depth": DEPTH, "batch": 32}}


def of_tensors(count: int) -> dict[str, Any]:
    """Returns the task for a residual network of so many tensors."""
    steps = FEW_STEPS if count >= TENSORS[-1] else STEPS
    return {"reads": {"maker": "residual", "steps": steps, "tensors": count, "width": 16, "batch": 16}}


def line(reads: Sequence[dict[str, Any]]) -> str:
    """Returns one line of a table, from the outcomes of processes that did the same."""
    of = {key: mean(read[key] for read in reads) for key in reads[0]}
    shares = [f"{of[part]:,.0f} us = {of[part] / of['read']:.2f} reads" for part in ("lean", "full")]
    size = f"{reads[0]['parameters']:,} | {reads[0]['tensors']:,} | {of['step'] / 1000:.2f} ms | {of['read']:,.0f} us"
    rest = f"{of['lean'] / of['step']:.2%} | {of['end']:.0f} us | {of['writer']:,.0f} us"
    return f"| {size} | {' | '.join(shares)} | {rest} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        "python -m tests.bench.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=PARAMETERS[-1], help="parameters, and 10^4 times its tensors")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    done: list[list[dict[str, Any]]] = []
    for make, counts in ((of_parameters, PARAMETERS), (of_tensors, TENSORS)):
        largest = options.largest if make is of_parameters else options.largest // 10**4
        print(f"\n{HEAD}", flush=True)
        for count in (count for count in counts if count <= largest):
            done.append([worker.run(make(count)) for _ in range(options.processes)])
            print(line(done[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(done, indent=1), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
