"""Whether one run is worse than another, and why, in one sentence.

A run B is worse than a run A when, of these, the first that decides says so:

1. *It has new trouble.* B has a finding of warning or above that A has not, or has more gravely, and A has lost none
   that is graver. That is the convention of regression tests: what was well and is not any more is a regression,
   whatever else got better. It is bounded by severity, the order in which ``findings.SEVERITIES`` puts what stops a
   training, what harms it and what is worth knowing: who trades a critical finding for a warning is not worse off.
2. *Its loss breaks.* Both logged a loss, and B's became NaN or infinite where A's never did.
3. *Its loss ends higher.* Over the steps at which both logged a finite loss, ``findings.ENOUGH_STEPS`` or more, the
   median of B's last tenth lies above A's by more than ``LEAST_LOSS`` of what A gained in them, and by more than
   ``CERTAIN`` standard errors. What A gained, rather than the loss, is the scale: a loss may be near zero or negative.

Nothing can be said when one of the two cannot be judged alone (``findings.cannot_judge``). Findings of one kind that
could not be looked for in one of the runs decide nothing, and are listed with the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gradwatch.comparison.compared import Compared
from gradwatch.comparison.curves import Loss
from gradwatch.comparison.shared import FindingGroups, rank
from gradwatch.findings import ENOUGH_STEPS, SEVERITIES, Finding, cannot_judge
from gradwatch.statistics import Float

LEAST_LOSS: Final = 0.1
"""Share of A's gain that B must give up. A choice of ours: two seeds of one training may differ by less, which one run
of each cannot tell (Bouthillier et al. 2021, "Accounting for variance in machine learning benchmarks")."""

CERTAIN: Final = 3.0
"""Standard errors of the difference of the two medians: 1 in 1,000 of equal, normal losses lies above (one-sided)."""

END: Final = 0.1
LEAST_END: Final = 5
"""Share of the common steps that counts as their end (and, for what A gained, as their start), and its fewest steps."""

_MEDIAN_ERROR: Final = 1.2533
"""Standard error of a median in units of sigma / sqrt(n): sqrt(pi / 2), for normal values."""

_SIGMA_OF_MAD: Final = 1.4826
"""Sigma in units of the median absolute deviation, for normal values (Rousseeuw and Croux 1993)."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer for two runs.

    Attributes:
        worse: whether the other run is worse than the first; None when that cannot be told.
        claim: the answer, as a clause.
        reason: why, as a clause.
    """

    worse: bool | None
    claim: str
    reason: str

    @property
    def why(self) -> str:
        """One sentence: the answer and its reason."""
        return f"{self.claim}: {self.reason}."


def judge(first: Compared, other: Compared, groups: FindingGroups) -> Judgement:
    """Says whether ``other`` is worse than ``first``; see the module for what that means."""
    for run in (first, other):
        reason = cannot_judge(run.analysis)
        if reason:
            asked = f"Cannot tell whether {other.label} is worse than {first.label}"
            return Judgement(None, asked, f"{run.label} cannot be judged, {reason}")
    reason = _new_trouble(first, groups) or _broken_loss(first, other)
    change = _change_of_loss(first.loss, other.loss)
    if not reason and change is not None and change.higher:
        reason = (
            f"its loss ends at {change.other:.3g}, that of {first.label} at {change.first:.3g}: "
            f"{change.given_up} of the gain up to step {change.step:,} is given up"
        )
    if reason:
        return Judgement(True, f"{other.label} is worse than {first.label}", reason)
    return Judgement(False, f"{other.label} is not worse than {first.label}", _reassurance(first, groups, change))


def _new_trouble(first: Compared, groups: FindingGroups) -> str:
    gained, lost = groups.gained(), groups.lost()
    if not gained or rank(gained[0]) > SEVERITIES.index("warning") or (lost and rank(lost[0]) < rank(gained[0])):
        return ""
    worst = gained[0]
    milder = next((mine for mine, theirs in groups.both if theirs is worst), None)
    if milder is not None:
        return f"{_named(worst)}, which is only a {milder.severity} in {first.label}"
    severity = "critical finding" if worst.severity == "critical" else worst.severity
    more = sum(rank(finding) <= SEVERITIES.index("warning") for finding in gained) - 1
    others = f", and {more:,} more" if more else ""
    return f"it has a {severity} that {first.label} has not: {_named(worst)}{others}"


def _named(finding: Finding) -> str:
    return finding.summary.rstrip(".")


def _broken_loss(first: Compared, other: Compared) -> str:
    if first.loss is None or other.loss is None or first.loss.nonfinite or not other.loss.nonfinite:
        return ""
    return f"its loss is not finite at step {other.loss.nonfinite[0]:,}, and that of {first.label} always is"


@dataclass(frozen=True, slots=True)
class _Change:
    """Where both losses end: medians of the last common steps, and what part of the first run's gain is given up."""

    first: float
    other: float
    gain: float
    error: float
    step: int

    @property
    def higher(self) -> bool:
        return self.other - self.first > max(LEAST_LOSS * self.gain, CERTAIN * self.error)

    @property
    def given_up(self) -> str:
        share = (self.other - self.first) / self.gain if self.gain else np.inf
        return f"{share:.0%}" if share <= 1 else "all"


def _change_of_loss(first: Loss | None, other: Loss | None) -> _Change | None:
    if first is None or other is None:
        return None
    common, mine, theirs = np.intersect1d(first.steps, other.steps, assume_unique=True, return_indices=True)
    if len(common) < ENOUGH_STEPS:
        return None
    size = max(LEAST_END, int(len(common) * END))
    start, end = first.values[mine[:size]], first.values[mine[-size:]]
    there = other.values[theirs[-size:]]
    return _Change(
        float(np.median(end)),
        float(np.median(there)),
        abs(float(np.median(start)) - float(np.median(end))),
        float(np.hypot(_error(end), _error(there))),
        int(common[-1]),
    )


def _error(values: Float) -> float:
    """Returns the standard error of the median of a sample, from its median absolute deviation."""
    deviation = float(np.median(np.abs(values - np.median(values))))
    return float(_MEDIAN_ERROR * _SIGMA_OF_MAD * deviation / np.sqrt(len(values)))


def _reassurance(first: Compared, groups: FindingGroups, change: _Change | None) -> str:
    gained, lost = groups.gained(), groups.lost()
    if gained and rank(gained[0]) <= SEVERITIES.index("warning"):
        found = f"what is new is milder than what is gone, {_named(lost[0])}"
    else:
        found = f"it has no finding of warning or worse that {first.label} has not"
    if change is None:
        return f"{found}; their losses could not be compared"
    return f"{found}, and its loss ends at {change.other:.3g} against {change.first:.3g}"
