"""What a watch says at its end: the verdict and where the report is, or the command that makes it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Final

from gradwatch.guard import Guard
from gradwatch.run import load

REPORT_SECONDS: Final = 30.0


def conclude(run_dir: Path, guard: Guard, *, render: bool, report: bool) -> None:
    """Prints the verdict and writes the report, within 30 s; without ``render`` prints how to make it instead.

    The work is done on a thread of its own, because a deadline cannot be kept from inside.
    """
    if not run_dir.exists():
        _say("gradwatch: no step was captured, so nothing was written.")
    elif not render:
        _say(f"gradwatch report {run_dir}")
    else:
        work = guard.wrap(_report_and_say if report else _say_verdict, "the report")
        worker = threading.Thread(target=work, args=(run_dir,), daemon=True)
        worker.start()
        worker.join(REPORT_SECONDS)
        if worker.is_alive():
            _say(f"gradwatch: the report takes over {REPORT_SECONDS:g} s; try: gradwatch report {run_dir}")


def _say_verdict(run_dir: Path) -> None:
    _say(f"gradwatch: {load(run_dir).verdict}")


def _report_and_say(run_dir: Path) -> None:
    run = load(run_dir)
    _say(f"gradwatch: {run.verdict}\ngradwatch: report: {run.report()}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
