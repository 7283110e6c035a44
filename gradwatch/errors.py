"""The one family of errors that gradwatch raises on purpose."""

from __future__ import annotations


class GradwatchError(Exception):
    """Says in one sentence what was wrong with the caller's input and what to do."""


class RunError(GradwatchError):
    """A run directory is missing, unreadable, of a newer version, or not a run."""


class GradientFinding(GradwatchError):
    """Raised at a step boundary when ``on_finding="raise"`` and a finding of warning or above appears."""
