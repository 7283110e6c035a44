"""Which signals are captured on which step. The only place that knows the cadence.

The default goes by step number alone, so it is the same in every framework and on every rank.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from gradwatch.errors import GradwatchError
from gradwatch.record import ACTIVATION_SIGNALS, SIGNALS

ALARM_STEPS: Final = 16
ALARM_PERIOD: Final = 256
_DENSE: Final = 16
_EARLY: Final = 64
_GRADIENT: Final = frozenset({"gradient"})
_WEIGHTS: Final = frozenset({"update", "weight"})
_LAYERS: Final = frozenset(ACTIVATION_SIGNALS)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to capture at one step.

    Attributes:
        gradient: l2, sum, absmax and non-finite counts of every gradient.
        histogram: also zeros, subnormals and the histogram.
        signals: every signal to capture, ``gradient`` among them.
        update: whether the weights are copied before the step.
        weight: whether the weights are reduced after the step.
        activation: whether layers' outputs, or the gradients at them, are reduced in this step's passes.
    """

    gradient: bool
    histogram: bool
    signals: frozenset[str]
    update: bool = field(init=False)
    weight: bool = field(init=False)
    activation: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "update", "update" in self.signals)
        object.__setattr__(self, "weight", "weight" in self.signals)
        object.__setattr__(self, "activation", not self.signals.isdisjoint(ACTIVATION_SIGNALS))

    def __bool__(self) -> bool:
        return bool(self.signals)


NOTHING: Final = Plan(gradient=False, histogram=False, signals=frozenset())


class Schedule:
    """Plans each step.

    With ``every=None``: ``gradient`` every step, its zeros, subnormals and histogram on steps 0-15 and every 8th;
    ``update`` and ``weight`` every step to 63, then every 32nd; activations and their gradients on steps 0-15, every
    4th to 63, then every 64th. With ``every=k``: all chosen signals on every k-th step and nothing else.

    ``alarm`` and ``halve`` are called from the writer thread; they only set numbers that ``plan`` reads.
    """

    def __init__(
        self,
        *,
        every: int | None = None,
        signals: Collection[str] | None = None,
        budget: float | None = None,
        lean: bool = False,
        alarms: bool = True,
    ) -> None:
        """Sets the cadence.

        Args:
            every: None for the default schedule, or capture all signals on every k-th step (k >= 1).
            signals: some of ``SIGNALS``; all five by default.
            budget: share of the training time that capture may cost (0.01 is one percent), or None for no limit.
            lean: gradients only, without histograms: the cadence of ranks other than 0.
            alarms: whether an alarm may add captures; False with several processes, whose steps must stay alike.

        Raises:
            GradwatchError: for an unknown signal, an ``every`` below 1 or a budget outside ]0, 1].
        """
        self.every = _checked_every(every)
        self.signals = _checked_signals(signals)
        self.budget = _checked_budget(budget)
        self._lean = lean
        self._alarms = alarms
        self._alarm_from = -ALARM_PERIOD
        self._alarm_pending = False
        self._stride = 1
        self._spent = 0.0
        self._allowed = 0.0
        self._plans: dict[tuple[frozenset[str], bool], Plan] = {}

    def plan(self, step: int) -> Plan:
        """Returns what to capture at this step."""
        if self.budget is not None and self._spent > self._allowed:
            return NOTHING
        if self._alarm_pending:
            self._alarm_pending, self._alarm_from = False, step
        if step < self._alarm_from + ALARM_STEPS:
            return self._make(self.signals, histogram=True)
        if self.every is not None:
            return self._make(self.signals, histogram=True) if step % (self.every * self._stride) == 0 else NOTHING
        wanted = _GRADIENT
        if step < _EARLY or step % (32 * self._stride) == 0:
            wanted |= _WEIGHTS
        if step < _DENSE or step % ((4 if step < _EARLY else 64) * self._stride) == 0:
            wanted |= _LAYERS
        return self._make(wanted, histogram=step < _DENSE or step % (8 * self._stride) == 0)

    def alarm(self, step: int) -> None:
        """Asks for all signals during the next 16 steps, at most once in 256."""
        if self._alarms and not self._lean and step >= self._alarm_from + ALARM_PERIOD:
            self._alarm_pending = True

    def halve(self) -> None:
        """Halves the cadence of the sampled signals: the writer could not keep up."""
        self._stride = min(self._stride * 2, 1024)

    def charge(self, capture: float, step: float) -> None:
        """Accounts for seconds spent capturing during ``step`` seconds of training; only the budget uses it."""
        if self.budget is not None:
            self._spent += capture
            self._allowed += self.budget * step

    def describe(self) -> dict[str, object]:
        """Returns the cadence as plain data for the run's manifest."""
        return {"every": self.every, "signals": sorted(self.signals), "budget": self.budget}

    def _make(self, wanted: frozenset[str], *, histogram: bool) -> Plan:
        key = (wanted, histogram)
        if key not in self._plans:
            signals = wanted & self.signals & (_GRADIENT if self._lean else wanted)
            gradient = "gradient" in signals
            self._plans[key] = Plan(gradient, gradient and histogram and not self._lean, signals)
        return self._plans[key]


def _checked_signals(signals: Collection[str] | None) -> frozenset[str]:
    chosen = frozenset(SIGNALS if signals is None else [signals] if isinstance(signals, str) else signals)
    unknown = sorted(chosen - set(SIGNALS))
    if unknown or not chosen:
        what = f"signals={unknown} are unknown" if unknown else "signals is empty"
        raise GradwatchError(f"{what}; choose some of {', '.join(SIGNALS)}.")
    return chosen


def _checked_every(every: int | None) -> int | None:
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise GradwatchError(f"every={every!r} must be a number of steps, 1 or more, or None for the default schedule.")
    return every


def _checked_budget(budget: float | None) -> float | None:
    if budget is not None and not 0 < budget <= 1:
        raise GradwatchError(f"budget={budget!r} must be a share of the training time between 0 and 1, such as 0.01.")
    return budget
