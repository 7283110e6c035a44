"""A run as people use it: its verdict, findings, data frames and reports."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch import plugins, recording
from gradwatch.errors import GradwatchError
from gradwatch.findings import Analysis, Finding
from gradwatch.record import SIGNALS
from gradwatch.recording import Recording
from gradwatch.silences import Silence, parsed

if TYPE_CHECKING:
    import pandas as pd

    from gradwatch.comparison import Comparison


class Run:
    """A run on disk, read when first asked and analysed when first asked.

    A run that is still being written can be loaded at any time; load it again to see its newest steps.
    """

    def __init__(self, path: Path, loaded: Recording, silences: Collection[Silence] = ()) -> None:
        self.path = path
        self.recording = loaded
        self._silences = silences

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self.verdict})"

    @cached_property
    def analysis(self) -> Analysis:
        """The outcome of all rules."""
        from gradwatch import analyze  # noqa: PLC0415  the rules are imported only where a run is judged

        return analyze.analyze(self.recording, self._silences)

    @property
    def findings(self) -> list[Finding]:
        """All findings, worst first."""
        return list(self.analysis.findings)

    @property
    def verdict(self) -> str:
        """One sentence over all findings."""
        return self.analysis.verdict

    def frame(self, signal: str = "gradient", *, per_rank: bool = False) -> pd.DataFrame:
        """Returns a signal as a data frame, one row per captured step and parameter (or layer, for activations).

        Columns: ``step, optimizer, layer, parameter, numel, l2, mean, absmax, zeros, nan, inf, subnormal, stage``;
        null where not captured. An input of a layer has ``:input`` behind the layer's name. With ``per_rank`` there is
        a row a rank and a column ``rank``; otherwise ranks are merged.

        Raises:
            GradwatchError: for an unknown signal.
        """
        from gradwatch import frames  # noqa: PLC0415  pandas is imported only where a frame is asked for

        if signal not in SIGNALS:
            raise GradwatchError(f"signal={signal!r} is unknown; choose one of {', '.join(SIGNALS)}.")
        if not per_rank:
            return frames.frame(self.recording, signal)
        return frames.per_rank(recording.per_rank(self.path), signal)

    def report(self, path: str | os.PathLike[str] | None = None, *, reporter: str = "html") -> Path:
        """Writes a report and returns its path; by default ``report.html`` in the run's directory.

        Raises:
            GradwatchError: when there is no such reporter or the file cannot be written.
        """
        made = plugins.reporter(reporter)
        target = self.path / f"report{made.suffix}" if path is None else Path(path)
        text = made.render(self.recording, self.analysis)
        try:
            _replace(target, text)
        except OSError as error:
            raise GradwatchError(f"cannot write the report to {target}: {error.strerror or error}.") from error
        return target

    def compare(self, *others: Run) -> Comparison:
        """Holds other runs against this one: is one of them worse, why, and where do they differ.

        ``worse`` (True, False, or None when it cannot be told), ``why`` and ``verdict`` answer, and ``report(path)``
        writes a page; ``gradwatch.comparison.judgement`` says what "worse" means.

        Raises:
            GradwatchError: for no other run, or more than seven.
        """
        from gradwatch import comparison  # noqa: PLC0415  only who compares runs pays for it

        return comparison.compare([(run.recording, run.analysis) for run in (self, *others)])

    def _repr_html_(self) -> str:
        from html import escape  # noqa: PLC0415  only a notebook asks

        page = plugins.reporter("html").render(self.recording, self.analysis)
        style = "width:100%;height:800px;border:0"
        # A sandbox without allow-same-origin: the report can reach neither the notebook nor its server. Where the
        # notebook's own policy forbids every script, the first screen is still there: it needs none.
        return f'<iframe title="Report" srcdoc="{escape(page)}" sandbox="allow-scripts" style="{style}"></iframe>'


def load(path: str | os.PathLike[str], *, silence: str | Collection[str] = ()) -> Run:
    """Loads a run from its directory, also while it is being written.

    Args:
        path: the run's directory.
        silence: findings that are not to be told, beside those that ``watch`` was told of: kinds, or kinds in layers
            such as ``"dead-units:encoder.*"``.

    Raises:
        GradwatchError: when ``silence`` names no kind of trouble.
        RunError: when the directory is missing, is not a run, or was written by a newer version.
    """
    silences = parsed(silence)
    return Run(Path(path), recording.load_recording(Path(path)), silences)


def _replace(target: Path, text: str) -> None:
    """Writes a whole file or none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
