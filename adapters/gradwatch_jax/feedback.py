"""Whether what comes out of a step goes into the next one: only then is it the trained parameter."""

from __future__ import annotations

from typing import Any, Final

from gradwatch_jax.captured import Trained
from gradwatch_jax.pairing import arrays

CALLS: Final = 3
"""Calls in which to look for what came out of the one before."""


class Feedback:
    """Watches the first calls of a step. A returned array that only looks like a parameter never comes back.

    ``decided`` and ``confirmed`` are read by the writer thread; they only change from False to True.
    """

    def __init__(self) -> None:
        self.decided = False
        self.confirmed = False
        self._returned: Any = None
        self._misses = 0

    def entering(self, trained: Trained | None, arguments: Any) -> None:
        """Looks at ``(args, kwargs)`` of a call."""
        if self.decided or trained is None or self._returned is None:
            return
        if arrays(arguments).get(trained.before[0]) is self._returned:
            self.confirmed = True
        self._misses += 1
        self.decided = self.confirmed or self._misses >= CALLS
        self._returned = None

    def leaving(self, trained: Trained | None, ended: Any) -> None:
        """Keeps what left a call, from ``((args, kwargs), result)``."""
        if not self.decided and trained is not None:
            self._returned = arrays(ended).get(trained.after[0])
