"""One pass over the gradients at the optimizer's step, where they are what the optimizer will use."""

from __future__ import annotations

import functools
import operator
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.plugins import Session
from gradwatch.record import PARAMETER_SIGNALS
from gradwatch.scalars import Reader
from gradwatch.schedule import Plan
from gradwatch_torch.activations import Activations, join_captures
from gradwatch_torch.arrival import is_capturing
from gradwatch_torch.device import HostCopy, scalar_reader
from gradwatch_torch.gradients import NONE, Gradients, Ids
from gradwatch_torch.losses import Losses
from gradwatch_torch.pending import Clip, Part, PendingStep
from gradwatch_torch.targets import Parameter, site
from gradwatch_torch.units import UnitMemory
from gradwatch_torch.weights import Weights


@dataclass(slots=True)
class Layout:
    """The parameters of one optimizer, and of those watched the site ids; rebuilt when its groups change."""

    parameters: Sequence[Tensor] = ()
    ids: dict[str, Ids] = field(default_factory=dict)
    site_of: dict[int, int] = field(default_factory=dict)
    gradients: Gradients = field(default_factory=lambda: Gradients((), NONE))
    weights: Weights = field(default_factory=lambda: Weights(()))


@dataclass(frozen=True, slots=True)
class Shared:
    """What the captures of a run have in common.

    Attributes:
        session: what the core gives to an adapter.
        activations: the reader of layers.
        losses: the roots of the backward passes.
        describe: a parameter's names and status, or None for one that is not watched.
        on_end: called when a step has ended and the next one is planned.
    """

    session: Session
    activations: Activations
    losses: Losses
    describe: Callable[[Tensor], tuple[Parameter, str] | None]
    on_end: Callable[[], None]


