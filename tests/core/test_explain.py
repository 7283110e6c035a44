"""The pages on kinds of trouble, which are read off the rules."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from gradwatch import explain
from gradwatch.cli import main
from gradwatch.errors import GradwatchError
from gradwatch.rules import RULES

KINDS = [rule.kind for rule in RULES]


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_explains_itself(kind: str) -> None:
    """A page says what is measured, by which source, and what helps, and gives every number it names."""
    page = explain.page(kind)
    titles = {title.rstrip("s") for title, _ in page.sections}
    assert {"Formula", "Source", "Advice"} <= titles
    assert page.summary.startswith("Finds ")
    rule = next(rule for rule in RULES if rule.kind == kind)
    constants = vars(importlib.import_module(rule.__module__))
    named = {t.name.split(".")[-1] for t in page.thresholds}
    text = " ".join(text for _, text in page.sections)
    for word in re.findall(r"\b[A-Z][A-Z_]{3,}\b", text):
        assert word in named or not isinstance(constants.get(word), int | float), word


def test_numbers_are_those_of_the_rule() -> None:
    """A number on the page is the one that the rule uses."""
    from gradwatch.rules import gaps, vanishing

    values = {t.name: t.value for t in explain.page("vanishing").thresholds}
    assert values["DROP"] == vanishing.DROP
    assert {t.name: t.value for t in explain.page("disconnected").thresholds}["gaps.PERSIST"] == gaps.PERSIST


def test_lines_fit_the_terminal() -> None:
    """No line of a page is longer than asked for, and nothing of the text is lost by that."""
    for kind in KINDS:
        page = explain.page(kind)
        narrow, wide = explain.render(page, 40), explain.render(page, 200)
        assert max(map(len, narrow.splitlines())) <= 40
        assert narrow.split() == wide.split()


def test_unknown_kinds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """What is no kind is refused with the list of those that are."""
    with pytest.raises(GradwatchError, match="'sadness' is no kind of trouble; the kinds are vanishing, exploding"):
        explain.page("sadness")
    assert main(["explain", "sadness"]) == 2
    assert "no kind of trouble" in capsys.readouterr().err


def test_the_command_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    """``gradwatch explain`` lists every kind that is judged; with a kind it prints its page."""
    assert main(["explain"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set(KINDS)
    assert main(["explain", "frozen"]) == 0
    assert capsys.readouterr().out.startswith("frozen\n\nFinds weight matrices")


def test_the_readme_lists_what_the_rules_find() -> None:
    """The table of kinds in the README is what the rules say of themselves."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for kind, summary in explain.summaries().items():
        assert f"| `{kind}` | {summary.removeprefix('Finds ')} |" in readme
