"""The story that every demonstration tells: one network whose gradients vanish, and one repaired as its report says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

DEPTH: Final = 12
WIDTH: Final = 64
EPOCHS: Final = 20
LEARNING_RATE: Final = 0.1
SLOWED_DOWN: Final = 0.05
"""By what factor the learning rate falls over the training, linearly."""

Train = Callable[[Path], float]
"""Trains a network, watched, in a new run directory; returns the share of unseen digits that it reads right."""


def tell(out: Path, sick: Train, repaired: Train) -> Sequence[Path]:
    """Trains both networks, prints how well they learn, and returns their run directories, the sick one's first."""
    print(f"Two networks of {DEPTH} hidden layers learn to read handwritten digits.\n")
    print("sick: sigmoid after every layer")
    read_by_sick = sick(out / "sick")
    print("\nrepaired, as the report advises: ReLU, He initialisation, normalisation")
    read_by_repaired = repaired(out / "repaired")
    print(f"\nDigits read right: {read_by_sick:.0%} by the sick network, {read_by_repaired:.0%} by the repaired one.")
    return out / "sick", out / "repaired"
