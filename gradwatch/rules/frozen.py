"""Layers that the optimizer leaves as they are although a gradient reaches them."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History
from gradwatch.rules.layout import Index, Layout, Mask
from gradwatch.rules.rule import at_start, called, count, in_depth_order, listing, number, padded, stretches, too_few
from gradwatch.rules.standstill import Standstill
from gradwatch.rules.untrained import Untrained
from gradwatch.rules.view import StepView
from gradwatch.statistics import Float

PERSIST: Final = 10
"""Samples: parts that are trained in turn, and layers that are thawed one by one after a few steps, rest for less."""
ABOVE_ROUNDING: Final = 16.0
"""Times half a unit in the last place of the weights, which the expected update exceeds: then it cannot be lost."""
MOST: Final = 0.6
"""Share of the elements of all weight matrices, in two layers or more, from which freezing is a way of training:
adapters, attention alone."""


class Frozen:
    """Finds weight matrices that get a gradient and never change, or layers in the middle that ask for none.

    Formula: absmax(update) == 0 and absmax(gradient) > 0 on ``PERSIST`` samples, never an update, and on each of them
    the update to be expected, rms(gradient) times the smallest rms(update) / rms(gradient) of a matrix that moves,
    exceeds ``ABOVE_ROUNDING`` times the rounding of the weights: smaller ones are lost to a gradient that vanishes.
    Runs in which none moves are judged by ``standstill.py``, layers that ask for no gradient by ``untrained.py``.
    Layers whose other weights move are left out, and parameters in no watched optimizer that change between the
    samples. Deterministic but for that estimate.
    Severity: warning; notice where it looks like a choice: for the layers next to the input, which fine-tuning keeps,
    and when ``MOST`` of the weights are frozen.
    Source: parameters that a label, a mask or a group takes from the optimizer by mistake train silently without a part
    (Jiang et al., TrainCheck, OSDI 2025, count them among the commonest silent faults).
    Advice: the optimizer's labels, masks and groups.
    """

    kind = "frozen"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._samples = 0
        self._run: Index = np.zeros(0, dtype=np.int64)
        self._since: Index = np.zeros(0, dtype=np.int64)
        self._moved: Mask = np.zeros(0, dtype=np.bool_)
        self._gradient: Float = np.zeros(0)
        self._weight: Float = np.zeros(0)
        self._last: int | None = None
        self._standstill = Standstill(history)
        self._untrained = Untrained(history)

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        self._standstill.observe(view)
        self._untrained.observe(view)
        update, gradient = view.update, view.gradient
        if update is None or gradient is None or view.skipped or view.spoilt or self._history.still:
            return
        self._samples += 1
        self._last = view.step
        size = len(view.layout.parameters)
        self._run, self._since = padded(self._run, size, 0), padded(self._since, size, 0)
        self._moved = padded(self._moved, size, False) | (update.absmax > 0) | self._changed(view)
        rests = (update.absmax == 0) & (gradient.absmax > 0) & _expects(view)
        self._since[rests & (self._run == 0)] = view.step
        self._run[rests] += 1
        self._gradient = gradient.rms

    def findings(self) -> list[Finding]:
        """Returns one finding for each stretch of neighbouring layers, or one for the run."""
        standstill = self._standstill.finding()
        if standstill is not None:
            return [standstill]
        layout = self._history.layout
        moved = padded(self._moved, len(layout.parameters), False)
        matrix = layout.matrix | (layout.missing & layout.weight & np.array([len(n) > 1 for n in layout.shapes], bool))
        frozen = padded(self._run >= PERSIST, len(moved), False) & ~moved & matrix
        frozen &= ~np.isin(layout.layer_of, layout.layer_of[matrix & moved])
        if not frozen.any():
            return self._untrained.findings()
        owners, layers = set(layout.layer_of[matrix].tolist()), set(layout.layer_of[frozen].tolist())
        order = [layer for layer in layout.depth.tolist() if layer in owners]
        most = len(layers) > 1 and layout.numel[frozen].sum() >= MOST * layout.numel[matrix].sum()
        found = stretches(order, layers)
        return [
            *(self._finding(layout, frozen, at, chosen=bool(most) or at[0] == order[0]) for at in found),
            *self._untrained.findings(),
        ]

    def not_applied(self) -> str | None:
        """Needs updates and gradients of the same steps."""
        return too_few("update", self._samples, PERSIST)

    def _changed(self, view: StepView) -> Mask:
        """Returns the parameters whose weights differ from those of the sample before, by whatever does it."""
        size = len(view.layout.parameters)
        if view.weight is None:
            return np.zeros(size, dtype=np.bool_)
        before, self._weight = padded(self._weight, size, np.nan), view.weight.l2
        changed: Mask = np.isfinite(before) & (before != self._weight)
        return changed

    def _finding(self, layout: Layout, frozen: Mask, stretch: list[int], *, chosen: bool) -> Finding:
        inside = np.flatnonzero(frozen & np.isin(layout.layer_of, stretch))
        names = in_depth_order(layout, stretch)
        name = called(names[0])
        parameters = listing([layout.parameters[int(i)] for i in inside])
        share = layout.numel[inside].sum() / max(layout.numel[layout.matrix | frozen].sum(), 1)
        return Finding(
            kind=self.kind,
            severity="notice" if chosen else "warning",
            title=f"{at_start(name)} never changes, although it gets a gradient"
            if len(names) == 1
            else f"{len(names)} layers from {name} on never change, although they get gradients",
            layer=names[0],
            layers=names,
            first_step=int(self._since[inside].min()),
            last_step=self._last,
            evidence=(
                f"The update of {parameters} is exactly 0 on {count(int(self._run[inside].min()), 'sample')}; "
                f"{PERSIST} are enough. Other weights moved on each of them.",
                f"The gradient there is not 0: its rms is {number(float(self._gradient[inside[0]]))}.",
                f"That is {share:.0%} of the elements of all weight matrices.",
            ),
            cause=_cause(name, held=bool(layout.trained[inside].any())) + (", perhaps on purpose." if chosen else "."),
            advice=(
                f"Look at what the optimizer is told about {name}: its label, its mask, its group and learning rate.",
                "If it is to stay fixed, take no gradient of it: that saves its part of the backward pass.",
            ),
            check=f"After the fix the update of {name} is above 0 from the first step on.",
            confidence="medium" if chosen else "high",
            confidence_reason="it may be meant so" if chosen else "",
            figure=Figure("update", "ratio", "depth"),
        )


def _cause(name: str, *, held: bool) -> str:
    if not held:
        return f"No optimizer holds {name}: it was left out when the optimizer was made, or replaced later"
    return f"The optimizer leaves {name} alone: a label, a mask, a parameter group or a rate of 0 takes it out"


def _expects(view: StepView) -> Mask:
    """Returns the parameters whose update, at the slowest pace of a matrix that moves, rounding could not lose."""
    update, gradient = view.update, view.gradient
    assert update is not None
    assert gradient is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        pace = (update.rms / gradient.rms)[view.layout.matrix & (update.absmax > 0) & (gradient.absmax > 0)]
    if len(pace) == 0:
        return np.zeros(len(gradient.rms), dtype=np.bool_)
    weight = view.weight.rms if view.weight is not None else view.layout.initial_rms
    expected: Mask = gradient.rms * pace.min() > ABOVE_ROUNDING * view.layout.rounding * weight
    return expected
