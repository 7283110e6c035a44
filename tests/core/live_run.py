"""A run that another process or thread writes while a test follows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.live.follower import Follower
from gradwatch.store import StoreWriter


class Writer:
    """Writes a run step by step, as far as it is told."""

    def __init__(self, path: Path, *, steps: int = 400, fault: str | None = None, layers: int = 12) -> None:
        source = SyntheticRun(layers=layers, steps=steps, fault=fault)
        self._records = source.records()
        self._store = StoreWriter(path, source.sites, {"framework": "none"})
        self._store.open()

    def write(self, steps: int) -> None:
        """Writes the next steps so that a reader sees them."""
        for _, record in zip(range(steps), self._records, strict=False):
            self._store(record)
        self._store.flush()

    def close(self) -> None:
        """Ends the run."""
        self._store.close()


@contextmanager
def writing(path: Path, *, fault: str | None = None) -> Iterator[None]:
    """Writes a run on a thread, a step every 5 ms, for as long as the block lasts or 2,000 steps."""
    stop = threading.Event()

    def write() -> None:
        writer = Writer(path, steps=2000, fault=fault)
        for _ in range(400):
            writer.write(5)
            if stop.wait(0.025):
                break
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def live(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Runs ``gradwatch live`` as its own process; gives it and the lines that it has printed so far."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gradwatch", "live", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env=environment,
    )
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        # One by one: who reads the list while it grows must see the newest line.
        for line in process.stdout:
            lines.append(line.rstrip("\n"))  # noqa: PERF401

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Waits until something is true and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not true within {seconds:g} s")


def looked(follower: Follower[Any]) -> bool:
    """Looks when the pace allows it."""
    end = time.monotonic() + 5
    while not follower.look():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def url_in(lines: list[str]) -> str:
    """Waits for the address that the page has."""

    def found() -> str:
        return next((match[0] for line in list(lines) if (match := re.search(r"http://\S+/", line))), "")

    return str(until(found))
