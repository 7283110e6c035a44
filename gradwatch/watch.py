"""watch(): picks the adapter, wires the recorder to its sinks, and owns the life of a watched run."""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import shlex
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from gradwatch import plugins
from gradwatch.conclusion import conclude
from gradwatch.errors import GradientFinding, GradwatchError
from gradwatch.findings import Finding
from gradwatch.guard import Guard, log
from gradwatch.launch import Launch, from_environment, run_directory
from gradwatch.options import DEFAULT_MAX_BYTES, Layers, OnFinding, Options
from gradwatch.record import SiteTable
from gradwatch.recorder import CLOSE_SECONDS, Recorder
from gradwatch.scalars import Reader, Scalars

F = TypeVar("F", bound=Callable[..., Any])


class Watch:
    """A watched training run: a context manager, and a decorator for a train step.

    Capture starts when it is made and ends at ``close``, when the ``with`` is left, or at interpreter exit. Nothing is
    written before the first step.
    """

    def __init__(self, targets: tuple[Any, ...], options: Options) -> None:
        self._options = options
        self._on_finding = options.on_finding
        self._lock = threading.Lock()
        self._closed = False
        self._adapter: plugins.Adapter | None = None
        self._raise: Finding | None = None
        self._remarks: list[str] = []
        self.guard = Guard()
        self._guard_calls()
        if targets:
            self._attach(targets)

    @property
    def run_dir(self) -> Path:
        """The run's directory; it exists from the end of the first step on.

        Raises:
            GradwatchError: for a bare decorator before its first call, when the name is not chosen yet.
        """
        if self._adapter is None:
            raise GradwatchError("the run has no directory yet: the decorated step was not called.")
        return self._store.run_dir

    @property
    def findings(self) -> list[Finding]:
        """What was found so far, worst first; may lag behind training by a moment."""
        return self._findings()

    def log(self, **scalars: Any) -> None:
        """Records scalars of the step that ended last, or of the running one when it has the key already.

        A tensor is read later on another thread, so nothing waits for a device. Never raises: a value that is no
        scalar is left out, with one line that says so.
        """
        self._log(scalars)

    def step(self) -> None:
        """Ends a step by hand, for loops in which no optimizer step can be seen.

        Raises:
            GradwatchError: when the watch is closed.
        """
        self._check_open("step")
        if self._adapter is not None:
            self._adapter.step()

    def close(self) -> None:
        """Stops capture, seals the files within 2 s, writes the report and prints the verdict; safe to call twice."""
        self._finish(render=True)

    def __enter__(self) -> Watch:
        self._check_open("enter")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An interrupted user waits for nothing; one line tells how to make the report.
        self._finish(render=kind is None or issubclass(kind, Exception))

    @overload
    def __call__(self, function: F, /) -> F: ...

    # What a bare ``@gradwatch.watch`` returns is the function; a type checker sees a Watch, and must let it be called.
    @overload
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __call__(self, *args: Any, **_: Any) -> Any:
        """Decorates a train step: same signature, same results; it carries this watch as ``function.watch``."""
        self._check_open("decorate")
        function = args[0] if args else None
        if not callable(function):
            raise GradwatchError(f"cannot decorate {function!r}: it is not callable.")
        decorated = self._adapter.decorate(function) if self._adapter is not None else self._on_first_call(function)
        decorated.watch = self
        return decorated

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a watched object is not watched."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as None, so that a watched object loads where gradwatch is not installed."""
        return type(None), ()

    def _repr_html_(self) -> str:
        return self._card()

    def _html(self) -> str:
        from gradwatch import notebook  # noqa: PLC0415  only a notebook asks

        if self._adapter is None:
            return notebook.card("The decorated step was not called yet.", ())
        analysis, path = self._stream.analysis(), str(self.run_dir)
        findings = [finding.summary for finding in analysis.findings]
        opened = [f"gradwatch.load({path!r})", f"gradwatch {'report' if self._closed else 'live'} {shlex.quote(path)}"]
        worst = analysis.findings[0].severity if analysis.findings else ""
        rows = (("Findings", findings), ("Run", [path]), ("Open it with", opened))
        return notebook.card(analysis.verdict, rows, severity=worst, place="closed" if self._closed else "watching")

    def _on_first_call(self, function: F) -> F:
        inner: Callable[..., Any] | None = None

        @functools.wraps(function)
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal inner
            if inner is None:
                self._attach((function,))
                assert self._adapter is not None
                inner = self._adapter.decorate(function)
            return inner(*args, **kwargs)

        return step  # type: ignore[return-value]

    def _attach(self, targets: tuple[Any, ...]) -> None:
        adapter = plugins.adapter_for(*targets)
        launch = from_environment(adapter.world())
        session = self._wire(adapter, launch)
        adapter.attach(session, *targets)
        self._adapter = adapter
        _open_watches.add(self)

    def _wire(self, adapter: plugins.Adapter, launch: Launch) -> plugins.Session:
        # Rules and store are half of what importing gradwatch would cost: who only imports it does not pay for them.
        from gradwatch.analyze import Stream  # noqa: PLC0415
        from gradwatch.store import StoreWriter  # noqa: PLC0415
        from gradwatch.told import analysis_event  # noqa: PLC0415

        self._rank = launch.rank
        self._sites = SiteTable(optimizers=())
        options = self._options
        schedule = options.schedule(lean=launch.rank > 0, alarms=launch.world_size == 1)
        silences = options.silences()
        self._stream = Stream(
            self._sites,
            on_finding=self._found,
            on_alarm=schedule.alarm,
            on_close=lambda outcome: self._store.event(analysis_event(outcome)),
            silences=silences,
        )
        manifest = {**adapter.facts(), "schedule": schedule.describe()}
        if silences:
            manifest["silence"] = list(map(str, silences))
        self._store = StoreWriter(
            run_directory(options.run, launch),
            self._sites,
            manifest,
            rank=launch.rank,
            world_size=launch.world_size,
            launch_id=launch.id,
            restart=launch.restart,
            max_bytes=options.max_bytes,
            notes=self._notes,
        )
        self._recorder = Recorder([self._store, self._stream], self.guard, on_overflow=schedule.halve)
        self._scalars = Scalars(self._recorder)
        return plugins.Session(
            self._sites,
            schedule,
            self._recorder,
            self._scalars,
            options.watches,
            self._boundary,
            self._remarks.append,
            launch.rank,
            launch.world_size,
        )

    def _guard_calls(self) -> None:
        """Guards, once and for all, everything that a training loop can reach."""
        wrap = self.guard.wrap
        self._log = wrap(self._log_scalars, "log")
        self._findings = wrap(self._current_findings, "findings", [])
        self._card = wrap(self._html, "the notebook's card", "")
        self._first_close = wrap(self._mark_closed, "closing", default=True)
        # A failure may have left hooks behind, so the second call goes on where the first one stopped.
        self._detach = (wrap(self._detach_adapter, "detaching"), wrap(self._detach_adapter, "detaching again"))
        self._seal = wrap(self._close_recorder, "sealing")
        self._tell = wrap(self._conclude, "the verdict")

    def _finish(self, *, render: bool) -> None:
        if self._first_close():
            for detach in self._detach:
                detach()
            self._seal()
            self._tell(render=render)

    def _current_findings(self) -> list[Finding]:
        return [] if self._adapter is None else list(self._stream.analysis().findings)

    def _log_scalars(self, scalars: Mapping[str, Any]) -> None:
        if self._closed or self._adapter is None:
            return
        readers = {key: _reader(self._adapter, value) for key, value in scalars.items()}
        for key in [key for key, reader in readers.items() if reader is None]:
            self._say_once(f"log({key}=...) takes a number or a scalar array, not {type(scalars[key]).__name__}")
        self._scalars.log({key: reader for key, reader in readers.items() if reader is not None})

    def _say_once(self, sentence: str) -> None:
        if sentence not in self.guard.failures:
            self.guard.failures.append(sentence)
            log.warning("gradwatch: %s.", sentence)

    def _notes(self) -> dict[str, Any]:
        """Returns what the attempt's manifest says about the recorder."""
        return {
            "refused": dict(self._recorder.refused),
            "refused_steps": self._recorder.refused_steps,
            "failures": list(self.guard.failures),
            "remarks": list(self._remarks),
        }

    def _found(self, finding: Finding) -> None:
        """Called on the writer thread for each new finding of warning and above."""
        from gradwatch.told import finding_event  # noqa: PLC0415

        self._store.event(finding_event(finding))
        if finding.first_step is not None:
            self._store.pin(finding.first_step)
        if callable(self._on_finding):
            self.guard.wrap(self._on_finding, "on_finding")(finding)
        elif self._rank == 0:
            since = "" if finding.first_step is None else f", since step {finding.first_step:,}"
            log.warning("gradwatch: %s: %s (%s%s).", finding.severity, finding.title, finding.kind, since)
        if self._on_finding == "raise" and self._raise is None:
            self._raise = finding

    def _boundary(self) -> None:
        """Called by the adapter when a step has ended, on the training thread."""
        finding, self._raise = self._raise, None
        if finding is not None:
            self._on_finding = "warn"
            raise GradientFinding(f"{finding.title} ({finding.kind}, {finding.severity}). {finding.cause}")

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise GradwatchError(f"cannot {what} a closed watch; make a new one with gradwatch.watch(...).")

    def _mark_closed(self) -> bool:
        """Returns True for the first call only."""
        with self._lock:
            if self._closed:
                return False
            self._closed = True
        _open_watches.discard(self)
        return self._adapter is not None

    def _detach_adapter(self) -> None:
        if self._adapter is not None:
            self._adapter.detach()

    def _close_recorder(self) -> None:
        if not self._recorder.close(CLOSE_SECONDS):
            log.warning("gradwatch: the files could not be sealed within %g s; they stay readable.", CLOSE_SECONDS)

    def _conclude(self, *, render: bool) -> None:
        if self._rank == 0:
            conclude(self.run_dir, self.guard, render=render, report=self._options.report)


