"""The local page: reads the run on the main thread while others answer the browser."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gradwatch import plugins
from gradwatch.findings import printable
from gradwatch.live.follower import Follower
from gradwatch.live.server import Server
from gradwatch.run import Run

LOOK_SECONDS: Final = 0.25


def serve(path: Path, *, port: int, every: float, silence: Collection[str] = ()) -> int:
    """Serves the page until it is interrupted; returns 0.

    Args:
        path: the run's directory; it need not exist yet.
        port: to listen at; 0 lets the system choose.
        every: least seconds between two readings of the run.
        silence: findings that are not to be told.

    Raises:
        GradwatchError: when the port cannot be had, or the path can never be a run.
    """
    follower = Follower(path, _render, every=every, silence=silence)
    with _listening(Server(follower, port)) as server:
        try:
            _say(f"gradwatch live: {server.url}  (Ctrl-C ends it)")
            told = _tell(follower, "")
            while True:
                if server.watched or not follower.version or follower.ended():
                    follower.look()
                    told = _tell(follower, told)
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            _say("gradwatch live: stopped.")
    return 0


def _render(run: Run) -> bytes:
    return plugins.reporter("html").render(run.recording, run.analysis).encode()


def _tell(follower: Follower[bytes], told: str) -> str:
    """Prints how the run stands if that is news."""
    status = follower.status
    if status != told:
        _say(f"gradwatch live: {status}")
    return status


@contextmanager
def _listening(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def _say(text: str) -> None:
    sys.stdout.write(f"{printable(text)}\n")
    sys.stdout.flush()
