"""Keeps our failures out of the caller's training loop."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

from gradwatch.errors import GradientFinding

log = logging.getLogger("gradwatch")

F = TypeVar("F", bound=Callable[..., Any])


class Guard:
    """Catches every exception of a wrapped function, stops the part of gradwatch it belongs to, and says so once.

    ``KeyboardInterrupt`` and ``SystemExit`` pass, and so does ``GradientFinding``, which the user asked for. With the
    environment variable ``GRADWATCH_STRICT=1`` failures are re-raised, so that tests see them.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._strict = os.environ.get("GRADWATCH_STRICT") == "1"
        self._stopped: set[str] = set()

    def stopped(self, part: str = "capture") -> bool:
        """Tells whether a part was stopped by a failure."""
        return part in self._stopped

    def stop(self, part: str = "capture") -> None:
        """Stops a part without a failure, as in a forked child."""
        self._stopped.add(part)

    def wrap(self, function: F, part: str = "capture", default: Any = None) -> F:
        """Returns the function guarded: once its part has stopped, or when it fails, it returns ``default``."""

        def guarded(*args: Any, **kwargs: Any) -> Any:
            if part in self._stopped:
                return default
            try:
                return function(*args, **kwargs)
            except GradientFinding:
                raise
            except Exception as error:
                self._stopped.add(part)
                self._report(part, error)
                if self._strict:
                    raise
                return default

        return guarded  # type: ignore[return-value]

    def _report(self, part: str, error: Exception) -> None:
        # Nothing here may raise: even str(error) is foreign code, and logging handlers are the user's.
        try:
            what = f"{part} stopped after {type(error).__name__}: {error}"
            self.failures.append(what)
            log.warning("gradwatch: %s; training goes on without it.", what)
        except Exception:
            self.failures.append(f"{part} stopped after an error that cannot be shown")
