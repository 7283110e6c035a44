"""What a long run costs afterwards: seconds and memory of loading, judging and rendering it, and the size of its page.

    python -m tests.bench.long_runs [--layers 1000] [--steps 1000000] [--whole 3000]

The run is made first, with ``gradwatch.testing.long_run``; each figure is then taken in a process of its own. With
``--whole`` equal to ``--steps`` nothing is rolled up beforehand.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tests.bench import apart
from tests.bench.apart import MEGABYTE


def measure(path: Path) -> dict[str, float]:
    """Loads, judges and renders a run in this process; returns seconds, and bytes of the page and at most held."""
    import gradwatch

    marks = [time.perf_counter()]
    run = gradwatch.load(path)
    marks.append(time.perf_counter())
    assert run.verdict
    marks.append(time.perf_counter())
    page = run.report()
    marks.append(time.perf_counter())
    load, judge, render = (after - before for before, after in pairwise(marks))
    return {"load": load, "judge": judge, "render": render, "page": float(page.stat().st_size), "held": apart.held()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes a run, measures and prints."""
    parser = argparse.ArgumentParser(
        "python -m tests.bench.long_runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--whole", type=int, default=3000, help="the last so many steps are written one by one")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    from gradwatch.testing import long_run

    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        path = long_run(Path(directory) / "run", layers=options.layers, steps=options.steps, whole=options.whole)
        print(f"written in {time.perf_counter() - began:.0f} s", flush=True)
        of = apart.measured("tests.bench.long_runs", path)
        print(f"load {of['load']:.1f} s, rules {of['judge']:.1f} s, render {of['render']:.1f} s")
        print(f"page {of['page'] / MEGABYTE:.1f} MB, at most {of['held'] / MEGABYTE:,.0f} MB held")


if __name__ == "__main__":
    main()
