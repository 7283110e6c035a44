"""The command line. Each command imports what it needs when it runs, and says in one sentence what is wrong."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from gradwatch import __version__
from gradwatch.errors import GradwatchError
from gradwatch.findings import cannot_judge, printable

BAD_INPUT: Final = 2
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
"""Exit codes of a command that could not do its work, was interrupted, or whose reader left (128 + the signal)."""

_WIDEST: Final = 100
_NARROWEST: Final = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 for yes, 1 for no, 2 when that cannot be said."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal that lacks a mark shows "?" in its place; the severity stands beside it as a word.
            stream.reconfigure(errors="replace")
    try:
        code: int = options.command(options)
        sys.stdout.flush()
    except GradwatchError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        # What is left in the buffer must not fail again when the interpreter ends.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        return _refuse(f"{error.filename or 'reading the run'}: {error.strerror or error}.")
    return code


def demo(options: argparse.Namespace) -> int:
    """Trains a sick and a repaired network and says where their reports are."""
    from gradwatch import plugins  # noqa: PLC0415

    train = plugins.demo(options.framework)
    runs = train(_fresh(options.out), seed=options.seed)
    print("\nThe reports:")
    for run in runs:
        print(f"  {run / 'report.html'}")
    print(f"The first of them in the terminal:\n  {_program()} show {runs[0]}")
    if options.open:
        _open(runs[0] / "report.html")
    return 0


def report(options: argparse.Namespace) -> int:
    """Writes the HTML report of a run and prints its path."""
    from gradwatch.run import load  # noqa: PLC0415

    path = load(options.run, silence=options.silence).report(options.output)
    print(printable(str(path)))
    if options.open:
        _open(path)
    return 0


def show(options: argparse.Namespace) -> int:
    """Prints the report of a run in the terminal."""
    from gradwatch import plugins  # noqa: PLC0415
    from gradwatch.run import load  # noqa: PLC0415

    run = load(options.run, silence=options.silence)
    text = plugins.reporter("text", width=_width(), color=_wants_color()).render(run.recording, run.analysis)
    sys.stdout.write(text)
    return 0


def check(options: argparse.Namespace) -> int:
    """Judges a run: 0 when nothing is at or above a severity, 1 when something is, 2 when it cannot be judged."""
    from gradwatch.run import load  # noqa: PLC0415

    analysis = load(options.run, silence=options.silence).analysis
    name = printable(str(options.run))
    reason = cannot_judge(analysis)
    if reason:
        return _refuse(f"{name} cannot be judged: {reason}.")
    found = analysis.at_least(options.fail_on)
    if not found:
        quiet = f" ({len(analysis.silenced)} silenced)" if analysis.silenced else ""
        steps = _count(analysis.steps, "captured step")
        print(f"{name} passes: no {_of(options.fail_on, 'finding')} in {steps}{quiet}.")
        return 0
    noun = _of(options.fail_on, "finding" if len(found) == 1 else "findings")
    print(f"{name} fails with {len(found):,} {noun}: {printable(found[0].summary)}.")
    return 1


def compare(options: argparse.Namespace) -> int:
    """Holds runs against a first one: 0 when none is worse, 1 when one is, 2 when that cannot be told."""
    from gradwatch.commands.compare import compare as compare_runs  # noqa: PLC0415

    return compare_runs(options, width=_width(), color=_wants_color())


def live(options: argparse.Namespace) -> int:
    """Follows a run while it trains, on a local page or in the terminal; 0 when it is interrupted."""
    from gradwatch.commands.live import live as follow_run  # noqa: PLC0415

    return follow_run(options, in_place=sys.stdout.isatty() and os.environ.get("TERM") != "dumb")


def verify(options: argparse.Namespace) -> int:
    """Checks whether the files of a run are whole: 0 when they are, 1 when something is damaged."""
    from gradwatch.store.verify import verify as verify_files  # noqa: PLC0415

    found = verify_files(options.run)
    for sentence in (*found.facts, *found.problems):
        print(printable(sentence))
    print("All files are whole." if found.whole else f"{_count(len(found.problems), 'problem')} found.")
    return 0 if found.whole else 1


def explain(options: argparse.Namespace) -> int:
    """Prints how a kind of trouble is found, with every number and its source; without a kind, lists them."""
    from gradwatch import explain as pages  # noqa: PLC0415

    if options.kind is not None:
        sys.stdout.write(pages.render(pages.page(options.kind), _width()))
        return 0
    for kind, summary in pages.summaries().items():
        print(f"{kind:18}{summary}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradwatch", description="Which layer does not learn, since which step, why, and what to do."
    )
    parser.add_argument("--version", action="version", version=f"gradwatch {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    added = commands.add_parser("demo", help="train a sick and a repaired network and report on both")
    added.add_argument("--framework", help="by default the first one whose demo can run")
    added.add_argument("--seed", type=int, default=0, help="of data order and initialisation")
    added.add_argument("--out", type=Path, default=Path("gradwatch-demo"), metavar="DIR", help="where the runs go")
    added.add_argument("--open", action="store_true", help="open the sick run's report in a browser")
    added.set_defaults(command=demo)

    added = _judging(commands, "report", "write a run's report as one HTML file")
    added.add_argument("-o", "--output", type=Path, metavar="FILE", help="report.html in the run by default")
    added.add_argument("--open", action="store_true", help="open it in a browser")
    added.set_defaults(command=report)

    _judging(commands, "show", "print a run's report in the terminal").set_defaults(command=show)

    added = _judging(commands, "check", "exit with 1 when a run is sick, with 2 when that cannot be said")
    added.add_argument("--fail-on", choices=("warning", "critical"), default="warning", help="warning by default")
    added.set_defaults(command=check)

    added = _judging(
        commands, "compare", "exit with 1 when a run is worse than the first one, and show where they differ"
    )
    added.add_argument("others", type=Path, nargs="+", metavar="OTHER", help="directory of a run to hold against RUN")
    added.add_argument("--html", type=Path, metavar="FILE", help="write the comparison as one HTML file as well")
    added.set_defaults(command=compare)

    added = _judging(commands, "live", "follow a run while it trains, on a page that only this machine can open")
    added.add_argument("--port", type=int, default=0, metavar="N", help="of the page; by default the system chooses")
    added.add_argument("--terminal", action="store_true", help="show it in the terminal instead, until the run ends")
    added.add_argument(
        "--every", type=float, default=2.0, metavar="SECONDS", help="read the run no more often than that; 2 by default"
    )
    added.set_defaults(command=live)

    _on_run(commands, "verify", "check whether a run's files are whole").set_defaults(command=verify)

    added = commands.add_parser("explain", help="say how a kind of trouble is found, with every limit and its source")
    added.add_argument(
        "kind", nargs="?", metavar="KIND", help="such as vanishing; without it, all kinds in a line each"
    )
    added.set_defaults(command=explain)
    return parser


def _on_run(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run")
    return parser


def _judging(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str
) -> argparse.ArgumentParser:
    parser = _on_run(commands, name, what)
    parser.add_argument(
        "--silence",
        action="append",
        default=[],
        metavar="KIND[:LAYERS]",
        help="do not tell findings of a kind, or those in layers such as dead-units:encoder.*; may be repeated",
    )
    return parser


def _program() -> str:
    """Returns how the user can call this again: by name, or by the path in an environment that is not activated."""
    if shutil.which("gradwatch"):
        return "gradwatch"
    return sys.argv[0] if Path(sys.argv[0]).name == "gradwatch" else f"{sys.executable} -m gradwatch"


def _fresh(out: Path) -> Path:
    """Makes the directory unless it holds something; or else the first of ``out-2``, ``out-3``, ... that does not."""
    number, candidate = 1, out
    while candidate.exists() and not (candidate.is_dir() and not any(candidate.iterdir())):
        number += 1
        candidate = out.with_name(f"{out.name}-{number}")
    candidate.mkdir(parents=True, exist_ok=True)
    return candidate


def _of(severity: str, noun: str) -> str:
    return f"critical {noun}" if severity == "critical" else f"{noun} of {severity} or worse"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _width() -> int:
    return min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)


def _wants_color() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _open(path: Path) -> None:
    import webbrowser  # noqa: PLC0415

    webbrowser.open(path.resolve().as_uri())


def _refuse(sentence: str) -> int:
    print(f"gradwatch: {printable(sentence)}", file=sys.stderr)
    return BAD_INPUT
