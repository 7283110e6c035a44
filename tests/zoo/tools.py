"""Tools: a tool is a function from a training program to claims; gradwatch is one of them."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gradwatch.findings import Finding
from tests.zoo.program import Observer, Program


@dataclass(frozen=True, slots=True)
class Claim:
    """What a tool says about a run.

    Attributes:
        kind: one of the fourteen kinds.
        serious: whether a person is warned, rather than given a notice.
        layers: who is to blame, the worst first; empty for the whole run.
        step: since when, or None when the tool does not say.
    """

    kind: str
    serious: bool
    layers: tuple[str, ...] = ()
    step: int | None = None


Tool = Callable[[Program], list[Claim]]


class Log(Observer):
    """Logs the loss of each step.

    Attributes:
        watch: of gradwatch, set when it begins.
    """

    watch: Any = None

    def end(self, step: int, loss: Any, *, task: float, accuracy: float, clip: float) -> None:
        """Logs the loss."""
        self.watch.log(loss=loss)


def train_watched(
    program: Program, directory: Path, log: Log, on_finding: Callable[[Finding], None] = lambda _: None
) -> None:
    """Trains a program under gradwatch with its default options, as its users wrap a loop or decorate a step."""
    import gradwatch as tool

    options: dict[str, Any] = {"run": directory, "report": False, "on_finding": on_finding}
    model = (program.model, *program.optimizers) if program.framework == "torch" else ()  # type: ignore[attr-defined]
    with contextlib.redirect_stderr(io.StringIO()), tool.watch(*model, **options) as log.watch:
        if program.framework != "torch":
            program.step = log.watch(program.step)  # type: ignore[attr-defined]
        program.train(log)


def gradwatch(program: Program) -> list[Claim]:
    """Watches the program with its default options and reads the findings of the run's files."""
    import gradwatch as tool

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        train_watched(program, directory, Log())
        findings = tool.load(directory).findings
    return [Claim(f.kind, f.severity != "notice", _named(f.layer, f.layers), f.first_step) for f in findings]


TOOLS: Final[dict[str, Tool]] = {"gradwatch": gradwatch}
"""Tools that watch a program while it trains."""


def _named(layer: str | None, layers: tuple[str, ...]) -> tuple[str, ...]:
    return layers if layer is not None else ()
