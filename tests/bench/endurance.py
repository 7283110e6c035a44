"""Whether a run stays flat: time, memory and bytes of a step while a network of 50 parameters trains for long.

    python -m tests.bench.endurance [--steps 1000000] [--json FILE]

Records of a made-up run, on the default schedule, go through the recorder to the store and the live rules, as those of
a training do. Time is the CPU time of the writer's thread, memory what the process holds, bytes what lies in the run's
directory. Each line is a twentieth of the steps. Flat means that over the last quarter a step takes at most 1.25 times
as long, and adds at most 1.25 times as many bytes, as over the second quarter, give or take the file that is not
compressed yet; and that the process holds at most 32 MB more. The quick look of 40,000 steps takes about 15 seconds on
a quiet core, 10^6 steps about 6 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Final

import psutil  # type: ignore[import-untyped]

from gradwatch.analyze import Stream
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.guard import Guard
from gradwatch.record import Resolved, StepRecord
from gradwatch.recorder import Recorder
from gradwatch.schedule import Schedule
from gradwatch.store import StoreWriter
from gradwatch.store.layout import HOT_BYTES

LAYERS: Final = 25
TEMPLATES: Final = 512
"""Made-up steps, of the steady state, that are dealt out again and again: making one costs more than writing it."""

LINES: Final = 20
QUEUE: Final = 32
FLAT: Final = 1.25
MEMORY: Final = 32e6


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the run.

    Attributes:
        last: its last step.
        microseconds: CPU time of the writer's thread per step.
        memory: bytes that the process holds at its end.
        files: bytes of the run's directory per step of this part; negative when files were made smaller.
    """

    last: int
    microseconds: float
    memory: int
    files: float


def records(steps: int) -> Iterator[StepRecord]:
    """Yields the records of a healthy run whose numbers repeat from step 64 on."""
    made = list(SyntheticRun(layers=LAYERS, steps=64 + TEMPLATES).records())
    yield from made[: min(64, steps)]
    for step in range(64, steps):
        yield replace(made[64 + (step - 64) % TEMPLATES], step=step, time=0.02 * step)


def feed(directory: Path, steps: int) -> Iterator[Span]:
    """Feeds a recorder as fast as it writes; yields each part as it ends.

    Raises:
        RuntimeError: when the recorder refused a record or something failed inside.
    """
    made = SyntheticRun(layers=LAYERS, steps=0)
    stream = Stream(made.sites, on_finding=lambda _: None)
    guard, schedule = Guard(), Schedule()
    writer = StoreWriter(directory, made.sites, {"framework": "bench", "schedule": schedule.describe()})
    recorder = Recorder([writer, stream], guard, on_overflow=schedule.halve)
    recorder.start()
    size = max(1, steps // LINES)
    used, held = _writer_seconds(), 0
    for record in records(steps):
        recorder.put(record.step, Resolved(record))
        while recorder.waiting > QUEUE:
            time.sleep(0.002)
        if (record.step + 1) % size == 0:
            before, used = used, _writer_seconds()
            before_held, held = held, _bytes(directory)
            memory = psutil.Process().memory_info().rss
            yield Span(record.step, 1e6 * (used - before) / size, memory, (held - before_held) / size)
    recorder.close(60)
    if recorder.refused or guard.failures:
        raise RuntimeError(f"refused {dict(recorder.refused)}; failed: {guard.failures}")


def verdict(spans: Sequence[Span]) -> list[str]:
    """Returns what is not flat, in sentences; nothing for a flat run."""
    quarter = len(spans) // 4
    early, late = spans[quarter : 2 * quarter], spans[-quarter:]
    uncompressed = HOT_BYTES / (late[-1].last - spans[-quarter - 1].last)
    said = []
    for what, unit, slack in (("microseconds", "us", 0.0), ("files", "bytes", uncompressed)):
        one, other = (mean(getattr(span, what) for span in part) for part in (early, late))
        if other > FLAT * one + slack:
            said.append(f"a step takes {other:.0f} {unit} at the end, {one:.0f} early on")
    grown = late[-1].memory - early[0].memory
    if grown > MEMORY:
        said.append(f"the process holds {grown / 1e6:.0f} MB more at the end than early on")
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    """Feeds and prints; returns 1 when the run is not flat."""
    parser = argparse.ArgumentParser(
        "python -m tests.bench.endurance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.steps < LINES:
        parser.error(f"--steps {options.steps} is too few for {LINES} lines")
    print("| up to step | writer, us a step | memory, MB | bytes a step |\n|---|---|---|---|")
    spans = []
    with tempfile.TemporaryDirectory() as directory:
        for span in feed(Path(directory) / "run", options.steps):
            spans.append(span)
            shown = f"{span.last + 1:,} | {span.microseconds:.0f} | {span.memory / 1e6:.0f} | {span.files:.0f}"
            print(f"| {shown} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(span) for span in spans], indent=1), encoding="utf-8")
    said = verdict(spans)
    print("\n".join(["\nNot flat:", *said]) if said else "\nFlat.")
    return 1 if said else 0


def _writer_seconds() -> float:
    """Returns the CPU time of all threads but this one."""
    return time.process_time() - time.thread_time()


def _bytes(directory: Path) -> int:
    paths = (Path(folder) / name for folder, _, names in os.walk(directory) for name in names)
    return sum(path.stat().st_size for path in paths if path.exists())


if __name__ == "__main__":
    sys.exit(main())
