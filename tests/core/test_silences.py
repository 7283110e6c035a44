"""Silences: findings that are kept, counted and shown apart, and that nobody is told."""

from __future__ import annotations

from pathlib import Path

import pytest

import gradwatch
from gradwatch.analyze import Stream, analyze
from gradwatch.cli import main
from gradwatch.errors import GradwatchError
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.findings import Finding
from gradwatch.recording import from_records
from gradwatch.silences import Silence, parsed, stated
from gradwatch.testing import example_run


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("vanishing", True),
        ("*", True),
        ("vanishing:layers.*", True),
        ("*:layers.0*", True),
        ("vanishing:head", False),
        ("exploding", False),
    ],
)
def test_a_silence_is_a_kind_and_layers(text: str, found: bool) -> None:
    """It matches the kind, or any, in culprits whose path matches the pattern, and is written as it is read."""
    finding = Finding("vanishing", "critical", "", "layers.0", ("layers.0", "head"), 0, 9, (), "", (), "")
    silence = Silence.parse(text)
    assert silence.matches(finding) is found
    assert str(silence) == text


def test_a_finding_of_the_whole_run_has_no_layer() -> None:
    """A pattern of layers does not match a finding without a culprit."""
    finding = Finding("exploding", "critical", "", None, (), 0, 9, (), "", (), "")
    assert not Silence.parse("exploding:a*").matches(finding)
    assert Silence.parse("exploding").matches(finding)


def test_unknown_kinds_are_refused() -> None:
    """A kind that does not exist is refused when it is given, and left out when a file states it."""
    with pytest.raises(GradwatchError, match="silence='sadness' names no kind of trouble"):
        gradwatch.watch(silence=["sadness"])
    assert stated(["sadness", "frozen:a", 3]) == parsed("frozen:a")
    assert stated("frozen") == ()


def test_silenced_findings_are_kept_apart() -> None:
    """The verdict is that of a run without them, and they can still be read; the stream says the same."""
    run = SyntheticRun(layers=8, steps=120, seed=0, fault="vanishing")
    records = list(run.records())
    loud = analyze(from_records(records, run.sites))
    quiet = analyze(from_records(records, run.sites), parsed(["vanishing", "update-too-small"]))
    assert loud.at_least("warning")
    assert not quiet.at_least("warning")
    assert quiet.silenced == loud.findings
    assert quiet.verdict.startswith("Nothing else was found in ")
    assert quiet.verdict.endswith(f"{len(loud.findings)} silenced.")
    told: list[Finding] = []
    stream = Stream(run.sites, on_finding=told.append, silences=parsed(["vanishing", "update-too-small"]))
    for record in records:
        stream(record)
    stream.close()
    assert told == []
    assert stream.analysis() == quiet


def test_commands_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A check passes when its only finding is silenced, and both reports show what was."""
    run = example_run(tmp_path / "run", fault="vanishing")
    assert main(["check", str(run.path)]) == 1
    silence = ["--silence", "vanishing", "--silence", "update-too-small"]
    assert main(["check", str(run.path), *silence]) == 0
    assert "silenced" in capsys.readouterr().out
    assert main(["show", str(run.path), *silence]) == 0
    assert "Silenced:\n  - " in capsys.readouterr().out
    assert main(["report", str(run.path), *silence, "-o", str(tmp_path / "a.html")]) == 0
    assert 'id="silenced"' in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert 'id="silenced"' not in run.report(tmp_path / "b.html").read_text(encoding="utf-8")
