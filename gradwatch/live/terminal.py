"""The view for a terminal: redrawn in place with rich, or lines one after the other where that cannot be."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from gradwatch.findings import printable
from gradwatch.live.follower import Follower
from gradwatch.live.sketch import Line, progress, sketch
from gradwatch.run import Run

LOOK_SECONDS: Final = 0.25
_STYLES: Final = {"strong": "bold", "faint": "dim", "critical": "bold red", "warning": "yellow", "notice": "blue"}


class Screen(Protocol):
    """Where the view is drawn."""

    def show(self, lines: Sequence[Line]) -> None:
        """Draws the view in place of the last one."""
        ...


class View:
    """What is shown of one reading: the whole view, and the progress and findings in a line each."""

    def __init__(self, run: Run) -> None:
        self.lines = sketch(run)
        self.progress = printable(progress(run.recording))
        self.findings = [printable(finding.summary) for finding in run.findings]


def follow(path: Path, *, every: float, silence: Collection[str] = (), in_place: bool) -> int:
    """Shows a run until it ends or is interrupted; returns 0.

    Args:
        path: the run's directory; it need not exist yet.
        every: least seconds between two readings of the run.
        silence: findings that are not to be told.
        in_place: whether the output is a terminal that can be redrawn; it also takes rich.

    Raises:
        GradwatchError: when the path can never be a run.
    """
    follower = Follower(path, View, every=every, silence=silence)
    try:
        with _screen(in_place=in_place) as screen:
            _until_the_end(follower, screen)
    except KeyboardInterrupt:
        _say("gradwatch live: stopped.")
        return 0
    _say(f"gradwatch live: {follower.status}")
    return 0


def _until_the_end(follower: Follower[View], screen: Screen | None) -> None:
    told: set[str] = set()
    while not follower.version or follower.open:
        if follower.look() and follower.made is not None:
            if screen is None:
                _tell(follower.made, told)
            else:
                screen.show(follower.made.lines)
        elif not follower.version or follower.trouble:
            _wait(follower.status, screen, told)
        time.sleep(LOOK_SECONDS)


def _wait(status: str, screen: Screen | None, told: set[str]) -> None:
    if screen is not None:
        screen.show([Line(printable(status), "faint")])
    elif status not in told:
        told.add(status)
        _say(f"gradwatch live: {status}")


def _tell(view: View, told: set[str]) -> None:
    """Prints the progress, and each finding that was not told yet."""
    _say(view.progress)
    for finding in view.findings:
        if finding not in told:
            told.add(finding)
            _say(f"  {finding}")


@contextmanager
def _screen(*, in_place: bool) -> Iterator[Screen | None]:
    """Opens a screen that is redrawn, where the output allows it and rich is installed; what it showed last stays."""
    if not in_place:
        yield None
        return
    try:
        from rich.console import Group  # noqa: PLC0415  an extra
        from rich.live import Live  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        yield None
        return

    class _Rich:
        def show(self, lines: Sequence[Line]) -> None:
            texts = [
                Text(line.text, _STYLES.get(line.style, ""), no_wrap=line.style != "strong", overflow="ellipsis")
                for line in lines
            ]
            live.update(Group(*texts), refresh=True)

    with Live(auto_refresh=False, vertical_overflow="crop") as live:
        yield _Rich()


def _say(text: str) -> None:
    sys.stdout.write(f"{printable(text)}\n")
    sys.stdout.flush()
