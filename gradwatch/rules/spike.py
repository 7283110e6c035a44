"""A gradient or an update that jumps at one step and comes back, and leaves a mark."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import numpy as np

from gradwatch.findings import Figure, Finding
from gradwatch.rules.history import History, Series
from gradwatch.rules.outlier import AFTER, NORMAL, Event, excess
from gradwatch.rules.rule import called, count, listing, number, too_few
from gradwatch.rules.view import StepView, decades, median
from gradwatch.statistics import Float, medians

ENOUGH: Final = 16
HABIT: Final = 20
"""Values before which make a habit, and from how many on it is known."""
DEVIATIONS: Final = 4.5
OF_UPDATE: Final = 6.0
JUMP: Final = 10.0
TOP: Final = 4.0
"""An outlier exceeds the median of ``HABIT`` values by ``JUMP``, their maximum by ``TOP``, and their deviations by
``DEVIATIONS`` for gradients; by ``OF_UPDATE`` for updates, whose sizes a line search varies. Calibrated: 90 healthy
runs of up to 1,200 steps, of batches from 1 example on, reach a gradient of 3.3 times the maximum when they are 4
deviations out."""
BACK: Final = 10.0
"""Factor of the usual below which the gradient has to come back; what stays above is no spike."""
FOLLOWED: Final = 30
"""Steps for which a run is followed after an outlier; another one within them belongs to it."""
RAISED: Final = 1.25
DETOUR: Final = 10.0
LONG: Final = 60.0
"""Usual steps of a detour that a loss which comes back excuses no longer. A batch of inputs 2.5 times as large, which a
net survived, made 38; 19 confirmed spikes made 9 to 394, those below this with a loss that did not come back."""
FELT_WITHIN: Final = 3
"""Steps within which the gradient jumps that an update threw off; the next updates follow it and are large too."""
FELT: Final = 1e-3
"""Share of the weights that an update has to change to be felt (CS231n: what a usual step changes)."""
POISON: Final = 20.0
SHORTENED: Final = 0.87
"""An adaptive optimizer divides by the root of the mean square v of past gradients. A spike of r times the usual adds
(1 - b2) r^2 to v = 1, so that updates shrink by 1 / sqrt(1 + 0.001 r^2) for hundreds of steps: 0.85 at r = 20."""


class Spike:
    """Finds single steps whose gradient or update jumps, if they leave a mark.

    Formula: the global norm of the gradient, or of the update, exceeds the median of the last ``HABIT`` by ``JUMP``, by
    ``DEVIATIONS`` or ``OF_UPDATE`` robust deviations of its logarithm, and their maximum by ``TOP``; the gradient is
    back below ``BACK`` times the median later on. A mark is any of: the median loss of the next ``AFTER`` steps exceeds
    that before by ``RAISED`` and two deviations; the updates from then on move the weights ``DETOUR`` usual steps
    further, and by ``FELT`` of their size at once, and the loss does not come back (``Event.came_back``) or they are
    ``LONG``; under an adaptive optimizer a gradient beyond ``POISON`` leaves updates below ``SHORTENED`` of the usual.
    Without a mark it is a notice. Updates alone count if the next one is ordinary again, as it is not after a
    schedule's restart, or if the gradient jumps by ``JUMP`` within ``FELT_WITHIN`` steps.
    Sources: z-scores of log norms (Chowdhery et al. 2022 on spikes of PaLM, Huang et al. 2025, SPAM, on the second
    moment). Heavy-tailed batches widen the deviations and so raise the limit.
    Advice: look at the batch, clip, skip.
    """

    kind = "spike"

    def __init__(self, history: History) -> None:
        self.alarmed = False
        self._history = history
        self._events: list[Event] = []
        self._updates: deque[float] = deque(maxlen=HABIT)
        self._rates: deque[float] = deque(maxlen=HABIT)
        self._inputs: deque[float] = deque(maxlen=8)
        self._gradients: deque[Float] = deque(maxlen=8)
        self._read = (0, 0)
        self._usual_norm = 0.0

    def observe(self, view: StepView) -> None:
        """Takes the next step."""
        if view.skipped or view.spoilt:
            return
        self._follow(view)
        moved = _size(view)
        if not self._events or view.step - self._events[-1].step > FOLLOWED:
            self._look(view, moved)
        if moved is not None:
            self._updates.append(moved)
        self._rates.append(view.facts.get("learning_rate", math.nan))
        self._inputs.append(_inputs(view))
        if view.gradient is not None:
            self._gradients.append(view.gradient.rms[view.layout.primary])

    def findings(self) -> list[Finding]:
        """Returns one finding over all spikes."""
        lasting = [event for event in self._events if self._counts(event)]
        marked = [event for event in lasting if self._marks(event)]
        return [self._finding(marked or lasting, marks=bool(marked))] if lasting else []

    def not_applied(self) -> str | None:
        """Needs a stretch of gradients to know what is usual."""
        return None if self._events else too_few("gradient", self._history.samples["gradient"], ENOUGH + 1)

    def _look(self, view: StepView, moved: float | None) -> None:
        history = self._history
        norms = list(history.norm.recent)[:-1][-HABIT:]
        if view.norm is None or len(norms) < ENOUGH:
            return
        event = Event(view.step)
        if _outlying(ratios := excess(view.norm, norms), DEVIATIONS):
            event.gradient = ratios[0]
        if moved is not None and len(self._updates) >= ENOUGH:
            ratios = excess(moved, self._updates)
            event.update = ratios[0] if _outlying(ratios, OF_UPDATE) else 1.0
        if max(event.gradient, event.update) <= 1:
            return
        self._describe(view, event, moved)
        self._usual_norm = median(np.array(norms))
        self._read = history.loss.count, history.norm.count
        self._events.append(event)
        self.alarmed = True

    def _describe(self, view: StepView, event: Event, moved: float | None) -> None:
        losses = list(self._history.loss.recent)[:-1][-HABIT:]
        if view.loss is not None and len(losses) >= ENOUGH:
            event.usual_loss = median(np.array(losses[-AFTER:]))
            event.loss_fall = max(median(np.array(losses[:-AFTER])) - event.usual_loss, 0.0)
            event.loss_spread = NORMAL * median(np.abs(np.array(losses) - median(np.array(losses))))
            event.loss = view.loss / event.usual_loss if event.usual_loss > 0 else None
        if self._updates:
            event.usual_update = median(np.array(self._updates))
        if moved is not None and view.weight is not None and event.usual_update > 0:
            event.share = moved / max(float(np.sqrt(np.nansum(np.square(view.weight.l2)))), 1e-30)
            event.updates.append(moved / event.usual_update)
        event.rate = _factor(view.facts.get("learning_rate", math.nan), self._rates)
        event.inputs = _factor(_inputs(view), self._inputs)
        if view.gradient is not None and self._gradients and event.gradient > 1:
            event.layers = _grown(view, list(self._gradients))

    def _follow(self, view: StepView) -> None:
        """Adds what came since the last record to the latest event."""
        if not self._events or view.step - self._events[-1].step > FOLLOWED:
            return
        event = self._events[-1]
        event.losses += _since(self._history.loss, self._read[0])
        event.norms += [norm / self._usual_norm for norm in _since(self._history.norm, self._read[1])]
        self._read = self._history.loss.count, self._history.norm.count
        moved = _size(view)
        if moved is not None and event.usual_update > 0:
            event.updates.append(moved / event.usual_update)

    def _counts(self, event: Event) -> bool:
        """Tells whether it was a spike: the gradient came back, and an update alone was no new pace."""
        if not event.passed(BACK):
            return False
        alone = len(event.updates) > 1 and max(event.updates[1:3]) * TOP < event.updates[0]
        return event.gradient > 1 or alone or max(event.norms[:FELT_WITHIN], default=0.0) > JUMP

    def _marks(self, event: Event) -> tuple[str, ...]:
        """Returns what it left behind, in sentences."""
        found = []
        after = event.raised_loss()
        if after is not None and event.usual_loss is not None:
            margin = max((RAISED - 1) * abs(event.usual_loss), 2 * event.loss_spread)
            if after > event.usual_loss + margin:
                found.append(
                    f"The loss is {number(after)} over the next {AFTER} steps (median), before it was "
                    f"{number(event.usual_loss)}; {RAISED:g} times that is the limit."
                )
        excused = event.came_back() and event.detour() < LONG
        if event.detour() > DETOUR and event.share > FELT and not excused:
            found.append(
                f"The weights moved {number(event.detour())} usual steps further within {AFTER} steps, and by "
                f"{number(event.share)} of their size at once; {DETOUR:g} steps are the limit."
            )
        capped = max(event.updates[:3], default=math.inf) < TOP
        if capped and event.gradient > POISON and event.shortened() < SHORTENED:
            found.append(
                f"Later updates have {number(event.shortened())} of their usual size: the optimizer divides by a mean "
                "square of past gradients, in which the spike stays for hundreds of steps."
            )
        return tuple(found)

    def _finding(self, events: list[Event], *, marks: bool) -> Finding:
        first = max(events, key=lambda event: len(self._marks(event))) if marks else events[0]
        history = self._history
        return Finding(
            kind=self.kind,
            severity="warning" if marks else "notice",
            title=_title(first, marks=marks),
            layer=None,
            layers=(),
            first_step=events[0].step,
            last_step=min(events[-1].step + len(events[-1].norms), history.last_step or 0),
            evidence=(*self._what(first), *self._marks(first), *_others(events, first)),
            cause=_cause(first),
            advice=_advice(first),
            check=f"After the fix no gradient norm exceeds {JUMP:g} times the median of the {HABIT} steps before it.",
            confidence="high" if history.loss_logged or not marks else "medium",
            confidence_reason="" if history.loss_logged or not marks else "no loss was logged",
            figure=Figure("gradient" if first.gradient > 1 else "update", "l2"),
        )

    def _what(self, event: Event) -> tuple[str, ...]:
        found = []
        if event.gradient > 1:
            found.append(
                f"At step {event.step} the gradient norm is {number(event.gradient)} times the median of the steps "
                f"before; {JUMP:g} times, and {DEVIATIONS:g} deviations, are the limit."
            )
            named = [(called(self._history.layout.layers[layer]), factor) for layer, factor in event.layers]
            if named:
                grown = listing([f"{name} {number(factor)}-fold" for name, factor in named])
                found.append(f"The gradients that grew most: {grown}.")
        if event.update > 1:
            found.append(f"The update of step {event.step} is {number(event.update)} times the usual one.")
        return tuple(found)


def _outlying(ratios: tuple[float, float, float], limit: float) -> bool:
    factor, deviations, top = ratios
    return factor > JUMP and deviations > limit and top > TOP


def _size(view: StepView) -> float | None:
    """Returns the global norm of the update; None where nothing moved."""
    if view.update is None:
        return None
    size = float(np.sqrt(np.nansum(np.square(view.update.l2))))
    return size if size > 0 else None


def _inputs(view: StepView) -> float:
    """Returns the rms of what enters the first layer of the chain, NaN where it was not captured."""
    rows, chain = view.activation_input, view.layout.chain
    return float(rows.rms[chain[0]]) if rows is not None and len(chain) else math.nan


def _factor(value: float, before: deque[float]) -> float | None:
    usual = median(np.array(before)) if before else math.nan
    return value / usual if usual > 0 and math.isfinite(value) else None


def _since(series: Series, read: int) -> list[float]:
    fresh = min(series.count - read, len(series.recent))
    return list(series.recent)[len(series.recent) - fresh :]


def _grown(view: StepView, before: list[Float]) -> tuple[tuple[int, float], ...]:
    """Returns the three layers whose gradients grew most, with their factors."""
    primary = view.layout.primary
    if view.gradient is None or any(len(row) != len(primary) for row in before):
        return ()
    growth = decades(view.gradient.rms[primary]) - medians(decades(np.stack(before)))
    order = np.argsort(np.where(np.isfinite(growth), -growth, np.inf))[:3]
    return tuple((int(view.layout.chain[i]), 10 ** float(growth[i])) for i in order)


def _others(events: list[Event], first: Event) -> tuple[str, ...]:
    others = [str(event.step) for event in events if event is not first]
    if not others:
        return ()
    return (f"There are {count(len(events), 'spike')}, the others at step {listing(others, 5)}.",)


def _title(event: Event, *, marks: bool) -> str:
    what = f"The gradient jumps {number(event.gradient)}-fold" if event.gradient > 1 else ""
    what = what or f"An update {number(event.update)} times the usual size is applied"
    return f"{what} at one step and {'leaves a mark' if marks else 'passes without a mark'}"


def _cause(event: Event) -> str:
    if event.rate is not None and event.rate > TOP:
        return f"The learning rate of step {event.step} is {number(event.rate)} times the usual one."
    if event.gradient == 1:
        return f"Not the gradient but the step jumped at step {event.step}: probably the learning rate."
    if event.inputs is not None and event.inputs > TOP:
        return f"The inputs of the batch of step {event.step} are {number(event.inputs)} times the usual ones."
    if event.loss is not None and event.loss > 0.3 * event.gradient:
        return f"The loss of the batch of step {event.step} is {number(event.loss)} times the usual one."
    return f"The batch of step {event.step} is probably an outlier: its inputs, its labels or their scale."


def _advice(event: Event) -> tuple[str, ...]:
    if event.gradient == 1 or (event.rate is not None and event.rate > TOP):
        return (
            f"Look at the learning rate schedule around step {event.step}.",
            "Go back to the last checkpoint before it.",
        )
    return (
        f"Look at the batch of step {event.step}: units, missing values, labels.",
        "Clip the gradient norm near its usual value, or skip steps far above it.",
        "Go back to the checkpoint before it and leave the batch out.",
    )
