"""The command line: every exit code, and one clear sentence for each way in which a run can be nonsense."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import entry_points, metadata
from pathlib import Path

import pytest

from gradwatch import __version__, analyze, cli, plugins
from gradwatch.errors import GradwatchError
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.findings import Analysis
from gradwatch.recording import Recording
from gradwatch.silences import Silence
from gradwatch.store import StoreWriter, manifest
from gradwatch.store.layout import RUN_FILE, SCHEMA_VERSION

ONE_SENTENCE = re.compile(r"[^\n]+[.]\n")


def write_run(path: Path, *, steps: int, fault: str | None = None) -> Path:
    source = SyntheticRun(layers=12, steps=steps, fault=fault)
    writer = StoreWriter(path, source.sites, {"framework": "none"})
    writer.open()
    for record in source.records():
        writer(record)
    writer.close()
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "healthy", steps=60)
    write_run(folder / "sick", steps=60, fault="vanishing")
    write_run(folder / "short", steps=3)
    write_run(folder / "short-broken", steps=8, fault="disconnected")
    write_run(folder / "nothing", steps=0)
    return folder


def gradwatch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradwatch", *map(str, arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)


def test_check_passes_a_healthy_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing at or above the limit: exit code 0 and one sentence on standard output."""
    assert cli.main(["check", str(runs / "healthy")]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{runs / 'healthy'} passes: no finding of warning or worse in 60 captured steps.\n"
    assert shown.err == ""


@pytest.mark.parametrize("limit", ["warning", "critical"])
def test_check_fails_a_sick_run(runs: Path, limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A finding at or above the limit: exit code 1 and one sentence that names kind, severity and step."""
    assert cli.main(["check", str(runs / "sick"), "--fail-on", limit]) == 1
    shown = capsys.readouterr()
    assert ONE_SENTENCE.fullmatch(shown.out)
    assert "fails with 1" in shown.out
    assert "(vanishing, critical, since step" in shown.out
    assert shown.err == ""


def test_check_passes_what_is_below_its_limit(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning fails a check at warning and passes one at critical."""
    real = analyze.analyze

    def milder(recording: Recording, silences: Iterable[Silence]) -> Analysis:
        found = real(recording, silences)
        return replace(found, findings=tuple(replace(finding, severity="warning") for finding in found.findings))

    monkeypatch.setattr(analyze, "analyze", milder)
    assert cli.main(["check", str(runs / "sick"), "--fail-on", "critical"]) == 0
    assert "no critical finding" in capsys.readouterr().out
    assert cli.main(["check", str(runs / "sick"), "--fail-on", "warning"]) == 1


def test_check_does_not_judge_a_few_steps(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fewer than ten captured steps without a structural finding: exit code 2, and the numbers are said."""
    assert cli.main(["check", str(runs / "short")]) == 2
    shown = capsys.readouterr()
    assert shown.err == (
        f"gradwatch: {runs / 'short'} cannot be judged: it has 3 captured steps, and a verdict takes 10.\n"
    )
    assert shown.out == ""


def test_check_judges_a_structural_finding_of_a_few_steps(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Layers without any gradient are a fact after few steps: exit code 1."""
    assert cli.main(["check", str(runs / "short-broken")]) == 1
    assert "(disconnected, critical, since step 0)" in capsys.readouterr().out


def test_check_does_not_judge_a_run_without_steps(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No step at all: exit code 2."""
    assert cli.main(["check", str(runs / "nothing")]) == 2
    assert "cannot be judged: no step was captured" in capsys.readouterr().err


def missing(folder: Path) -> Path:
    return folder / "nowhere"


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def file(folder: Path) -> Path:
    (folder / "notes.txt").write_text("notes")
    return folder / "notes.txt"


def truncated(folder: Path) -> Path:
    run = write_run(folder / "truncated", steps=12)
    data = (run / RUN_FILE).read_bytes()
    (run / RUN_FILE).write_bytes(data[: len(data) // 2])
    return run


def newer(folder: Path) -> Path:
    run = write_run(folder / "newer", steps=12)
    content = manifest.read(run / RUN_FILE)
    (run / RUN_FILE).write_bytes(manifest.encode({**content, "schema_version": SCHEMA_VERSION + 1}))
    return run


def foreign(folder: Path) -> Path:
    (folder / "foreign").mkdir()
    (folder / "foreign" / RUN_FILE).write_bytes(manifest.encode({"format": "something else", "schema_version": 1}))
    return folder / "foreign"


NONSENSE = [
    (missing, "does not exist"),
    (empty, "is not a run"),
    (file, "is a file"),
    (truncated, "is damaged"),
    (newer, "install a newer gradwatch"),
    (foreign, "is not a run of gradwatch"),
]


@pytest.mark.parametrize("command", ["check", "show", "report", "verify"])
@pytest.mark.parametrize(("make", "words"), NONSENSE, ids=[make.__name__ for make, _ in NONSENSE])
def test_nonsense_is_refused_in_one_sentence(
    command: str, make: Callable[[Path], Path], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not a readable run: exit code 2, and one sentence on standard error that names the path."""
    path = make(tmp_path)
    assert cli.main([command, str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ONE_SENTENCE.fullmatch(shown.err)
    assert words in shown.err
    assert str(path) in shown.err


def test_a_run_cut_in_the_middle_of_a_data_file_is_still_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damage below the manifest costs the damaged rows only: verify says so with exit code 1, show still shows."""
    run = write_run(tmp_path / "cut", steps=30)
    largest = max((path for path in run.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    largest.write_bytes(data[: len(data) // 2])
    assert cli.main(["verify", str(run)]) == 1
    assert largest.name in capsys.readouterr().out
    assert cli.main(["show", str(run)]) == 0
    assert "Data quality" in capsys.readouterr().out


def test_verify_says_that_all_files_are_whole(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An undamaged run: exit code 0."""
    assert cli.main(["verify", str(runs / "healthy")]) == 0
    assert capsys.readouterr().out.endswith("All files are whole.\n")


def test_show_prints_the_findings_without_colour_into_a_pipe(runs: Path) -> None:
    """The terminal's report goes to standard output; no escape sequence unless that is a terminal."""
    done = gradwatch("show", runs / "sick")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "vanishing" in done.stdout
    assert "\x1b" not in done.stdout


def test_show_keeps_going_where_the_encoding_lacks_the_marks(runs: Path) -> None:
    """With an ASCII-only output the marks become question marks, and nothing fails."""
    command = [sys.executable, "-m", "gradwatch", "show", str(runs / "sick")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0
    assert done.stdout.isascii()


def test_report_writes_the_page_where_it_is_told(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path of the written file is all that is printed."""
    target = tmp_path / "deep" / "page.html"
    assert cli.main(["report", str(runs / "sick"), "-o", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert "<html" in target.read_text(encoding="utf-8")


def test_report_refuses_a_place_that_cannot_be_written(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory in the report's place: exit code 2 and the reason."""
    assert cli.main(["report", str(runs / "sick"), "-o", str(tmp_path)]) == 2
    assert ONE_SENTENCE.fullmatch(capsys.readouterr().err)


def test_compare_passes_a_run_that_is_not_worse(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing new in the later run: exit code 0, and the comparison with its sentence on standard output."""
    assert cli.main(["compare", str(runs / "healthy"), str(runs / "healthy")]) == 0
    shown = capsys.readouterr()
    assert "B is not worse than A: it has no finding of warning or worse that A has not" in shown.out
    assert shown.err == ""


def test_compare_fails_a_run_that_is_worse(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new finding in any later run: exit code 1, and which run and why in one sentence; the other way round 0."""
    assert cli.main(["compare", str(runs / "healthy"), str(runs / "healthy"), str(runs / "sick")]) == 1
    shown = capsys.readouterr().out
    assert "C is worse than A: it has a critical finding that A has not: " in " ".join(shown.split())
    assert "FINDINGS ONLY IN C\n" in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert cli.main(["compare", str(runs / "sick"), str(runs / "healthy")]) == 0


@pytest.mark.parametrize("unjudged", ["short", "nothing"])
def test_compare_cannot_tell_of_a_run_without_a_verdict(
    runs: Path, unjudged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too few steps: exit code 2, the comparison on standard output, and the reason in one sentence on the other."""
    assert cli.main(["compare", str(runs / "healthy"), str(runs / unjudged)]) == 2
    shown = capsys.readouterr()
    assert ONE_SENTENCE.fullmatch(shown.err)
    assert "Cannot tell whether B is worse than A: B cannot be judged" in shown.err
    assert "Layers: " in shown.out


@pytest.mark.parametrize(("make", "words"), NONSENSE, ids=[make.__name__ for make, _ in NONSENSE])
def test_compare_refuses_nonsense_in_one_sentence(
    runs: Path, make: Callable[[Path], Path], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run that cannot be read: exit code 2, its path in one sentence on standard error, and nothing else."""
    path = make(tmp_path)
    assert cli.main(["compare", str(runs / "healthy"), str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ONE_SENTENCE.fullmatch(shown.err)
    assert words in shown.err
    assert str(path) in shown.err


def test_compare_writes_the_page_where_it_is_told(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path of the page stands below the comparison; a place that cannot be written is refused."""
    target = tmp_path / "deep" / "page.html"
    assert cli.main(["compare", str(runs / "healthy"), str(runs / "sick"), "--html", str(target)]) == 1
    assert capsys.readouterr().out.endswith(f"\n\n{target}\n")
    assert "<html" in target.read_text(encoding="utf-8")
    assert cli.main(["compare", str(runs / "healthy"), str(runs / "sick"), "--html", str(tmp_path)]) == 2
    assert ONE_SENTENCE.fullmatch(capsys.readouterr().err)


def test_compare_silences_what_is_known(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody wants to be told makes no run worse; its loss still does."""
    assert cli.main(["compare", str(runs / "healthy"), str(runs / "sick"), "--silence", "vanishing"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "B is worse than A: its loss ends at 2.3, that of A at 1." in shown
    assert "FINDINGS ONLY" not in shown


def test_report_opens_the_page_when_asked(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--open gives the browser the address of the written file."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert cli.main(["report", str(runs / "healthy"), "-o", str(tmp_path / "a.html"), "--open"]) == 0
    assert opened == [(tmp_path / "a.html").resolve().as_uri()]


def test_names_in_messages_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """An escape sequence in a path is shown as one."""
    assert cli.main(["show", "no\x1b[2Jrun"]) == 2
    assert "no\\x1b[2Jrun" in capsys.readouterr().err


def test_a_reader_that_leaves_ends_the_command_quietly(runs: Path) -> None:
    """A closed pipe gives the exit code of SIGPIPE and no traceback."""
    command = [sys.executable, "-u", "-m", "gradwatch", "show", str(runs / "sick")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        error = process.stderr.read()
        assert process.wait() == cli.BROKEN_PIPE
    assert error == ""


def test_an_interrupt_ends_the_command_quietly(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C gives exit code 130 and no traceback."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plugins, "reporter", interrupted)
    assert cli.main(["show", str(runs / "sick")]) == cli.INTERRUPTED
    assert capsys.readouterr().err == ""


def test_the_version_is_printed() -> None:
    """--version prints name and version."""
    done = gradwatch("--version")
    assert (done.returncode, done.stdout) == (0, f"gradwatch {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["check"], ["check", "x", "--fail-on", "doom"]])
def test_a_wrong_command_shows_the_usage(arguments: list[str]) -> None:
    """An unknown or incomplete command: exit code 2 and the usage on standard error."""
    done = gradwatch(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: gradwatch")


@pytest.fixture
def demonstration(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int]]:
    """Puts a demonstration in place that only notes how it was called."""
    calls: list[tuple[Path, int]] = []

    def train(out: Path, *, seed: int) -> list[Path]:
        calls.append((out, seed))
        return [out / "sick", out / "repaired"]

    monkeypatch.setattr(plugins, "demo", lambda _: train)
    return calls


def test_demo_says_where_the_reports_are(
    demonstration: list[tuple[Path, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both reports and the command that shows more are printed."""
    out = tmp_path / "out"
    assert cli.main(["demo", "--out", str(out), "--seed", "7"]) == 0
    assert demonstration == [(out, 7)]
    printed = capsys.readouterr().out
    for words in (out / "sick" / "report.html", out / "repaired" / "report.html", f" show {out / 'sick'}"):
        assert str(words) in printed


def test_demo_names_a_command_that_can_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment is not activated, the printed command still runs when it is pasted."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", [".venv/bin/gradwatch", "demo"])
    assert cli._program() == ".venv/bin/gradwatch"
    monkeypatch.setattr(sys, "argv", ["/some/__main__.py", "demo"])
    assert cli._program() == f"{sys.executable} -m gradwatch"


def test_demo_leaves_earlier_runs_alone(demonstration: list[tuple[Path, int]], tmp_path: Path) -> None:
    """A directory that holds something, or a file, gets a neighbour with a number; an empty one is used."""
    out = tmp_path / "out"
    out.mkdir()
    cli.main(["demo", "--out", str(out)])
    (out / "sick").mkdir()
    cli.main(["demo", "--out", str(out)])
    (out.with_name("out-2") / "sick").mkdir()
    out.with_name("out-3").write_text("a file")
    cli.main(["demo", "--out", str(out)])
    assert [used.name for used, _ in demonstration] == ["out", "out-2", "out-4"]


def test_a_demo_of_an_unknown_framework_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The frameworks that have one are named."""
    assert cli.main(["demo", "--framework", "abacus"]) == 2
    assert "there is no demo called 'abacus' (installed: " in capsys.readouterr().err


class DemoEntry:
    """An entry point of a demonstration; ``missing`` is the package that is not installed."""

    def __init__(self, name: str, missing: str = "") -> None:
        self.name = name
        self._missing = missing

    def load(self) -> str:
        if self._missing:
            raise ModuleNotFoundError(f"No module named '{self._missing}'", name=self._missing)
        return f"the demo of {self.name}"


def test_a_demo_whose_packages_are_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that fails becomes one sentence with the name and the command that installs it."""
    monkeypatch.setattr(plugins, "_entries", lambda _: iter([DemoEntry("torch", "sklearn"), DemoEntry("jax", "flax")]))
    with pytest.raises(GradwatchError) as raised:
        plugins.demo("jax")
    assert str(raised.value) == ("the jax demo needs flax, which is not installed: pip install 'gradwatch[demo-jax]'.")
    with pytest.raises(GradwatchError) as raised:
        plugins.demo()
    assert str(raised.value) == (
        "the torch demo needs sklearn, which is not installed: pip install 'gradwatch[demo-torch]'; "
        "the jax demo needs flax, which is not installed: pip install 'gradwatch[demo-jax]'."
    )


def test_a_demo_that_cannot_run_leaves_the_place_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name, the first demonstration is chosen whose packages are there."""
    monkeypatch.setattr(plugins, "_entries", lambda _: iter([DemoEntry("jax", "flax"), DemoEntry("torch")]))
    assert str(plugins.demo()) == "the demo of torch"


def test_every_demo_has_an_extra_that_installs_it() -> None:
    """The command that a missing package leads to names an extra of this distribution."""
    extras = metadata("gradwatch").get_all("Provides-Extra") or []
    names = [entry.name for entry in entry_points(group="gradwatch.demos")]
    assert {"torch", "jax"} <= set(names)
    assert {f"demo-{name}" for name in names} <= set(extras)
