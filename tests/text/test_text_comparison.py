"""The comparison in the terminal: what it says, how wide it is, and what it never does."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

import pytest

from gradwatch.analyze import analyze
from gradwatch.comparison import Comparison, compare
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.findings import Analysis, Finding
from gradwatch.record import Site, SiteTable
from gradwatch.recording import Recording, from_records
from gradwatch_text import TextReporter

HOSTILE = "evil\x1b[2J\r\n\u202egnp.\udc80"


def synthetic(fault: str | None = None, steps: int = 60, layers: int = 12) -> Recording:
    run = SyntheticRun(layers=layers, steps=steps, fault=fault)
    return from_records(run.records(), run.sites, name=f"run {fault}")


def of(*recordings: Recording) -> Comparison:
    return compare([(recording, analyze(recording)) for recording in recordings])


def test_a_comparison_says_what_matters_first() -> None:
    """The sentence, the runs, then findings, layers, ratios and facts, each part once."""
    text = TextReporter(width=100).render_comparison(of(synthetic(), synthetic("vanishing", steps=80)))
    parts = (
        "B is worse than A: ",
        "A  run None",
        "B  run vanishing",
        "FINDINGS ONLY IN B",
        "Layers: ",
        "Gradient norm, B / A",
    )
    places = [text.index(part) for part in (*parts, "Update / weight, B / A", "Facts that differ:")]
    assert places == sorted(places)
    assert "FINDINGS ONLY IN A" not in text
    assert "  - captured steps: A 60; B 80\n" in text
    assert re.search(r"  - \d\.?\d*e-\d\d times in blocks\.0\.linear\n", text)


def test_equal_runs_are_called_the_same() -> None:
    """A run beside itself has one line a ratio, and no fact that differs."""
    text = TextReporter().render_comparison(of(synthetic("vanishing"), synthetic("vanishing")))
    assert text.count("  - the same in 12 layers\n") == 2
    assert "FINDINGS IN A AND B" in text
    assert "in A critical, since step 0; in B critical, since step 0" in " ".join(text.split())
    assert "Facts that differ" not in text


def test_renamed_and_unmatched_layers_are_listed() -> None:
    """Which layer became which, and what only one run has; of many names the first six and how many more."""
    tables = [
        SiteTable([Site("gradient", f"{layer}.w", layer, "weight", (size, 7), 7 * size) for layer, size in layers])
        for layers in ([("a", 2), ("gone", 3)], [("b", 2), *((f"new{i}", 90) for i in range(9))])
    ]
    text = TextReporter(width=100).render_comparison(of(*(Recording("x", table, {}, {}) for table in tables)))
    assert "  - renamed: a is b\n" in text
    assert "  - only in A: gone\n" in text
    assert "  - only in B: new0, new1, new2, new3, new4, new5 and 3 more\n" in text


@pytest.mark.parametrize("width", [40, 57, 100])
def test_lines_keep_to_the_width_whatever_the_names(width: int) -> None:
    """Names that command a terminal are shown, not obeyed, and no line is wider than asked for."""
    site = Site("gradient", f"{HOSTILE}.w", HOSTILE, "weight", (2,), 2)
    found = Finding("spike", "warning", HOSTILE, HOSTILE, (HOSTILE,), 1, 2, (), "", (), "")
    analysis = Analysis((found,), ("frozen",), {}, 30, 1, HOSTILE)
    recording = Recording(HOSTILE, SiteTable([site]), {}, {}, {HOSTILE: HOSTILE * 9})
    other = replace(recording, name=f"{HOSTILE}2", sites=SiteTable([replace(site, layer="x" * 99)]), facts={HOSTILE: 1})
    text = TextReporter(width=width).render_comparison(compare([(recording, analysis), (other, analysis)]))
    assert all(len(line) <= width for line in text.splitlines())
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"]
    assert "\x1b[" in TextReporter(width=width, color=True).render_comparison(of(synthetic(), synthetic()))
