"""The options of ``watch``, checked before anything begins."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from gradwatch.errors import GradwatchError
from gradwatch.findings import Finding
from gradwatch.schedule import Schedule
from gradwatch.silences import Silence, parsed

OnFinding = str | Callable[[Finding], None]
Layers = str | Collection[str] | Callable[[str], bool] | None

DEFAULT_MAX_BYTES: Final = 512 * 2**20
_LEAST_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose; see ``watch``.

    Raises:
        GradwatchError: for a value out of range.
    """

    run: str | os.PathLike[str] | None = None
    layers: Layers = None
    signals: Collection[str] | None = None
    every: int | None = None
    on_finding: OnFinding = "warn"
    report: bool = True
    budget: float | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    silence: str | Collection[str] = ()

    def __post_init__(self) -> None:
        if not callable(self.on_finding) and self.on_finding not in ("warn", "raise"):
            raise GradwatchError(f'on_finding={self.on_finding!r} must be "warn", "raise" or a function of a finding.')
        if self.max_bytes < _LEAST_BYTES:
            raise GradwatchError(f"max_bytes={self.max_bytes} is too small for a run; give at least {_LEAST_BYTES}.")
        self.schedule()
        self.silences()

    def silences(self) -> tuple[Silence, ...]:
        """Returns what is not to be told."""
        return parsed(self.silence)

    def schedule(self, *, lean: bool = False, alarms: bool = True) -> Schedule:
        """Returns a new schedule."""
        return Schedule(every=self.every, signals=self.signals, budget=self.budget, lean=lean, alarms=alarms)

    def watches(self, layer: str) -> bool:
        """Tells whether a layer is watched."""
        if self.layers is None:
            return True
        if callable(self.layers):
            return self.layers(layer)
        patterns = [self.layers] if isinstance(self.layers, str) else self.layers
        return any(fnmatch.fnmatchcase(layer, pattern) for pattern in patterns)
