"""A place in the chain that shrinks signals and gradients alike, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gradwatch.rules.rule import at_start, number
from gradwatch.statistics import Float

CUT: Final = 2.5
"""Decades by which one place takes away from signals and gradients alike. Normal weights of deviation 0.02, the
smallest in use, take 0.8 at a width of 64: they multiply by 0.02 sqrt(64)."""
NOTHING: Final = 30.0
"""Decades from which on something is 0, as behind dead units."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where signals and gradients are lost.

    Attributes:
        place: in the chain, of the layer that does it or before which it is done.
        before: whether it is done before the layer.
        forward, backward: log10 of what signals and gradients are multiplied by.
    """

    place: int
    before: bool
    forward: float
    backward: float

    def measured(self, name: str) -> str:
        """Returns what was measured at the layer of this name."""
        return (
            f"{self._who(name)} multiplies signals by {number(10**self.forward)}, and gradients on their way back by "
            f"{number(10**self.backward)}; {number(10**-CUT)} is the limit."
        )

    def cause(self, name: str) -> str:
        """Returns the likely cause."""
        what = (
            "a scale that was not meant there, or a division too many" if self.before else "its weights are too small"
        )
        return f"{self._who(name)} shrinks whatever passes, so nothing arrives below: {what}."

    def advice(self, name: str) -> tuple[str, ...]:
        """Returns what to do, the likeliest first."""
        first = (
            f"Look at the code that makes the input of {name}, and mend its scale."
            if self.before
            else f"Initialise {name} as the other layers are (He: variance 2 / fan-in)."
        )
        return first, f"Put a normalisation layer before {name}."

    def _who(self, name: str) -> str:
        return f"What lies before {name}" if self.before else at_start(name)


def find(own: Float | None, before: Float | None, size: Float) -> Cut | None:
    """Returns the first cut of a chain, or None.

    Args:
        own: log10 of the gains of the layers, forward and back, shape [2, c], null where unknown; None without.
        before: the same of what lies before each layer.
        size: log10 of the gradient at the layers' outputs, null where unknown, shape [c].
    """
    for gain, is_before in ((own, False), (before, True)):
        if gain is None:
            continue
        small = (gain.max(axis=0) < -CUT) & (gain.min(axis=0) > -NOTHING) & np.isfinite(size)
        for place in np.flatnonzero(small)[:1].tolist():
            return Cut(place, is_before, float(gain[0, place]), float(gain[1, place]))
    return None
