"""The figures of a half as a section of the README, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.zoo import table
from tests.zoo.score import Record

BEGIN: Final = "<!-- figures: written by `python -m tests.zoo run --publish` -->"
END: Final = "<!-- end of the figures -->"


def write(readme: Path, records: Sequence[Record], title: str) -> None:
    """Replaces what stands between the marks of a README.

    Raises:
        ValueError: when the README has no place for figures.
    """
    old = readme.read_text(encoding="utf-8")
    head, begin, rest = old.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme} has no lines {BEGIN!r} and {END!r}; put them where the figures are to stand.")
    readme.write_text(f"{head}{BEGIN}\n{section(records, title)}{END}{tail}", encoding="utf-8")


def section(records: Sequence[Record], title: str) -> str:
    """Returns the figures as Markdown, with the day and the commit of the code that was judged."""
    found = table.sizes(records)
    reasons = found.pop("reasons")
    commits = ", ".join(sorted({record["commit"] for record in records}))
    lines = [f"{title[0].upper()}{title[1:]}; written on {datetime.now(UTC):%Y-%m-%d}, run at commit {commits}.", ""]
    lines += [*_rows(("tool", *table.HEADINGS), table.by_tool(records)), "", "gradwatch by kind:", ""]
    lines += [*_rows(("kind", *table.HEADINGS[:-2]), [row[:-2] for row in table.by_group(records, "kind")]), ""]
    lines += [*_rows(("a whole half has", "wanted", "found", "met"), table.requirements(records)), ""]
    lines += [f"* {name}: {value}" for name, value in found.items()]
    lines += [f"* rejected draws, {reason}: {count}" for reason, count in reasons.items()]
    lines += ["", *_rows(table.BREADTH, table.breadth(records)), ""]
    return "\n".join(lines)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(row) + " |" for row in cells]
