"""Whether an optimizer's steps follow the gradient's direction alone, whatever its size: as under constant clipping."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import numpy as np

from gradwatch.rules.directions import coordinates
from gradwatch.rules.view import StepView
from gradwatch.statistics import Float

KEPT: Final = 40
EQUATIONS: Final = 40
FIT: Final = 0.05
BETTER: Final = 0.7
"""Share of the updates that the direction may leave unexplained, in absolute terms and of what the gradient leaves."""


class _Sample(NamedTuple):
    step: int
    gradient: Float
    update: Float
    norm: float


class Normalised:
    """Fits the updates of gradient descent, with or without momentum, to the gradients, as they are and normalised.

    With a rate r, momentum b and gradients g, every element of an update obeys u_t = b u_{t-1} - A g_t - B g_{t-1}:
    A = r and B = 0 for heavy balls, A = r (1 + b) and B = -r b for Nesterov's. So do the coordinates of
    ``directions.coordinates``. If the gradient is clipped at every step, it is g / ||g|| in place of g. Three numbers
    are fitted to all coordinates of ``KEPT`` pairs of steps by least squares.
    """

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=KEPT)

    def observe(self, view: StepView) -> None:
        """Takes a step that has both gradients and updates."""
        if view.gradient is None or view.update is None or not view.norm:
            return
        update = view.update.sum / np.sqrt(np.maximum(view.update.n, 1))
        self._samples.append(_Sample(view.step, coordinates(view.gradient), update, view.norm))

    def pace(self) -> float | None:
        """Returns the length of a step at a constant direction, A + B over 1 - b, if the direction alone decides."""
        normalised, gain = self._fit(normal=True)
        raw, _ = self._fit(normal=False)
        return gain if normalised < FIT and normalised < BETTER * raw else None

    def _fit(self, *, normal: bool) -> tuple[float, float]:
        """Returns the share of the updates' root mean square that is left, and the length of a step."""
        rows: list[Float] = []
        for before, here in zip(list(self._samples)[:-1], list(self._samples)[1:], strict=True):
            if here.step != before.step + 1 or len(here.gradient) != len(before.gradient):
                continue
            scale = (before.norm, here.norm) if normal else (1.0, 1.0)
            row = np.stack([before.update, here.gradient / scale[1], before.gradient / scale[0], here.update], axis=1)
            rows.append(row[np.isfinite(row).all(axis=1)])
        table = np.concatenate(rows) if rows else np.zeros((0, 4))
        size = np.sqrt(np.mean(np.square(table), axis=0)) if len(table) >= EQUATIONS else np.zeros(4)
        if not (size > 0).all():
            return float("inf"), 0.0
        table = table / size
        solution, *_ = np.linalg.lstsq(table[:, :3], table[:, 3], rcond=1e-6)
        left = float(np.std(table[:, :3] @ solution - table[:, 3]))
        momentum, now, last = solution * size[3] / size[:3]
        return left, abs(now + last) / max(1 - float(momentum), 1e-3)
