"""What an adapter and a reporter are, and how they are found: by entry point, nothing is subclassed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from gradwatch.errors import GradwatchError
from gradwatch.findings import Analysis
from gradwatch.record import SiteTable
from gradwatch.recorder import Recorder
from gradwatch.recording import Recording
from gradwatch.scalars import Scalars
from gradwatch.schedule import Schedule

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Session:
    """What an adapter works with: where to register sites, what to capture when, and where to hand it over.

    Attributes:
        sites: the table to which the adapter adds its sites.
        schedule: tells what to capture at a step.
        recorder: takes pending records; its guard keeps failures out of the training loop.
        scalars: what the user logs; the adapter ends its steps there.
        layers: predicate over dotted layer paths: whether a layer is watched.
        boundary: to be called when a step has ended; raises ``GradientFinding`` when the user asked for that.
        note: takes a data-quality note, one sentence, that the report shows.
        rank, world_size: of this process in its launch.
    """

    sites: SiteTable
    schedule: Schedule
    recorder: Recorder
    scalars: Scalars
    layers: Callable[[str], bool]
    boundary: Callable[[], None] = lambda: None
    note: Callable[[str], None] = lambda _: None
    rank: int = 0
    world_size: int = 1


@runtime_checkable
class Adapter(Protocol):
    """Captures the steps of one framework's training loop."""

    def claims(self, *targets: Any) -> bool:
        """Tells whether these models and optimizers, or this function, belong to the adapter's framework."""
        ...

    def attach(self, session: Session, *targets: Any) -> None:
        """Starts capture. Raises GradwatchError when there is nothing to watch."""
        ...

    def detach(self) -> None:
        """Stops capture and leaves nothing behind; safe to call twice and at any moment."""
        ...

    def step(self) -> None:
        """Ends a step by hand, for loops in which no step can be seen."""
        ...

    def decorate(self, function: F) -> F:
        """Returns the train step with capture added; its signature and results are kept."""
        ...

    def scalar(self, value: Any) -> Callable[[], float] | None:
        """Returns a reader of a framework's scalar that is called on the writer thread, or None if it is none."""
        ...

    def world(self) -> tuple[int, int] | None:
        """Returns (rank, number of processes) as the framework knows them, or None to ask the environment."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Returns plain data for the run's manifest: the framework and its version."""
        ...


@runtime_checkable
class Reporter(Protocol):
    """Renders a run. Options belong to ``__init__``; opening files is the caller's."""

    suffix: str

    def render(self, recording: Recording, analysis: Analysis) -> str:
        """Returns the whole report as text."""
        ...


class Demo(Protocol):
    """Trains a network that is sick and one that is repaired, both watched; an adapter may bring one."""

    def __call__(self, out: Path, *, seed: int) -> Sequence[Path]:
        """Trains in new run directories below ``out``, prints what happens, and returns them, the sick one first."""
        ...


def adapter_for(*targets: Any) -> Adapter:
    """Returns a new adapter that claims the targets, looking only at frameworks that are already imported.

    Raises:
        GradwatchError: when none does.
    """
    for entry in _entries("gradwatch.adapters"):
        if entry.name in sys.modules:
            adapter: Adapter = entry.load()()
            if adapter.claims(*targets):
                return adapter
    names = ", ".join(type(target).__name__ for target in targets) or "nothing"
    known = ", ".join(sorted(entry.name for entry in _entries("gradwatch.adapters"))) or "none: run `pip install -e .`"
    raise GradwatchError(f"cannot watch {names}: no adapter claims it (adapters installed: {known}).")


def reporter(name: str, **options: Any) -> Reporter:
    """Returns a new reporter by its entry point's name, made with options of its own.

    Raises:
        GradwatchError: when there is none of that name.
    """
    made: Reporter = _load("reporter", name)(**options)
    return made


def demo(framework: str | None = None) -> Demo:
    """Returns the demonstration of a framework, by default the first one whose packages are all installed.

    Raises:
        GradwatchError: when there is none, or something that it imports is not installed.
    """
    names = [framework] if framework else [entry.name for entry in _entries("gradwatch.demos")]
    refusals = []
    for name in names or [""]:
        try:
            found: Demo = _load("demo", name)
        except ImportError as error:
            refusals.append(
                f"the {name} demo needs {error.name or error}, which is not installed: "
                f"pip install 'gradwatch[demo-{name}]'"
            )
        else:
            return found
    raise GradwatchError("; ".join(refusals) + ".")


def _load(what: str, name: str) -> Any:
    found = {entry.name: entry for entry in _entries(f"gradwatch.{what}s")}
    if name not in found:
        known = ", ".join(sorted(found)) or "none: run `pip install -e .`"
        raise GradwatchError(f"there is no {what} called {name!r} (installed: {known}).")
    return found[name].load()


def _entries(group: str) -> Iterator[EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415  a tenth of what importing gradwatch would cost

    return iter(entry_points(group=group))
