"""The figures that are published: what a half must hold, and the section of the README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradwatch.findings import KINDS
from tests.zoo import __main__ as command
from tests.zoo import published, table
from tests.zoo.table import NAMES

TRUTH = {"required": ["spike"], "tolerated": [], "layers": [], "onset": 0}


def record(kind: str, number: int, *, runs: int = 1, seconds: float = 1.0) -> dict[str, Any]:
    """A record of torch or, every second one, of JAX, about which no tool says anything."""
    run = {"claims": {name: [] for name in NAMES}, "errors": {}, "seconds": seconds}
    common = {"commit": "0123abc", "number": number, "id": "x", "family": "mlp", "fault": "bad-batch" if kind else ""}
    made = {**common, "kind": kind, "framework": ("torch", "nnx")[number % 2], "rejected": [], "runs": [run] * runs}
    return {**made, "twin": run, "truth": {**TRUTH, "required": [kind]}} if kind else made


def half(per_kind: int, healthy: int, **options: Any) -> list[dict[str, Any]]:
    """A half with so many cases a kind and so many healthy programs of four seeds."""
    kinds = [kind for kind in KINDS for _ in range(per_kind)]
    return [record(kind, i, runs=1 if kind else 4, **options) for i, kind in enumerate([*kinds, *[""] * healthy])]


@pytest.mark.parametrize(
    ("records", "unmet"),
    [
        (half(9, 80), []),
        (half(9, 79), ["healthy programs"]),
        (half(8, 80), ["confirmed faulty cases"]),
        (half(9, 80)[4:] + half(9, 0)[9:], ["cases of the rarest kind"]),
        (half(9, 80, seconds=10.1), ["seconds of one core of the longest run"]),
        ([r for r in half(18, 160) if r["framework"] == "torch"], ["frameworks among faulty and among healthy ones"]),
    ],
)
def test_what_a_half_lacks_is_said(records: list[dict[str, Any]], unmet: list[str]) -> None:
    """Too few cases, kinds or frameworks, and runs that take too long, are each marked as not met."""
    assert [row[0] for row in table.requirements(records) if row[-1] == "no"] == unmet


def test_figures_replace_the_old_ones_only(tmp_path: Path) -> None:
    """What stands around the marks stays; between them stand the table of all tools, the commit and what is met."""
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{published.BEGIN}\nold\n{published.END}\nafter\n")
    published.write(readme, half(2, 3), "dev half")
    once = readme.read_text()
    assert once.startswith(f"before\n{published.BEGIN}\nDev half")
    assert once.endswith(f"{published.END}\nafter\n")
    assert "old" not in once
    assert "run at commit 0123abc" in once
    assert all(f"| {name} | 0/28 0 %" in once for name in NAMES)
    published.write(readme, half(2, 3), "dev half")
    assert readme.read_text() == once


def test_a_readme_without_marks_is_left_alone(tmp_path: Path) -> None:
    """Without a place for the figures nothing is written, and the README of the zoo has such a place."""
    readme = tmp_path / "README.md"
    readme.write_text("before\n")
    with pytest.raises(ValueError, match="has no lines"):
        published.write(readme, half(1, 1), "dev half")
    assert readme.read_text() == "before\n"
    assert published.BEGIN in command.README.read_text(encoding="utf-8")
