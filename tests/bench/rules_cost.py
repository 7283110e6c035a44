"""What the streaming rules cost: CPU time of the thread that runs them, per captured step.

    python -m tests.bench.rules_cost [--layers 100] [--steps 2048] [--rounds 5]

A layer has two parameters. The records of a healthy run at the default schedule are made first; then they are given to
the stream of rules as the writer's thread gives them, and told findings are looked for as often.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Final

from gradwatch.analyze import Stream
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.record import StepRecord

FIRST: Final = 128
"""Steps at the start, in which the schedule looks at more."""


def measure(run: SyntheticRun, records: Sequence[StepRecord]) -> tuple[float, float]:
    """Returns microseconds of CPU per step over the first ``FIRST`` steps and over the others."""
    stream = Stream(run.sites, on_finding=lambda _: None)
    marks = [time.thread_time()]
    for part in (records[:FIRST], records[FIRST:]):
        for record in part:
            stream(record)
        marks.append(time.thread_time())
    first, rest = marks[1] - marks[0], marks[2] - marks[1]
    return 1e6 * first / FIRST, 1e6 * rest / max(len(records) - FIRST, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        "python -m tests.bench.rules_cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--steps", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    run = SyntheticRun(layers=options.layers, steps=options.steps)
    records = list(run.records())
    rounds = [measure(run, records) for _ in range(options.rounds)]
    for name, values in zip((f"first {FIRST} steps", "then"), zip(*rounds, strict=True), strict=True):
        print(f"{name}: {statistics.median(values):.0f} us a step [{min(values):.0f}..{max(values):.0f}]")
    whole = [(FIRST * first + (len(records) - FIRST) * rest) / len(records) for first, rest in rounds]
    print(f"over all {len(records):,} steps, {2 * options.layers} parameters: {statistics.median(whole):.0f} us a step")


if __name__ == "__main__":
    main()
