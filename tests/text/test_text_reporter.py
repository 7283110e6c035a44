"""The text report: what a person reads in a terminal, and what a terminal must not obey."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.analyze import analyze
from gradwatch.errors import GradwatchError
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.findings import Analysis, Figure, Finding, printable
from gradwatch.plugins import Reporter, reporter
from gradwatch.record import Site, SiteTable
from gradwatch.recording import Recording, from_records
from gradwatch.testing import check_reporter
from gradwatch_text import TextReporter
from gradwatch_text.lines import wrap
from gradwatch_text.strip import condensed, layer_states

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def recording(*, layers: int = 6, steps: int = 60, fault: str | None = None) -> Recording:
    run = SyntheticRun(layers=layers, steps=steps, fault=fault)
    return from_records(run.records(), run.sites, name="mlp")


def finding(severity: str = "critical", layer: str | None = "blocks.1.linear") -> Finding:
    return Finding(
        kind="vanishing",
        severity=severity,
        title="Gradients vanish",
        layer=layer,
        layers=() if layer is None else (layer, "blocks.0.linear"),
        first_step=3,
        last_step=59,
        evidence=("The norm is 1e-9; 1e-5 is the limit.", "The loss stands still."),
        cause="Saturated sigmoids.",
        advice=("Use ReLU.", "Use He initialisation."),
        check="The norm rises.",
    )


def judged(*findings: Finding, **changes: object) -> Analysis:
    analysis = Analysis(findings=findings, passed=("nonfinite",), steps=60, layers=6, verdict="A verdict.")
    return replace(analysis, **changes)  # type: ignore[arg-type]


def shown_columns(line: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def test_a_finding_is_told_in_the_order_in_which_it_is_read() -> None:
    """Title, place, layers, evidence, cause, advice, check and symptoms follow each other, each with its words."""
    symptom = replace(finding("warning"), kind="update-too-small", title="Updates are too small", first_step=5)
    text = TextReporter().render(recording(), judged(replace(finding(), symptoms=(symptom,))))
    wanted = [
        "A verdict.",
        "1 critical, 0 warnings, 0 notices; 1 check passed, 0 did not apply.",
        "▲ Gradients vanish",
        "critical · vanishing · since step 3",
        "Layers        blocks.1.linear, blocks.0.linear",
        "Evidence      The norm is 1e-9; 1e-5 is the limit.",
        "              The loss stands still.",
        "Likely cause  Saturated sigmoids.",
        "Do this       1. Use ReLU.",
        "              2. Use He initialisation.",
        "How to check  The norm rises.",
        "Symptoms      ■ Updates are too small (update-too-small, since step 5)",
        "Checks passed: nonfinite",
    ]
    places = [text.index(words) for words in wanted]
    assert places == sorted(places)


def test_findings_stand_in_the_order_of_the_analysis() -> None:
    """The analysis ranks; the reporter keeps its order and marks each severity with its shape."""
    found = [replace(finding(severity), title=f"A {severity} one") for severity in ("critical", "warning", "notice")]
    text = TextReporter().render(recording(), judged(*found))
    assert re.findall(r"^[▲■●] A \w+ one$", text, re.MULTILINE) == [
        "▲ A critical one",
        "■ A warning one",
        "● A notice one",
    ]


@pytest.mark.parametrize("fault", [None, "vanishing", "exploding", "nonfinite", "disconnected"])
def test_every_word_of_a_real_analysis_is_there(fault: str | None) -> None:
    """Verdict, evidence, cause, advice and reasons of a judged run all stand in the report, whatever the wrapping."""
    run = recording(fault=fault)
    analysis = analyze(run)
    flat = " ".join(TextReporter().render(run, analysis).split())
    expected = [analysis.verdict, *analysis.passed, *analysis.not_applied, *analysis.not_applied.values()]
    for found in analysis.findings:
        expected += [found.title, *found.evidence, found.cause, found.check]
        expected += [sentence for sentence in found.advice if len(found.advice) == 1]
        expected += [f"{i}. {sentence}" for i, sentence in enumerate(found.advice, 1) if len(found.advice) > 1]
    missing = [words for words in expected if " ".join(words.split()) not in flat]
    assert not missing


def test_a_run_without_steps_says_that_it_cannot_be_judged() -> None:
    """An empty recording renders, and its verdict says that no step was captured."""
    empty = from_records([], SiteTable())
    text = TextReporter().render(empty, analyze(empty))
    assert "Cannot judge: no step was captured." in text
    assert "no step captured." in text


def test_checks_that_did_not_apply_carry_their_reason() -> None:
    """Each check that was not judged stands with the reason, and data quality is said."""
    run = replace(recording(), quality=("rank 3 left no files.",))
    text = TextReporter().render(run, judged(not_applied={"exploding": "No loss was logged."}))
    assert "  - exploding: No loss was logged.\n" in text
    assert "  - rank 3 left no files.\n" in text


@pytest.mark.parametrize("width", [40, 57, 80, 200])
def test_no_line_is_wider_than_asked(width: int) -> None:
    """Every line keeps to the width, also with long and wide names, and colour adds no column."""
    names = ("blocks." + "x" * 300, "層" * 90, "e\u0301" * 90)
    run = recording(fault="vanishing", layers=120)
    analysis = judged(*(replace(finding(), title=f"In {name}", layers=(name,), cause=name) for name in names))
    for color in (False, True):
        text = ANSI.sub("", TextReporter(width=width, color=color).render(run, analysis))
        assert max(map(shown_columns, text.splitlines())) <= width


def test_a_width_that_holds_no_report_is_refused() -> None:
    """A width below 40 is an error that names the value."""
    with pytest.raises(GradwatchError, match="width=39"):
        TextReporter(width=39)


def test_there_is_no_escape_sequence_unless_colour_is_asked_for() -> None:
    """Plain by default; with colour the same text between escape sequences."""
    run = recording(fault="vanishing")
    analysis = analyze(run)
    plain = TextReporter().render(run, analysis)
    colored = TextReporter(color=True).render(run, analysis)
    assert "\x1b" not in plain
    assert colored != plain
    assert ANSI.sub("", colored) == plain


HOSTILE = "\x1b[31mred\x07\x1b]0;title\x07 \u202egnp.exe \u2028\r\n\t\x00\x9b2J\ud800"


def test_names_cannot_command_the_terminal() -> None:
    """Control characters, escapes, line breaks and direction marks in any field are shown as what they are."""
    evil = Finding(
        kind="vanishing",
        severity="critical",
        title=HOSTILE,
        layer=HOSTILE,
        layers=(HOSTILE,),
        first_step=0,
        last_step=5,
        evidence=(HOSTILE,),
        cause=HOSTILE,
        advice=(HOSTILE, HOSTILE),
        check=HOSTILE,
        confidence="low",
        confidence_reason=HOSTILE,
        optimizer=HOSTILE,
    )
    sites = SiteTable([Site("gradient", HOSTILE, HOSTILE, numel=1)], optimizers=[HOSTILE])
    run = Recording(HOSTILE, sites, {}, {}, {"framework": HOSTILE, "framework_version": HOSTILE}, (HOSTILE,))
    analysis = judged(replace(evil, symptoms=(evil,)), verdict=HOSTILE, not_applied={"exploding": HOSTILE})
    text = TextReporter(width=120).render(run, analysis)
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.encode()
    assert "\\x1b[31mred\\x07" in text


@given(st.text())
def test_printable_text_is_printable_and_safe_text_unchanged(text: str) -> None:
    """Whatever the text, the result is printable; a printable text is left as it is."""
    assert printable(text).isprintable()
    assert not text.isprintable() or printable(text) == text


@given(st.text(), st.integers(2, 60))
def test_wrapping_loses_no_character(text: str, width: int) -> None:
    """Lines are at most as wide as asked and hold every character but white space, in order."""
    lines = wrap(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(shown_columns(line) <= width for line in lines)


def test_the_strip_shows_each_layer_from_input_to_output() -> None:
    """A layer's mark is its worst finding, symptoms included; the others are healthy."""
    symptom = replace(finding("critical"), layers=("blocks.5.linear",))
    found = replace(finding("warning"), layers=("blocks.1.linear", "blocks.2.linear"), symptoms=(symptom,))
    states = layer_states(recording(), [found, finding("notice")])
    assert states == ["notice", "warning", "warning", "healthy", "healthy", "critical"]
    assert "input ●■■··▲ output" in TextReporter().render(recording(), judged(found, finding("notice")))


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["critical", "warning", "notice", "healthy"]), min_size=1), st.integers(1, 90))
def test_a_condensed_strip_hides_no_trouble(states: list[str], width: int) -> None:
    """However few places there are, the worst state is still shown, and nothing is invented."""
    shown = condensed(states, width)
    assert len(shown) == min(len(states), width)
    order = ["critical", "warning", "notice", "healthy"]
    assert min(shown, key=order.index) == min(states, key=order.index)
    assert set(shown) <= set(states)


