"""The digits that the demonstrations learn to read. Needs scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

BATCH: Final = 64
BATCHES: Final = 22
"""Of an epoch; all of one size, for which a step is compiled once."""

TRAINING_DIGITS: Final = BATCH * BATCHES


@dataclass(frozen=True, eq=False, slots=True)
class Digits:
    """Scikit-learn's 1,797 handwritten digits, shuffled: images scaled to [-1, 1], shape [n, 64], and labels, [n]."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @staticmethod
    def shuffled(generator: np.random.Generator) -> Digits:
        """Loads all digits in an order drawn from ``generator``."""
        images, labels = load_digits(return_X_y=True)
        order = generator.permutation(len(labels))
        return Digits(images[order].astype(np.float32) / 8 - 1, labels[order])

    def split(self) -> tuple[Digits, Digits]:
        """Returns those to train on and those to test on."""
        n = TRAINING_DIGITS
        return Digits(self.images[:n], self.labels[:n]), Digits(self.images[n:], self.labels[n:])

    def batches(self, generator: np.random.Generator) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """Returns one epoch of the digits to train on, in a new order."""
        order = generator.permutation(len(self.labels))
        return [(self.images[i], self.labels[i]) for i in order.reshape(BATCHES, BATCH)]
