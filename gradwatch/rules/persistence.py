"""k of the last n samples: what a single odd batch cannot trigger."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Persistence:
    """Holds when k of the last n samples were true; remembers when it first and last held.

    Five of eight by default: with independent samples of which one in ten is true by accident, it holds by accident
    in 4 of 10,000 windows (binomial tail).

    Attributes:
        onset: step of the first true sample of the window in which it first held, or None.
        last: step of the last true sample while it held, or None.
        since: the same as ``onset`` of the stretch in which it holds without a break, or None when it does not.
        samples: samples seen.
    """

    k: int = 5
    n: int = 8
    onset: int | None = None
    last: int | None = None
    since: int | None = None
    samples: int = 0
    holds: bool = False
    _window: deque[tuple[int, bool]] = field(default_factory=deque)

    def observe(self, step: int, flag: bool) -> bool:
        """Takes a sample; returns whether it holds now."""
        self.samples += 1
        self._window.append((step, flag))
        if len(self._window) > self.n:
            self._window.popleft()
        hits = [at for at, true in self._window if true]
        self.holds = len(hits) >= self.k
        self.since = (hits[0] if self.since is None else self.since) if self.holds else None
        if self.holds:
            self.onset = hits[0] if self.onset is None else self.onset
            self.last = hits[-1]
        return self.holds

    @property
    def ever(self) -> bool:
        """Whether it has held at any time."""
        return self.onset is not None
