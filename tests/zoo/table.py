"""The table of a half, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from tests.zoo.rivals import RIVALS
from tests.zoo.score import Rate, Record, Score, grouped, runs_of, score
from tests.zoo.tools import TOOLS

NAMES: Final = (*TOOLS, *RIVALS)
COLUMNS: Final = ("detected", "kind", "culprit", "onset", "wrong", "alarms", "twins")
HEADINGS: Final = ("detected", "right kind", "culprit", "onset ±3", "wrong kind", "healthy alarmed", "of them twins")


def shown(rate: Rate) -> str:
    """Returns a rate as ``k/n share (interval)``, all in percent."""
    if not rate.n:
        return "-"
    low, high = rate.interval()
    return f"{rate.k}/{rate.n} {100 * rate.share:.0f} % ({100 * low:.0f}-{100 * high:.0f})"


def cells(found: Score) -> list[str]:
    """Returns the columns of a score."""
    return [shown(getattr(found, name)) for name in COLUMNS]


def by_tool(records: Sequence[Record]) -> list[list[str]]:
    """Returns a row for each tool."""
    return [[tool, *cells(score(records, tool))] for tool in NAMES]


def by_group(records: Sequence[Record], by: str, tool: str = "gradwatch") -> list[list[str]]:
    """Returns a row for each kind, family or framework."""
    return [[key, *cells(score(part, tool))] for key, part in grouped(records, by).items()]


def sizes(records: Sequence[Record]) -> dict[str, Any]:
    """Counts what a half holds, and what was rejected for which reason."""
    filled = [record for record in records if record.get("runs")]
    faulty = [record for record in filled if record["kind"]]
    rejected = [rejection for record in records for rejection in record["rejected"]]
    runs = [run for record in filled for run in runs_of(record)]
    return {
        "confirmed faulty cases": len(faulty),
        "healthy programs": len(filled) - len(faulty),
        "healthy runs": sum(len(record["runs"]) for record in filled if not record["kind"]),
        "sound twins of faulty cases": len(faulty),
        "empty slots": len(records) - len(filled),
        "draws rejected": len(rejected),
        "runs on which a tool failed": sum(bool(run["errors"]) for run in runs),
        "longest run, its record and all tools (s of one core)": max((run["seconds"] for run in runs), default=0.0),
        "reasons": dict(Counter(_reason(rejection["reason"]) for rejection in rejected).most_common()),
    }


def text(records: Sequence[Record], title: str) -> str:
    """Returns everything as text."""
    found = sizes(records)
    reasons = found.pop("reasons")
    parts = [title, "", *(f"{name}: {value}" for name, value in found.items()), ""]
    parts += [f"  rejected {count}: {reason}" for reason, count in reasons.items()]
    parts += ["", *_table("tool", by_tool(records))]
    for by in ("kind", "family", "framework"):
        parts += ["", f"gradwatch by {by}", *_table(by, by_group(records, by))]
    return "\n".join(parts) + "\n"


def _reason(reason: str) -> str:
    return reason.split("(", maxsplit=1)[0]


def _table(first: str, rows: Sequence[Sequence[str]]) -> list[str]:
    whole = [[first, *HEADINGS], *rows]
    widths = [max(len(row[i]) for row in whole) for i in range(len(whole[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in whole]
