"""Gradients that are never cleared: each step applies the sum of all before it."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from gradwatch.rules.directions import SEEN, coordinates
from gradwatch.rules.layout import Index, Layout
from gradwatch.rules.persistence import Persistence
from gradwatch.rules.view import StepView
from gradwatch.statistics import Float

EXACT: Final = 0.02
KEPT: Final = 40
EQUATIONS: Final = 40
FIT: Final = 0.05
DISTINCT: Final = 1e-3
"""Ratio of the singular values below which gradients and updates are the same direction, which tells nothing."""
ENDLESS: Final = 0.995
"""Momentum that forgets nothing within a run: without momentum, kept gradients look like one of 1."""


class KeptGradients:
    """Compares the gradient of a bias with what the backward pass of that very step adds to it.

    The gradient of a bias is the sum of the gradients at its layer's output over everything that it was added to: both
    sums are captured. If it is that of the step before plus this sum, within ``EXACT``, nothing cleared it. Where
    gradients are kept apart from those that are captured, as in a pytree: updates obey
    u_t - u_{t-1} = b (u_{t-1} - u_{t-2}) - rate g_t in place of u_t = b u_{t-1} - rate g_t with a momentum b, and fit
    the first within ``FIT``, of which the gradient is a part of that size and more, and not the second, by as much
    again, or with a b beyond ``ENDLESS``.
    """

    def __init__(self) -> None:
        self.holds = Persistence(5, 6)
        self._before: tuple[int, Float] | None = None
        self._updates: deque[tuple[int, Float, Float]] = deque(maxlen=KEPT)
        self._version = -1
        self._biases: Index = np.zeros(0, dtype=np.int64)

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if view.gradient is None or view.skipped or view.spoilt:
            self._before = None
            return
        before, self._before = self._before, (view.step, view.gradient.sum)
        if view.update is not None:
            update = view.update.sum / np.sqrt(np.maximum(view.update.n, 1))
            self._updates.append((view.step, coordinates(view.gradient), update))
        if before is not None and before[0] == view.step - 1 and len(before[1]) == len(view.gradient.sum):
            self._compare(view, before[1])

    def by_updates(self) -> bool:
        """Tells whether the updates sum up all gradients since the start."""
        samples = list(self._updates)
        kept, _, against = _fit(_rows(samples, kept=True))
        if not (kept < FIT and against < -FIT):
            return False
        plain, momentum, _ = _fit(_rows(samples, kept=False))
        return plain > 2 * FIT or momentum > ENDLESS

    def _compare(self, view: StepView, before: Float) -> None:
        rows, at = view.activation_gradient, self._biases_of(view.layout)
        if rows is None or view.gradient is None or not len(at):
            return
        here, added = view.gradient.sum[at], rows.sum[view.layout.layer_of[at]]
        kept = before[at]
        size = np.abs(kept)
        clear = (size > SEEN * view.gradient.l2[at]) & np.isfinite(added)
        if not clear.any():
            return
        summed = (np.abs(here - kept - added) < EXACT * size) & (np.abs(here - added) > 0.5 * size)
        self.holds.observe(view.step, 2 * int((summed & clear).sum()) > int(clear.sum()))

    def _biases_of(self, layout: Layout) -> Index:
        if layout.version != self._version:
            names = [name.rpartition(".")[2] for name in layout.parameters]
            found = [i for i, name in enumerate(names) if name == "bias" and len(layout.shapes[i]) == 1]
            self._biases, self._version = np.array(found, dtype=np.int64), layout.version
        return self._biases


def _rows(samples: list[tuple[int, Float, Float]], *, kept: bool) -> Float:
    """Returns the equations of a law, the left side last, over the gradient's size so that each step counts."""
    found = [np.zeros((0, 3))]
    for (first, _, one), (second, _, two), (third, gradient, three) in zip(
        samples, samples[1:], samples[2:], strict=False
    ):
        if third == first + 2 == second + 1 and len(one) == len(three):
            change = three - two
            seen = np.isfinite(gradient) & np.isfinite(change) & np.isfinite(one)
            size = float(np.linalg.norm(gradient[seen]))
            if size > 0:
                columns = (two - one, gradient, change) if kept else (two, gradient, three)
                found.append(np.stack(columns, axis=1)[seen] / size)
    return np.concatenate(found)


def _fit(table: Float) -> tuple[float, float, float]:
    """Returns what share of the last column (rms) the others do not explain, the factor of the first, and the second's.

    The last is in units of both columns' rms.
    """
    size = np.sqrt(np.mean(np.square(table), axis=0)) if len(table) >= EQUATIONS else np.zeros(3)
    if not (size > 0).all():
        return float("nan"), 0.0, 0.0
    table = table / size
    solution, _, _, singular = np.linalg.lstsq(table[:, :-1], table[:, -1], rcond=None)
    if singular[-1] < DISTINCT * singular[0]:
        return float("nan"), 0.0, 0.0
    left = float(np.std(table[:, :-1] @ solution - table[:, -1]))
    return left, float(solution[0] * size[-1] / size[0]), float(solution[1])
