"""A page on each kind of trouble, read off the rule that finds it: what it measures, its limits and their sources."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Final

from gradwatch.errors import GradwatchError
from gradwatch.findings import KINDS
from gradwatch.rules import RULES
from gradwatch.rules.rule import Rule, number

_SECTION: Final = re.compile(r"^(Formula|Severity|Sources?|Advice): ", re.MULTILINE)
_QUOTED: Final = re.compile(r"``(?:([a-z_]+)\.)?([A-Z][A-Z_]+)``")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number of a rule: its name, its value, and what its source says of it, "" where nothing."""

    name: str
    value: float
    meaning: str


@dataclass(frozen=True, slots=True)
class Page:
    """What a rule says of itself.

    Attributes:
        kind: one of ``findings.KINDS``.
        summary: one sentence.
        sections: title and text: Formula, Severity, Source, Advice.
        thresholds: the numbers that the sections name.
    """

    kind: str
    summary: str
    sections: tuple[tuple[str, str], ...]
    thresholds: tuple[Threshold, ...]


@cache
def page(kind: str) -> Page:
    """Returns the page of a kind.

    Raises:
        GradwatchError: for what is no kind of trouble.
    """
    rules = {rule.kind: rule for rule in RULES}
    if kind not in rules:
        raise GradwatchError(
            f"{kind!r} is no kind of trouble; the kinds are {', '.join(k for k in KINDS if k in rules)}."
        )
    rule = rules[kind]
    text = _docstring(rule)
    starts = list(_SECTION.finditer(text))
    ends = [match.start() for match in starts[1:]] + [len(text)]
    sections = [(m[1], _plain(text[m.end() : end])) for m, end in zip(starts, ends, strict=True)]
    summary = _plain(text[: starts[0].start()] if starts else text)
    return Page(kind, summary, tuple(sections), tuple(_thresholds(rule, text)))


def render(found: Page, width: int = 100) -> str:
    """Returns a page as text of lines of at most ``width`` characters."""
    parts = [f"{found.kind}\n\n{textwrap.fill(found.summary, width)}"]
    parts += [f"{title}\n{_indented(text, width)}" for title, text in found.sections]
    if found.thresholds:
        parts.append("\n".join(["Numbers", *(_indented(line, width) for line in _numbers(found.thresholds))]))
    return "\n\n".join(parts) + "\n"


def summaries() -> dict[str, str]:
    """Returns the kinds that are judged, each with its summary in one sentence."""
    judged = {rule.kind for rule in RULES}
    return {kind: page(kind).summary for kind in KINDS if kind in judged}


def _numbers(thresholds: Sequence[Threshold]) -> Iterator[str]:
    """Yields a line for all thresholds of one meaning, and one for each that has none."""
    shared: dict[str, list[str]] = {}
    for threshold in thresholds:
        shared.setdefault(threshold.meaning or threshold.name, []).append(
            f"{threshold.name} = {number(threshold.value)}"
        )
    for meaning, values in shared.items():
        yield ", ".join(values) + (f". {meaning}" if " " in meaning else "")


def _indented(text: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _plain(text: str) -> str:
    """Returns a text without marks of code and emphasis and without line breaks, beginning with a capital."""
    text = " ".join(re.sub(r"``|(?<!\w)\*(?=\w)|(?<=\w)\*(?!\w)", "", text).split())
    return text[:1].upper() + text[1:]


def _docstring(rule: type[Rule]) -> str:
    """Reads it from the source, because an optimizing interpreter keeps none."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(rule)))
    return ast.get_docstring(tree.body[0]) or ""  # type: ignore[arg-type]


def _thresholds(rule: type[Rule], text: str) -> Iterator[Threshold]:
    """Yields the numbers that a text names, such as ``DROP`` and ``gaps.PERSIST``."""
    seen: set[str] = set()
    for match in _QUOTED.finditer(text):
        module = importlib.import_module(rule.__module__ if match[1] is None else f"gradwatch.rules.{match[1]}")
        value = getattr(module, match[2], None)
        if isinstance(value, int | float) and match[0] not in seen:
            seen.add(match[0])
            yield Threshold(match[0].strip("`"), float(value), _plain(_meanings(module).get(match[2], "")))


@cache
def _meanings(module: ModuleType) -> dict[str, str]:
    """Returns what stands below each constant of a module, or below the group that it belongs to."""
    found: dict[str, str] = {}
    group: list[str] = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            group.append(node.target.id)
            continue
        text: Any = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else None
        if isinstance(text, str):
            found.update(dict.fromkeys(group, text))
        group = []
    return found
