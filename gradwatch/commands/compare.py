"""``gradwatch compare``: is a run worse than another one, and where do they differ."""

from __future__ import annotations

import argparse
import sys

from gradwatch.comparison import reporter_of_comparisons
from gradwatch.errors import GradwatchError
from gradwatch.findings import printable
from gradwatch.run import load


def compare(options: argparse.Namespace, *, width: int, color: bool) -> int:
    """Prints the comparison, writes its page where that is asked for, and returns whether a later run is worse.

    Args:
        options: ``run``, ``others``, ``silence`` and ``html``.
        width: columns of the terminal.
        color: whether it shows colours.

    Raises:
        GradwatchError: when a run cannot be read, or when it cannot be told whether one is worse.
    """
    first, *others = [load(path, silence=options.silence) for path in (options.run, *options.others)]
    comparison = first.compare(*others)
    reporter = reporter_of_comparisons("text", width=width, color=color)
    sys.stdout.write(reporter.render_comparison(comparison))
    if options.html is not None:
        print(f"\n{printable(str(comparison.report(options.html)))}")
    if comparison.worse is None:
        raise GradwatchError(comparison.why)
    return int(comparison.worse)