class OptimizerCapture:
    """Captures the steps of one optimizer.

    The pre-hook reads what the optimizer is about to use; when the step was given a closure, which computes the
    gradients anew, the post-hook reads instead. A step ends at the first post-hook after a pre-hook, so optimizers
    whose ``step`` calls ``super().step()`` count once.
    """

    def __init__(
        self,
        key: str,
        shared: Shared,
        extra: Sequence[Tensor],
        optimizer: Optimizer | None,
    ) -> None:
        """Prepares capture.

        Args:
            key: of the optimizer.
            shared: what the captures of a run have in common.
            extra: watched parameters that no optimizer holds; they are read with this one's.
            optimizer: whose steps are captured, or None when steps are ended by hand.
        """
        session = shared.session
        self.key = key
        self.reduced = False
        self.plan: Plan = session.schedule.plan(0)
        self.loss_scale: HostCopy | None = None
        self.ended = 0
        self._clips: list[Clip] = []
        self._shared = shared
        self._session = session
        self._extra = list(extra)
        self._optimizer = None if optimizer is None else weakref.ref(optimizer)
        self._index = len(session.sites.optimizers)
        session.sites.optimizers.append(key)
        self._layout = Layout()
        self._memory = UnitMemory()
        self._pending: PendingStep | None = None
        self._has_closure = False
        self._spent = 0.0
        self._started = self._last = time.perf_counter()

    def belongs_to(self, optimizer: Optimizer) -> None:
        """States whose steps these are, when that shows only later."""
        self._optimizer = weakref.ref(optimizer)

    def before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Opens the step: reads the gradients and, on the schedule's steps, copies the weights.

        While a CUDA graph is being captured nothing is computed, so that is no step.
        """
        if is_capturing():
            return
        began = time.perf_counter()
        self._pending = pending = self._open(began)
        pending.scale = _copy(getattr(optimizer, "grad_scale", None))
        pending.found_inf = _copy(getattr(optimizer, "found_inf", None))
        self._has_closure = _closure(args, kwargs) is not None
        if self.plan.signals:
            self._lay_out(_parameters(optimizer))
            pending.facts["learning_rate"] = _learning_rate(optimizer)
            if not self._has_closure:
                self._read_gradients(pending, self._stage())
            if self.plan.update:
                self._layout.weights.copy()
        self._spent += time.perf_counter() - began

    def after_step(self) -> None:
        """Ends the step: takes the update and the weights, and hands the record over."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        began = time.perf_counter()
        if self._has_closure and self.plan.gradient:
            self._read_gradients(pending, "after the step")
        if self.plan.update or self.plan.weight:
            read = self._layout.weights.read(update=self.plan.update, weight=self.plan.weight)
            for signal, measured in zip(("update", "weight"), read, strict=True):
                if measured is not None:
                    pending.parts.append(Part(signal, self._layout.ids[signal], measured, "unscaled"))
        self._end(pending, began)

    def skipped_step(self) -> None:
        """Counts a step that a loss scaler skipped."""
        began = time.perf_counter()
        pending = self._open(began)
        pending.skipped = True
        self._end(pending, began)

    def read_by_hand(self, parameters: Sequence[Tensor], before: PendingStep | None = None) -> PendingStep:
        """Reads the gradients as they are now, in place of an earlier reading of the same step."""
        pending = self._open(time.perf_counter())
        if self.plan.signals:
            self._lay_out(parameters)
            self._read_gradients(pending, "unknown")
        pending.captures = self._shared.activations.take(self.key)
        if before is not None:
            join_captures(pending.captures, before.captures)
        return pending

    def end_by_hand(self, pending: PendingStep) -> None:
        """Ends a step whose gradients were read by hand."""
        self._end(pending, time.perf_counter())

    def clipped(self, parameters: Sequence[Tensor], max_norm: Reader, norm: HostCopy) -> None:
        """Takes note that gradients of this optimizer were clipped before the step."""
        optimizer = None if self._optimizer is None else self._optimizer()
        if optimizer is None:
            return
        self._lay_out(_parameters(optimizer))
        known = self._layout.site_of
        sites = frozenset(known[id(parameter)] for parameter in parameters if id(parameter) in known)
        if sites:
            self._clips.append(Clip(max_norm, norm, sites))

    def _open(self, now: float) -> PendingStep:
        session = self._session
        if not self.ended:
            session.recorder.start()
        return PendingStep(
            self.ended, self._index, now - self._started, session.sites, self._memory, NONE, clips=self._clips
        )

    def _end(self, pending: PendingStep, began: float) -> None:
        session, step = self._session, self.ended
        pending.loss_scale = self.loss_scale
        captures = pending.captures or self._shared.activations.take(self.key)
        if captures:
            pending.captures = {key: value for key, value in captures.items() if key[0] in self.plan.signals}
        suggested = self._shared.losses.read(self.key, self.loss_scale) if self.plan.signals else {}
        pending.logged = session.scalars.end_step(step, self._index, pending.time, suggested)
        if self.plan.signals or pending.logged or pending.skipped:
            session.recorder.put(step, pending)
        if step == 0:
            session.recorder.wait_open()
        self._clips, self.loss_scale = [], None
        self.ended += 1
        self._charge(began)
        plan = session.schedule.plan(self.ended)
        if plan is not self.plan:
            self.plan = plan
            if not plan.update:
                self._layout.weights.forget()
        self._shared.on_end()
        session.boundary()

    def _charge(self, began: float) -> None:
        schedule, now = self._session.schedule, time.perf_counter()
        if schedule.budget is not None:
            spent = self._spent + now - began + self._shared.activations.take_seconds()
            schedule.charge(spent, now - self._last)
        self._spent, self._last = 0.0, now

    def _read_gradients(self, pending: PendingStep, stage: str) -> None:
        gradients, plan = self._layout.gradients, self.plan
        measured = gradients.read(full=plan.histogram, only_absent=not plan.gradient)
        pending.absent = gradients.absent
        if measured is not None:
            stage = "shard" if gradients.sharded else stage
            pending.parts.append(Part("gradient", gradients.present, measured, stage))

    def _lay_out(self, parameters: Sequence[Tensor]) -> None:
        known = self._layout.parameters
        if len(parameters) == len(known) and all(map(operator.is_, parameters, known)):
            return
        owned = self._described(parameters)
        held = set(map(id, parameters))
        extra = self._described([tensor for tensor in self._extra if id(tensor) not in held])
        layout = Layout(parameters)
        for signal in PARAMETER_SIGNALS:
            ids = [self._add_site(signal, described, self.key, status) for _, described, status in owned]
            ids.extend(self._add_site(signal, described, "", status) for _, described, status in extra)
            layout.ids[signal] = np.array(ids, dtype=np.uint32)
        tensors = [tensor for tensor, _, _ in owned]
        layout.site_of = dict(zip(map(id, tensors), layout.ids["gradient"].tolist(), strict=False))
        # What no optimizer holds is read as well: only its updates tell whether something else trains it.
        everything = [*tensors, *(tensor for tensor, _, _ in extra)]
        layout.gradients = Gradients(everything, layout.ids["gradient"])
        layout.weights = Weights(everything)
        self._layout = layout

    def _described(self, tensors: Sequence[Tensor]) -> list[tuple[Tensor, Parameter, str]]:
        found = [(tensor, self._shared.describe(tensor)) for tensor in tensors]
        return [(tensor, *described) for tensor, described in found if described is not None]

    def _add_site(self, signal: str, parameter: Parameter, optimizer: str, status: str) -> int:
        return self._session.sites.add(site(signal, parameter, optimizer, status))

    def _stage(self) -> str:
        if self.reduced:
            return "reduced, after clipping" if self._clips else "reduced"
        if self._clips:
            return "after clipping"
        return "local" if self._session.world_size > 1 else "unscaled"


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    groups = optimizer.param_groups
    return list(groups[0]["params"]) if len(groups) == 1 else [p for group in groups for p in group["params"]]


def _closure(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Returns the closure of a step's arguments, of which the first is the optimizer."""
    return args[1] if len(args) > 1 else kwargs.get("closure")


def _learning_rate(optimizer: Optimizer) -> Reader:
    rates = [group["lr"] for group in optimizer.param_groups if "lr" in group]
    return functools.partial(_largest, [scalar_reader(rate) if isinstance(rate, Tensor) else rate for rate in rates])


def _largest(rates: Sequence[Any]) -> float:
    return max((float(rate() if callable(rate) else rate) for rate in rates), default=float("nan"))


def _copy(value: Any) -> HostCopy | None:
    return HostCopy(value) if isinstance(value, Tensor) else None
