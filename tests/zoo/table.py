"""The table of a half, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from gradwatch.findings import KINDS
from tests.zoo.rivals import RIVALS
from tests.zoo.score import Rate, Record, Score, grouped, runs_of, score
from tests.zoo.tools import TOOLS

NAMES: Final = (*TOOLS, *RIVALS)
COLUMNS: Final = ("detected", "kind", "culprit", "onset", "wrong", "alarms", "twins")
HEADINGS: Final = ("detected", "right kind", "culprit", "onset ±3", "wrong kind", "healthy alarmed", "of them twins")

BREADTH: Final = ("kind", "cases", "rejected", "plants", "families", "frameworks")


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


def requirements(records: Sequence[Record]) -> list[list[str]]:
    """Returns what a whole half has to hold, what this one holds, and whether that is enough."""
    filled = [record for record in records if record.get("runs")]
    faulty, drawn = ([r for r in filled if bool(r["kind"]) is sick] for sick in (True, False))
    kinds = Counter(record["kind"] for record in faulty)
    both = min(len({record["framework"] == "torch" for record in part}) for part in (faulty, drawn))
    rows = [
        ("confirmed faulty cases", len(faulty), 120),
        ("healthy programs", len(drawn), 80),
        ("frameworks among faulty and among healthy ones", both, 2),
        ("cases of the rarest kind", min(kinds[kind] for kind in KINDS), 6),
        ("healthy runs, a seed each, without twins", sum(len(record["runs"]) for record in drawn), 300),
    ]
    longest = max((run["seconds"] for record in filled for run in runs_of(record)), default=0.0)
    shown_rows = [[name, f"at least {least}", str(found), _met(found >= least)] for name, found, least in rows]
    return [
        *shown_rows,
        ["seconds of one core of the longest run", "at most 10", f"{longest:.1f}", _met(longest <= 10)],
    ]


def breadth(records: Sequence[Record]) -> list[list[str]]:
    """Returns for each kind how many cases it has, from which plants, families and frameworks."""
    rows = []
    for kind, part in grouped(records, "kind").items():
        filled = [record for record in part if record.get("runs")]
        rejected = sum(len(record["rejected"]) for record in part)
        names = [", ".join(sorted({record[by] for record in filled})) for by in ("fault", "family", "framework")]
        rows.append([kind, str(len(filled)), str(rejected), *names])
    return rows


def text(records: Sequence[Record], title: str) -> str:
    """Returns everything as text."""
    found = sizes(records)
    reasons = found.pop("reasons")
    parts = [title, "", *(f"{name}: {value}" for name, value in found.items()), ""]
    parts += [f"  rejected {count}: {reason}" for reason, count in reasons.items()]
    parts += ["", *_table(("a whole half has", "wanted", "found", "met"), requirements(records))]
    parts += ["", *_table(("tool", *HEADINGS), by_tool(records))]
    for by in ("kind", "family", "framework"):
        parts += ["", f"gradwatch by {by}", *_table((by, *HEADINGS), by_group(records, by))]
    parts += ["", *_table(BREADTH, breadth(records))]
    return "\n".join(parts) + "\n"


def _reason(reason: str) -> str:
    return reason.split("(", maxsplit=1)[0]


def _met(true: bool) -> str:
    return "yes" if true else "no"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    whole = [head, *rows]
    widths = [max(len(row[i]) for row in whole) for i in range(len(whole[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in whole]
