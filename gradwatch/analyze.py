"""Runs the rules over a recording, or as a stream over the records of a run: one code path, one result."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from gradwatch import told
from gradwatch.causes import merge
from gradwatch.findings import STRUCTURAL, Analysis, Finding, ranked, verdict
from gradwatch.record import SiteTable, StepRecord
from gradwatch.recording import Recording
from gradwatch.rules import RULES
from gradwatch.rules.history import History
from gradwatch.rules.routine import Routine
from gradwatch.rules.view import StepView
from gradwatch.silences import Silence, silenced, stated

FIRST_STATISTICS: Final = 4
"""Captured steps below which only structural findings are given."""
EARLY: Final = 64
"""Records up to which new findings are looked for at every 8th record; later at every 64th."""


def analyze(recording: Recording, silences: Iterable[Silence] = ()) -> Analysis:
    """Returns the outcome of all rules over a recording, less what it or ``silences`` says is not to be told.

    Rules see captured steps only, never a bucket of them. Where rows were evicted, what was found while the run was
    written stands or is joined; see ``told.py``.
    """
    silences = (*stated(recording.facts.get("silence")), *silences)
    outcome = told.whole(recording)
    if outcome is not None:
        return silenced(outcome, silences)
    folds = {}
    for optimizer in sorted(recording.step_tables):
        fold = folds[optimizer] = Fold(recording.sites)
        for record in recording.records(optimizer):
            fold.observe(record)
    return silenced(_with_told(recording, conclude(recording.sites, folds)), silences)


def _with_told(recording: Recording, found: Analysis) -> Analysis:
    if not recording.told:
        return found
    findings = told.joined(recording, found.findings)
    last = {
        recording.sites.optimizers[optimizer] if len(recording.step_tables) > 1 else "": int(table.steps[-1])
        for optimizer, table in recording.step_tables.items()
        if len(table.steps)
    }
    kinds = {part.kind for finding in findings for part in (finding, *finding.symptoms)}
    found = replace(
        found,
        findings=tuple(ranked(findings, _layer_sizes(recording.sites), last)),
        passed=tuple(kind for kind in found.passed if kind not in kinds),
        not_applied=MappingProxyType({kind: why for kind, why in found.not_applied.items() if kind not in kinds}),
    )
    return replace(found, verdict=verdict(found))


class Fold:
    """The history and the rules of one optimizer, over its complete steps in order."""

    def __init__(self, sites: SiteTable) -> None:
        self.history = History(sites)
        self.rules = tuple(rule(self.history) for rule in RULES)
        self._routine = Routine(self.history)
        self._alarmed = 0

    def observe(self, record: StepRecord) -> bool:
        """Takes the next step; returns whether a rule raised an alarm at it."""
        norm = self._routine.norm(record)
        if norm is not None:
            self.history.pass_over(record, norm)
            return False
        view = StepView(record, self.history.current_layout(), self._routine.span())
        self.history.observe(view)
        alarmed = 0
        for rule in self.rules:
            rule.observe(view)
            alarmed += rule.alarmed
        fresh = alarmed > self._alarmed
        self._alarmed = alarmed
        return fresh

    def findings(self) -> list[Finding]:
        """Returns the findings of all rules, before merging."""
        found = [finding for rule in self.rules for finding in rule.findings()]
        if self.history.captured < FIRST_STATISTICS:
            return [finding for finding in found if finding.kind in STRUCTURAL]
        return found

    def not_applied(self) -> dict[str, str]:
        """Returns kind and reason of the rules that could not judge."""
        reasons = ((rule.kind, rule.not_applied()) for rule in self.rules)
        return {kind: reason for kind, reason in reasons if reason is not None}


class Stream:
    """The rules as a sink of the recorder.

    A step is held back until the next one of its optimizer begins, or the run closes, because late records add
    scalars such as the loss to it. ``analysis`` may be called from any thread at any time, and counts the held step.
    """

    def __init__(
        self,
        sites: SiteTable,
        *,
        on_finding: Callable[[Finding], None] | None = None,
        on_alarm: Callable[[int], None] | None = None,
        on_close: Callable[[Analysis], None] | None = None,
        silences: Collection[Silence] = (),
    ) -> None:
        """Sets the callbacks, which run on the thread that gives the records.

        Args:
            sites: the table, which may grow while records come.
            on_finding: called once for each kind, culprit and optimizer found at warning or above.
            on_alarm: called with the step at which something was first seen that should be captured in full.
            on_close: called with the outcome when the run closes.
            silences: what is not to be told.
        """
        self._on_close = on_close
        self._sites = sites
        self._on_finding = on_finding
        self._on_alarm = on_alarm
        self._silences = silences
        self._folds: dict[int, Fold] = {}
        self._held: dict[int, StepRecord] = {}
        self._lock = threading.Lock()
        self._records = 0
        self._told: set[tuple[str, str | None, str]] = set()

    def open(self) -> None:
        """Nothing is to be opened."""

    def __call__(self, record: StepRecord) -> None:
        """Takes one record."""
        with self._lock:
            alarms = self._take(record)
        for step in alarms:
            if self._on_alarm is not None:
                self._on_alarm(step)
        self._records += 1
        if alarms or self._records % (8 if self._records <= EARLY else EARLY) == 0:
            self._tell()

    def tick(self) -> None:
        """Nothing is due by time."""

    def close(self) -> None:
        """Takes the held steps and tells what is still to be told."""
        with self._lock:
            held, self._held = self._held, {}
            for optimizer, record in held.items():
                self._fold(optimizer).observe(record)
        self._tell()
        if self._on_close is not None:
            self._on_close(self.analysis())

    def analysis(self) -> Analysis:
        """Returns the outcome so far."""
        with self._lock:
            folds = self._with_held()
            return silenced(conclude(self._sites, folds), self._silences)

    def _take(self, record: StepRecord) -> list[int]:
        held = self._held.get(record.optimizer)
        if record.late and held is not None and held.step == record.step:
            self._held[record.optimizer] = _joined(held, record)
            return []
        if record.late:
            return []
        self._held[record.optimizer] = record
        fold = self._fold(record.optimizer)
        return [held.step] if held is not None and fold.observe(held) else []

    def _fold(self, optimizer: int) -> Fold:
        if optimizer not in self._folds:
            self._folds[optimizer] = Fold(self._sites)
        return self._folds[optimizer]

    def _with_held(self) -> dict[int, Fold]:
        """Returns the folds, copied and carried on where a step is held back."""
        folds = dict(self._folds)
        for optimizer, record in self._held.items():
            fold = folds[optimizer]
            shared: dict[int, Any] = {id(part): part for part in (self._sites, fold.history.layout)}
            folds[optimizer] = copy.deepcopy(fold, shared)
            folds[optimizer].observe(record)
        return folds

    def _tell(self) -> None:
        if self._on_finding is None:
            return
        with self._lock:
            merged = _merged(self._sites, self._folds)
            if not merged:
                return
            analysis = silenced(_concluded(self._sites, self._folds, merged), self._silences)
        for finding in analysis.at_least("warning"):
            key = (finding.kind, finding.layer, finding.optimizer)
            if key not in self._told:
                self._told.add(key)
                self._on_finding(finding)


def conclude(sites: SiteTable, folds: Mapping[int, Fold]) -> Analysis:
    """Merges the findings of all optimizers into one analysis."""
    return _concluded(sites, folds, _merged(sites, folds))


def _merged(sites: SiteTable, folds: Mapping[int, Fold]) -> list[Finding]:
    return [
        finding
        for optimizer, fold in sorted(folds.items())
        for finding in merge([replace(found, optimizer=_key(sites, folds, optimizer)) for found in fold.findings()])
    ]


def _key(sites: SiteTable, folds: Mapping[int, Fold], optimizer: int) -> str:
    return sites.optimizers[optimizer] if len(folds) > 1 and optimizer < len(sites.optimizers) else ""


def _concluded(sites: SiteTable, folds: Mapping[int, Fold], findings: list[Finding]) -> Analysis:
    last_step = {_key(sites, folds, optimizer): fold.history.last_step or 0 for optimizer, fold in folds.items()}
    size_of = _layer_sizes(sites)
    return _judged(
        Analysis(
            findings=tuple(ranked(findings, size_of, last_step)),
            steps=max((fold.history.captured for fold in folds.values()), default=0),
            layers=len(size_of) or len(sites.layers),
        ),
        folds.values(),
    )


def _judged(analysis: Analysis, folds: Iterable[Fold]) -> Analysis:
    reasons = [fold.not_applied() for fold in folds]
    found = {part.kind for finding in analysis.findings for part in (finding, *finding.symptoms)}
    kinds = [rule.kind for rule in RULES if rule.kind not in found]
    if not reasons:
        missing = dict.fromkeys(kinds, "No step was captured.")
    else:
        # One optimizer on which a kind could be judged is enough; the reason given is that of the first.
        missing = {kind: reasons[0][kind] for kind in kinds if all(kind in reason for reason in reasons)}
    passed = tuple(kind for kind in kinds if kind not in missing)
    analysis = replace(analysis, passed=passed, not_applied=MappingProxyType(missing))
    return replace(analysis, verdict=verdict(analysis))


def _layer_sizes(sites: SiteTable) -> dict[str, int]:
    """Returns the elements of the trained parameters of each layer."""
    sizes: dict[str, dict[str, int]] = {}
    for site in sites:
        if site.parameter is not None and site.status in ("trained", "missing"):
            sizes.setdefault(site.layer, {})[site.parameter] = site.numel
    return {layer: sum(parameters.values()) for layer, parameters in sizes.items()}


def _joined(record: StepRecord, late: StepRecord) -> StepRecord:
    return replace(record, facts={**record.facts, **late.facts}, logged={**record.logged, **late.logged})
