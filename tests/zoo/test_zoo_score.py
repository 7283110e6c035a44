"""The score's arithmetic, against counts and sums made by hand."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zoo import table
from tests.zoo.score import Rate, judge, score
from tests.zoo.tools import Claim

TRUTH = {"required": ["exploding"], "tolerated": ["nonfinite"], "layers": ["b"], "onset": 10}


def tail(n: int, k: int, p: float) -> float:
    """P(X >= k) of a binomial, term by term."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_cuts_off_its_tails(counts: tuple[int, int]) -> None:
    """At the lower end k or more, at the upper end k or fewer, have a probability of exactly 2.5 %."""
    k, n = counts
    low, high = Rate(k, n).interval()
    assert low == 0.0 if k == 0 else tail(n, k, low) == pytest.approx(0.025, abs=1e-6)
    assert high == 1.0 if k == n else 1 - tail(n, k + 1, high) == pytest.approx(0.025, abs=1e-6)
    assert low <= k / n <= high


def test_intervals_of_known_counts() -> None:
    """54 of 60 is 79 to 96 %; 3 of 300 is at most 2.6 % on one side at 95 %."""
    assert [round(100 * bound) for bound in Rate(54, 60).interval()] == [79, 96]
    assert Rate(3, 300).interval(0.90)[1] == pytest.approx(0.026, abs=5e-4)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ([], (False, False, None, None, False)),
        ([Claim("exploding", True, ("b", "c"), 12)], (True, True, True, True, False)),
        ([Claim("exploding", True, ("c", "d", "e", "b"), 14)], (True, True, False, False, False)),
        ([Claim("exploding", False, ("b",), 10)], (False, False, None, None, False)),
        ([Claim("nonfinite", True, ("b",), 10)], (True, False, None, None, False)),
        ([Claim("exploding", True, ("b",), None), Claim("frozen", True)], (True, True, True, False, True)),
    ],
)
def test_claims_are_judged_by_kind_place_and_time(claims: list[Claim], expected: tuple[bool | None, ...]) -> None:
    """Notices detect nothing, consequences are neither right nor wrong, the fourth layer and step 14 are too far."""
    found = judge(claims, TRUTH)
    assert (found.detected, found.kind, found.culprit, found.onset, found.wrong) == expected


def test_a_cause_may_be_a_notice_beside_its_damage() -> None:
    """Plumbing named by a notice is right beside a consequence that warns, and not alone."""
    truth = {**TRUTH, "required": ["plumbing"], "tolerated": ["exploding"], "layers": []}
    notice, damage = Claim("plumbing", False, (), 10), Claim("exploding", True, ("b",), 10)
    assert judge([notice, damage], truth).kind
    assert not judge([notice], truth).kind
    assert judge([damage], truth).culprit is None


def case(kind: str, *runs: list[Claim]) -> dict[str, Any]:
    made = [
        {"claims": {"gradwatch": [asdict(claim) for claim in claims]}, "errors": {}, "seconds": 0.5} for claims in runs
    ]
    common = {"number": 0, "kind": kind, "family": "mlp", "framework": "torch", "id": "x", "rejected": []}
    return {**common, "runs": made[:1], "twin": made[1], "truth": TRUTH} if kind else {**common, "runs": made}


def test_a_half_is_counted() -> None:
    """Faulty, healthy and twin runs are counted apart, twins as healthy runs too, empty slots not at all."""
    right, late = Claim("exploding", True, ("b",), 10), Claim("exploding", True, ("b",), 40)
    empty = {"number": 9, "kind": "spike", "rejected": [{"id": "y", "reason": "no harm"}]}
    records = [case("exploding", [right], []), case("exploding", [late], [right]), case("exploding", [], []), empty]
    records += [case("", [], [], [right], [Claim("frozen", False)])]
    found = score(records, "gradwatch")
    assert (found.detected, found.kind, found.culprit) == (Rate(2, 3), Rate(2, 3), Rate(2, 2))
    assert (found.onset, found.wrong, found.alarms) == (Rate(1, 2), Rate(0, 3), Rate(2, 7))
    assert found.twins == Rate(1, 3)
    sizes = table.sizes(records)
    assert (sizes["confirmed faulty cases"], sizes["healthy runs"], sizes["empty slots"]) == (3, 4, 1)
    assert sizes["sound twins of faulty cases"] == 3
    assert sizes["reasons"] == {"no harm": 1}
