"""One decorated train step: runs it with capture, and hands each call over as a step."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax

from gradwatch.errors import GradwatchError
from gradwatch.guard import log
from gradwatch.plugins import Session
from gradwatch.schedule import Plan, Schedule
from gradwatch_jax import compat, compat_mapped, flags, pairing, remarks
from gradwatch_jax.captured import Captured, Layout
from gradwatch_jax.collector import Collector
from gradwatch_jax.feedback import Feedback
from gradwatch_jax.instrument import Instrumented, donates, instrument, is_spread
from gradwatch_jax.names import Path
from gradwatch_jax.packing import Packed, pack
from gradwatch_jax.padding import padded
from gradwatch_jax.pending import PendingStep
from gradwatch_jax.places import Memory, Wishes
from gradwatch_jax.sites import SiteIds, Sites

_traces = itertools.count(1)


class WatchedStep:
    """A train step under observation; every call is at least one step."""

    def __init__(self, function: Callable[..., Any], session: Session) -> None:
        guard = session.recorder.guard
        self._function = function
        self._session = session
        self._schedule = _common_schedule(session)
        self._wishes = Wishes(
            self._schedule.signals,
            self._schedule.every is None and self._schedule.budget is None,
            session.layers,
            _argument_names(function),
        )
        self._optimizer = len(session.sites.optimizers)
        key = "" if self._optimizer == 0 else f"{getattr(function, '__name__', 'step')}-{self._optimizer + 1}"
        session.sites.optimizers.append(key)
        self._sites = SiteIds(session.sites, key)
        self._feedback = Feedback()
        self._memory: Memory | None = None
        self._context = next(_traces)
        self._trained_layout: Layout | None = None
        self._stopped = compat_mapped.is_pmapped(function)
        self._said: set[str] = set()
        self._sharded = False
        self._far = jax.default_backend() != "cpu"
        self._ended = 0
        self._plan: Plan = self._schedule.plan(0)
        self._started = self._last = time.perf_counter()
        self._prepare = guard.wrap(self._before)
        self._hand_over = guard.wrap(self._after)
        self._finish = guard.wrap(self._collected)
        self._donates: bool = guard.wrap(donates, default=False)(function)
        instrumented: Instrumented | None = guard.wrap(instrument)(function, self._observe)
        if instrumented is None:
            self._memory = Memory()
        self._run = instrumented or self._run_plain
        if self._stopped:
            self._say(remarks.PMAP)

    def stop(self) -> None:
        """Lets the step run as it was."""
        self._stopped = True

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the step.

        Raises:
            GradwatchError: inside a transformation, where nothing could be recorded.
        """
        guard = self._session.recorder.guard
        if self._stopped or guard.stopped():
            return self._function(*args, **kwargs)
        if not compat.outside_any_trace():
            raise GradwatchError(remarks.OUTER_TRANSFORMATION)
        plan = self._prepare(args, kwargs)
        if plan is None:
            return self._function(*args, **kwargs)
        result, captured = self._run(plan, args, kwargs)
        self._hand_over(captured, args, kwargs, result)
        self._session.boundary()
        return result

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._began = time.perf_counter()
        self._session.recorder.start()
        layout = self._trained_layout
        if layout is not None and not self._feedback.decided:
            self._feedback.entering(layout.trained, (args, kwargs))
            if self._feedback.decided and not self._feedback.confirmed:
                self._say(remarks.NOT_FED_BACK)
        if self._ended == 0:
            arrays = jax.tree.leaves((args, kwargs))
            self._sharded = is_spread(self._function) or any(_is_sharded(leaf) for leaf in arrays)
            if self._memory is not None:
                self._memory.reachable = jax.device_count() == 1 and all(_is_at_home(leaf) for leaf in arrays)
        return flags.encode(self._plan)

    def _observe(
        self, function: Callable[..., Any], plan: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Captured | Packed]:
        """Runs the user's function in the current trace, collecting; see ``instrument.Run``."""
        guard = self._session.recorder.guard
        collector = Collector(self._wishes, plan, guard, grouped=not self._sharded, memory=self._memory)
        before = pairing.arrays((args, kwargs))
        context = next(_traces) if self._memory is None else self._context
        opened = compat_mapped.opening(collector.enter)
        with compat.listening(collector.listen), opened, compat.fresh_context(context):
            result = function(*args, **kwargs)
        captured = self._finish(collector, before, (args, kwargs), result)
        return result, captured if captured is not None else Captured(Layout())

    def _collected(
        self, collector: Collector, before: dict[Path, Any], arguments: Any, result: Any
    ) -> Captured | Packed:
        captured = collector.finish(before, arguments, result)
        one_device = self._memory is None and not self._sharded and jax.device_count() == 1
        packed = pack(captured) if one_device else captured
        return padded(packed, list(before.values())) if self._donates else packed

    def _run_plain(self, plan: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Captured | Packed]:
        assert self._memory is not None
        if self._memory.plan is not None:
            self._memory.plan[...] = plan
        return self._observe(self._function, plan, args, kwargs)

    def _after(self, captured: Captured | Packed, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        layout = captured.layout
        for sentence in layout.remarks:
            self._say(sentence)
        if layout.trained is not None and not self._feedback.decided:
            self._trained_layout = layout
            self._feedback.leaving(layout.trained, ((args, kwargs), result))
        sites = self._sites.of(layout)
        if sites.steps == 1:
            self._end(captured, sites, self._ended, None)
        else:
            for write in range(sites.steps - sites.kept, sites.steps):
                self._end(captured, sites, self._ended + write, write)
        if self._ended == 0:
            self._session.recorder.wait_open()
        self._ended += sites.steps
        now = time.perf_counter()
        self._schedule.charge(now - self._began if self._memory is not None else 0.0, now - self._last)
        self._last = now
        self._plan = self._schedule.plan(self._ended)

    def _end(self, captured: Captured | Packed, sites: Sites, step: int, write: int | None) -> None:
        plan, session = self._plan, self._session
        now = time.perf_counter() - self._started
        logged = session.scalars.end_step(step, self._optimizer, now)
        taken = captured.of(plan)
        pending = PendingStep(step, self._optimizer, now, plan, taken, sites, self._feedback, write, logged)
        if self._far:
            pending.fetch()
        if session.rank > 0:
            pending.shed()
        if plan or logged:
            session.recorder.put(step, pending)

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._session.note(sentence)
            log.warning("gradwatch: %s.", sentence)


def _common_schedule(session: Session) -> Schedule:
    """Returns the schedule that all processes of one program must share, because its plan steers the program."""
    if session.world_size == 1:
        return session.schedule
    given = session.schedule
    return Schedule(every=given.every, signals=given.signals, budget=None, alarms=False)


def _is_sharded(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1


def _is_at_home(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.sharding.device_set == set(jax.devices())


def _argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
