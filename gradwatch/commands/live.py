"""``gradwatch live``: follow a run while it trains, on a local page or in the terminal."""

from __future__ import annotations

import argparse
import math
import signal

from gradwatch.errors import GradwatchError
from gradwatch.silences import parsed


def live(options: argparse.Namespace, *, in_place: bool) -> int:
    """Follows a run until it is interrupted, or in the terminal until the run ends; returns 0.

    Args:
        options: ``run``, ``port``, ``every``, ``terminal`` and ``silence``.
        in_place: whether the terminal can be redrawn.

    Raises:
        GradwatchError: for an option out of range, a port that cannot be had, or a path that can never be a run.
    """
    if not (math.isfinite(options.every) and options.every > 0):
        raise GradwatchError(f"--every {options.every:g} must be a number of seconds above 0.")
    if not 0 <= options.port <= 65535:
        raise GradwatchError(f"--port {options.port} must be from 0 to 65535; 0 lets the system choose.")
    parsed(options.silence)
    # A shell starts background commands deaf to Ctrl-C; whoever sends the signal means it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if options.terminal:
        from gradwatch.live import terminal  # noqa: PLC0415  each view loads what it needs

        return terminal.follow(options.run, every=options.every, silence=options.silence, in_place=in_place)
    from gradwatch.live import page  # noqa: PLC0415

    return page.serve(options.run, port=options.port, every=options.every, silence=options.silence)
