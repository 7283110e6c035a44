"""The score of a tool: counts over cases and runs, each with its Clopper-Pearson interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scipy.stats import beta

from tests.zoo.case import claims_of
from tests.zoo.tools import Claim

WITHIN: Final = 3
"""Steps by which an onset may be off."""
NAMED: Final = 3
"""Layers of a claim among which the culprit has to be."""
SIDE: Final = frozenset({"plumbing", "clipping"})
"""Kinds that stand as the cause beside the damage they do, there as notices."""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rate:
    """k of n."""

    k: int
    n: int

    @property
    def share(self) -> float:
        """The share, NaN for nothing."""
        return self.k / self.n if self.n else float("nan")

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Returns the exact interval of Clopper and Pearson (1934): quantiles of beta distributions."""
        tail = (1 - confidence) / 2
        low = 0.0 if self.k == 0 else float(beta.ppf(tail, self.k, self.n - self.k + 1))
        high = 1.0 if self.k == self.n else float(beta.ppf(1 - tail, self.k + 1, self.n - self.k))
        return low, high


@dataclass(frozen=True, slots=True)
class Score:
    """What a tool reached over a set of cases.

    Attributes:
        detected: faulty runs with any serious claim.
        kind: faulty runs where a serious claim has a kind that is right; a cause may be named by a notice beside it.
        culprit: of the runs that have a culprit and whose kind is right: it is among the first layers named.
        onset: of the runs whose kind is right: the step is named to within three.
        wrong: faulty runs with a serious claim of a kind that is neither right nor a consequence.
        alarms: healthy runs with a serious claim, the sound twins of faulty runs among them.
        twins: those twins alone.
    """

    detected: Rate
    kind: Rate
    culprit: Rate
    onset: Rate
    wrong: Rate
    alarms: Rate
    twins: Rate


@dataclass(frozen=True, slots=True)
class Judged:
    """One faulty run of a tool; ``culprit`` and ``onset`` are None where they are not asked."""

    detected: bool
    kind: bool
    culprit: bool | None
    onset: bool | None
    wrong: bool


def judge(claims: Sequence[Claim], truth: Record) -> Judged:
    """Compares the claims about a faulty run with the truth."""
    serious = [claim for claim in claims if claim.serious]
    required, tolerated = set(truth["required"]), set(truth["tolerated"])
    right = [claim for claim in serious if claim.kind in required]
    if not right and any(claim.kind in tolerated for claim in serious):
        right = [claim for claim in claims if claim.kind in required & SIDE]
    culprits = set(truth["layers"])
    return Judged(
        detected=bool(serious),
        kind=bool(right),
        culprit=any(culprits & set(claim.layers[:NAMED]) for claim in right) if culprits and right else None,
        onset=any(_near(claim.step, truth["onset"]) for claim in right) if right else None,
        wrong=any(claim.kind not in required | tolerated for claim in serious),
    )


def score(records: Iterable[Record], tool: str) -> Score:
    """Scores a tool over confirmed cases; records of slots that stayed empty are passed over."""
    filled = [record for record in records if record.get("runs")]
    faulty = [record for record in filled if record["kind"]]
    judged = [judge(claims_of(run, tool), record["truth"]) for record in faulty for run in record["runs"]]
    drawn = _alarms([run for record in filled if not record["kind"] for run in record["runs"]], tool)
    twins = _alarms([record["twin"] for record in faulty], tool)
    return Score(
        detected=_rate(judged, lambda j: j.detected),
        kind=_rate(judged, lambda j: j.kind),
        culprit=_rate(judged, lambda j: j.culprit),
        onset=_rate(judged, lambda j: j.onset),
        wrong=_rate(judged, lambda j: j.wrong),
        alarms=Rate(drawn.k + twins.k, drawn.n + twins.n),
        twins=twins,
    )


def grouped(records: Sequence[Record], by: str) -> dict[str, list[Record]]:
    """Groups filled records by one of their fields, healthy ones of kind "" left out when it is the kind."""
    keys = sorted({record[by] for record in records if record.get("runs")} - {""})
    return {key: [record for record in records if record.get(by) == key] for key in keys}


def _rate(judged: Sequence[Judged], which: Callable[[Judged], bool | None]) -> Rate:
    asked = [answer for answer in map(which, judged) if answer is not None]
    return Rate(sum(asked), len(asked))


def runs_of(record: Record) -> list[Record]:
    """Returns the runs of a filled record: those of its seeds, or a faulty one and its twin."""
    return [*record["runs"], *([record["twin"]] if record["kind"] else [])]


def _alarms(runs: Sequence[Record], tool: str) -> Rate:
    return Rate(sum(any(claim.serious for claim in claims_of(run, tool)) for run in runs), len(runs))


def _near(step: int | None, onset: int) -> bool:
    return step is not None and abs(step - onset) <= WITHIN
