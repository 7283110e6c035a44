"""What judging a wide run afterwards costs: seconds and memory of loading it and of the rules over all of its steps.

    python -m tests.bench.wide_runs [--layers 1000] [--steps 10000] [--run DIRECTORY]

The run is made first, every step of it through the store, with room for all of them: nothing is rolled up, and the
rules see every step. With ``--run`` it is kept there, or taken from there when it was made before. The figures are
taken in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.bench import apart
from tests.bench.apart import MEGABYTE

ROOM: Final = 16 * 2**30
"""Bytes that the files may take."""


def measure(path: Path) -> dict[str, float]:
    """Loads and judges a run in this process; returns seconds, CPU seconds of all threads, and bytes at most held."""
    import gradwatch

    marks = [time.perf_counter()]
    run = gradwatch.load(path)
    marks.append(time.perf_counter())
    assert run.analysis.judged
    marks.append(time.perf_counter())
    load, judge = (after - before for before, after in pairwise(marks))
    return {"load": load, "judge": judge, "cpu": time.process_time(), "held": apart.held()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes a run, measures and prints."""
    parser = argparse.ArgumentParser(
        "python -m tests.bench.wide_runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--run", type=Path, help="where the run is kept")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    with tempfile.TemporaryDirectory() as directory:
        path = options.run or Path(directory) / "run"
        if not path.exists():
            _write(path, options.layers, options.steps)
        of = apart.measured("tests.bench.wide_runs", path)
        print(f"load {of['load']:.1f} s, rules {of['judge']:.1f} s, CPU {of['cpu']:.1f} s with the imports")
        print(f"at most {of['held'] / MEGABYTE:,.0f} MB held")


def _write(path: Path, layers: int, steps: int) -> None:
    from gradwatch.testing import long_run

    began = time.perf_counter()
    long_run(path, layers=layers, steps=steps, whole=steps, max_bytes=ROOM)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"written in {time.perf_counter() - began:.0f} s, {size / MEGABYTE:,.0f} MB of files", flush=True)


if __name__ == "__main__":
    main()
