"""Tools: a tool is a function from a training program to claims; gradwatch is one of them."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

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


class _Log(Observer):
    def __init__(self, watch: Any) -> None:
        self._watch = watch

    def end(self, step: int, loss: Any, *, task: float, accuracy: float, clip: float) -> None:
        self._watch.log(loss=loss)


def gradwatch(program: Program) -> list[Claim]:
    """Watches the program with its default options and reads the findings of the run's files."""
    import gradwatch as tool

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        directory = Path(folder) / "run"
        options: dict[str, Any] = {"run": directory, "report": False, "on_finding": lambda _: None}
        if program.framework == "torch":
            with tool.watch(program.model, *program.optimizers, **options) as watch:  # type: ignore[attr-defined]
                program.train(_Log(watch))
        else:
            with tool.watch(**options) as watch:
                program.step = watch(program.step)  # type: ignore[attr-defined]
                program.train(_Log(watch))
        findings = tool.load(directory).findings
    return [Claim(f.kind, f.severity != "notice", _named(f.layer, f.layers), f.first_step) for f in findings]


TOOLS: Final[dict[str, Tool]] = {"gradwatch": gradwatch}
"""Tools that watch a program while it trains."""


def _named(layer: str | None, layers: tuple[str, ...]) -> tuple[str, ...]:
    return layers if layer is not None else ()