def watch(
    *targets: Any,
    run: str | os.PathLike[str] | None = None,
    layers: Layers = None,
    signals: Collection[str] | None = None,
    every: int | None = None,
    on_finding: OnFinding = "warn",
    report: bool = True,
    budget: float | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    silence: str | Collection[str] = (),
) -> Watch:
    """Watches a training run; returns a ``Watch``, or the decorated step when used as a bare decorator.

    Args:
        targets: models and optimizers, in any order, also in lists or dicts; none for a decorator that finds them.
        run: the run's directory; by default ``runs/`` and a name of the time or the launcher's id.
        layers: which layers to watch: a pattern such as ``"blocks.*"``, several, or a predicate over dotted paths.
        signals: some of ``gradient, update, weight, activation, activation_gradient``; all by default.
        every: capture all signals on every k-th step; by default the schedule of ``gradwatch.schedule``.
        on_finding: ``"warn"`` logs a line for each finding of warning and above, ``"raise"`` raises
            ``GradientFinding`` from the next step boundary, a callable is called with it on another thread.
        report: whether leaving the ``with`` or ``close`` writes ``report.html`` into the run's directory.
        budget: share of the training time that capture may cost, such as 0.01; steps are left out to keep it.
        max_bytes: limit of the run's files per rank, in bytes.
        silence: findings that are not to be told: kinds, or kinds in layers such as ``"dead-units:encoder.*"``. The
            report says which were.

    Raises:
        GradwatchError: for nothing to watch, an option out of range, or a directory that cannot hold the run.
    """
    options = Options(run, layers, signals, every, on_finding, report, budget, max_bytes, silence)
    if len(targets) == 1 and inspect.isroutine(targets[0]):
        return cast("Watch", Watch((), options)(targets[0]))
    return Watch(targets, options)


def _reader(adapter: plugins.Adapter, value: Any) -> Reader | None:
    if isinstance(value, (int, float)):
        return functools.partial(float, value)
    reader = adapter.scalar(value)
    if reader is None and hasattr(value, "__float__"):
        return functools.partial(float, float(value))
    return reader


_open_watches: set[Watch] = set()


def _close_all() -> None:
    for open_watch in tuple(_open_watches):
        open_watch._finish(render=False)


atexit.register(_close_all)
