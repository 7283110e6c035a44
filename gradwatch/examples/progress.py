"""How far a training is: a bar that moves in a terminal, a few lines anywhere else."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final, TextIO

from gradwatch.findings import Finding

_CELLS: Final = 30
_REDRAW_SECONDS: Final = 0.1
_LINES: Final = 4
_CLEAR: Final = "\r\x1b[K"
"""Carriage return, then erase to the end of the line (ECMA-48, EL)."""


class Progress:
    """Shows the steps of a training as they pass; notes may come from another thread."""

    def __init__(self, steps: int, stream: TextIO | None = None) -> None:
        self._steps = steps
        self._stream = stream or sys.stdout
        self._moving = self._stream.isatty()
        self._lock = threading.Lock()
        self._done = 0
        self._state = ""
        self._drawn = 0.0

    def advance(self, state: str) -> None:
        """Counts a step; ``state`` is shown behind the bar."""
        with self._lock:
            self._done += 1
            self._state = state
            if self._moving and time.monotonic() - self._drawn >= _REDRAW_SECONDS:
                self._draw()
            elif not self._moving and self._done * _LINES // self._steps > (self._done - 1) * _LINES // self._steps:
                self._write(f"  {self._text()}\n")

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        with self._lock:
            self._write(f"{_CLEAR if self._moving else ''}  {text}\n")
            if self._moving and self._done:
                self._draw()

    def tell(self, finding: Finding) -> None:
        """Prints a finding above the bar."""
        self.note(f"{finding.severity}, since step {finding.first_step}: {finding.title}")

    def finish(self) -> None:
        """Leaves the bar as it is and goes to the next line."""
        with self._lock:
            if self._moving:
                self._draw()
                self._write("\n")
            self._moving = False

    def _draw(self) -> None:
        full = _CELLS * self._done // self._steps
        self._write(f"{_CLEAR}  {'█' * full}{'░' * (_CELLS - full)} {self._text()}")
        self._drawn = time.monotonic()

    def _text(self) -> str:
        return f"{self._done:,} of {self._steps:,} steps, {self._state}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
