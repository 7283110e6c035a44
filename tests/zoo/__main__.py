"""``python -m tests.zoo run``: fills a half in parallel, resumes, and writes the table and the page."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.zoo import case, halves, lead, page, published, table
from tests.zoo.draw import Draw
from tests.zoo.recipe import Recipe

ONE_CORE: Final = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
"""Settings of the processes to come, each of which has one core."""
README: Final = Path(__file__).with_name("README.md")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parsed = _parser().parse_args(arguments)
    for name, value in ONE_CORE.items():
        os.environ.setdefault(name, value)
    if parsed.command == "case":
        return _one(parsed.id)
    if parsed.command == "lead":
        print(lead.summary([lead.listen(recipe, name, onset) for name, recipe, onset in _leads(parsed)]))
        return 0
    index, count = (int(number) for number in parsed.part.split("/"))
    wanted = halves.part(halves.slots(parsed.half), index, count)
    parsed.out.mkdir(parents=True, exist_ok=True)
    path = parsed.out / f"{parsed.half}-{wanted[0].seed[:12]}.jsonl"
    records = list(_fill(wanted, path, parsed.jobs))
    title = f"{parsed.half} half, seed {wanted[0].seed}, part {parsed.part}"
    written = path.with_suffix(".txt")
    written.write_text(table.text(records, title), encoding="utf-8")
    path.with_suffix(".html").write_text(page.html(records, title), encoding="utf-8")
    if parsed.publish:
        published.write(README, records, title)
    print(written.read_text(encoding="utf-8"))
    return 0


def _fill(wanted: list[case.Slot], path: Path, jobs: int) -> Iterator[dict[str, Any]]:
    """Yields the records of these slots: those that the file holds, then the rest as they are done."""
    known = {record["number"]: record for record in _read(path)}
    path.write_text("".join(json.dumps(record) + "\n" for record in known.values()), encoding="utf-8")
    numbers = {slot.number for slot in wanted}
    yield from (record for number, record in known.items() if number in numbers)
    missing = [slot for slot in wanted if slot.number not in known]
    if not missing:
        return
    prepare = case.prepare if len(missing) > jobs else None  # fewer cases are not worth it
    done, started, commit = len(wanted) - len(missing), time.monotonic(), halves.commit()
    with (
        multiprocessing.get_context("spawn").Pool(jobs, prepare) as pool,
        path.open("a", encoding="utf-8") as file,
    ):
        for found in pool.imap_unordered(case.run, missing):
            record = {"commit": commit, **found}
            file.write(json.dumps(record) + "\n")
            file.flush()
            done += 1
            _bar(done, len(wanted), time.monotonic() - started)
            yield record
    print(file=sys.stderr)


def _read(path: Path) -> list[dict[str, Any]]:
    """Reads whole lines; what an interrupted run left of a line is passed over."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def _bar(done: int, whole: int, seconds: float) -> None:
    filled = 40 * done // whole
    print(
        f"\r[{'#' * filled}{'.' * (40 - filled)}] {done}/{whole} {seconds:.0f} s", end="", file=sys.stderr, flush=True
    )


def _leads(parsed: argparse.Namespace) -> list[tuple[str, Recipe, int]]:
    return lead.cases(halves.seed_of(parsed.half), parsed.slots)


def _one(text: str) -> int:
    draw = Draw.parse(text)
    record = case.show_faulty(draw) if draw.fault else case.show_healthy(draw)
    print(json.dumps(record, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="fill a half and write its table and page")
    run.add_argument("--half", choices=("dev", "test"), default="dev")
    run.add_argument("--part", default="1/1", help="such as 1/20: the first of twenty parts")
    run.add_argument("--jobs", type=int, default=2)
    run.add_argument("--publish", action="store_true", help="write the figures into the README of the zoo as well")
    run.add_argument("--out", type=Path, default=Path("runs/zoo"))
    told = commands.add_parser("lead", help="how long before the loss is lost explosions are told")
    told.add_argument("--half", choices=("dev", "test"), default="dev")
    told.add_argument("--slots", type=int, default=60, help="explosions to draw")
    commands.add_parser("case", help="run one draw again and print its record").add_argument("id")
    return parser


if __name__ == "__main__":
    sys.exit(main())
