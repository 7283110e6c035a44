"""How often a run is read again: so seldom that following it costs a fixed share of one core."""

from __future__ import annotations

from typing import Final

SHARE: Final = 0.2
"""Most of one core that reading, judging and rendering a run may take.

A long run takes longer to read; waiting in proportion makes the number of readings logarithmic in the run's length, so
that all of them together stay within this share of the time that the run trains.
"""


class Pace:
    """Tells when the next reading is due.

    Args:
        every: least seconds between the starts of two readings.
        share: of one core that readings may take.
    """

    def __init__(self, every: float, share: float = SHARE) -> None:
        self._every = every
        self._share = share
        self._due = float("-inf")

    def due(self, now: float) -> bool:
        """Tells whether a reading may start at this time, in seconds."""
        return now >= self._due

    def took(self, began: float, cost: float) -> None:
        """Notes that a reading that began at a time took this processor time; both in seconds."""
        self._due = began + max(self._every, cost / self._share)