def test_frozen_and_unseen_layers_are_told_apart() -> None:
    """A layer frozen on purpose and one of which nothing was captured have marks of their own."""
    sites = SiteTable(
        [
            Site("gradient", "a.weight", "a", numel=1, status="frozen"),
            Site("gradient", "b.weight", "b", numel=1),
        ]
    )
    assert layer_states(from_records([], sites), []) == ["frozen", "not captured"]


@pytest.mark.parametrize(
    ("first", "last", "signal", "words"),
    [
        (None, None, "gradient", "during the whole run"),
        (3, 59, "gradient", "since step 3"),
        (3, 20, "gradient", "steps 3 to 20"),
        (7, 7, "gradient", "at step 7"),
        (59, 59, "gradient", "since step 59"),
        (3, 56, "activation", "since step 3"),
    ],
)
def test_a_finding_says_when_it_showed(first: int | None, last: int | None, signal: str, words: str) -> None:
    """It ended only if what shows it was captured later without it: activations are, here, last captured at step 56."""
    found = replace(finding(), first_step=first, last_step=last, figure=Figure(signal, "rms"))
    assert f"vanishing · {words}\n" in TextReporter().render(recording(), judged(found))


def test_the_reporter_keeps_what_every_reporter_promises() -> None:
    """The published check for reporters passes, over healthy, faulty, tiny, empty and hostile runs."""
    check_reporter(TextReporter())


def test_the_reporter_is_found_by_its_name() -> None:
    """The entry point "text" gives a reporter that keeps the protocol."""
    made = reporter("text")
    assert isinstance(made, Reporter)
    assert made.suffix == ".txt"
