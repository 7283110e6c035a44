"""A fixed twentieth of the development half, by the command that anybody runs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from gradwatch.rules import RULES
from tests.zoo.__main__ import main
from tests.zoo.case import ATTEMPTS, SEEDS
from tests.zoo.rivals import RIVALS
from tests.zoo.score import runs_of, score
from tests.zoo.table import NAMES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the command wrote; parallel workers of pytest share what one of them ran."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "twentieth"
    done = out / "done"
    try:
        out.mkdir()
    except FileExistsError:
        while not done.exists():
            time.sleep(0.2)
        return out
    try:
        assert main(["run", "--half", "dev", "--part", "1/20", "--jobs", "2", "--out", str(out)]) == 0
    finally:
        done.touch()
    return out


@pytest.fixture
def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "dev-development.jsonl").read_text().splitlines()]


def test_slots_are_filled_and_rejections_kept(records: list[dict[str, object]]) -> None:
    """Every slot has a confirmed case, or the reasons of all its rejected draws; nothing failed with an error."""
    for record in records:
        rejected = record["rejected"]
        assert isinstance(rejected, list)
        assert "runs" in record or len(rejected) == ATTEMPTS
        assert [part for part in rejected if part["reason"].startswith("error")] == []
    assert sum("runs" in record for record in records) >= 0.8 * len(records)


def test_every_tool_is_asked_about_every_run(records: list[dict[str, object]]) -> None:
    """Healthy cases have one run a seed, faulty ones one and their twin's; each run has the claims of all tools."""
    for record in records:
        runs = record.get("runs", [])
        assert isinstance(runs, list)
        assert len(runs) in (0, 1 if record["kind"] else SEEDS)
        watched = runs_of(record) if runs else []
        assert all(set(run["claims"]) == set(NAMES) for run in watched)
        # A run is to take 10 s of a core; noisy machines get five times that.
        assert all(run["seconds"] < 50 for run in watched)


def test_kinds_with_a_rule_are_named(records: list[dict[str, object]]) -> None:
    """Of the kinds with a rule, gradwatch names more than it alarms of healthy runs; both agree with its aims.

    A twentieth is too small to prove a rate: it must not disprove that half of the faults are named, and that at most
    one healthy run in twenty raises an alarm.
    """
    ruled = {rule.kind for rule in RULES}
    kind = score([record for record in records if record["kind"] in ruled], "gradwatch").kind
    alarms = score(records, "gradwatch").alarms
    assert kind.n >= 3
    assert alarms.n >= 20
    assert kind.share > alarms.share
    assert kind.interval()[1] > 0.5
    assert alarms.interval()[0] <= 0.05


def test_a_second_run_resumes(folder: Path, tmp_path: Path) -> None:
    """Nothing is done twice: records stay, and a cut line is done again, with the same draw, truth and rivals."""
    lines = (folder / "dev-development.jsonl").read_text().splitlines()
    *kept, cut = sorted(lines, key=lambda line: float(json.loads(line)["seconds"]), reverse=True)
    path = tmp_path / "dev-development.jsonl"
    path.write_text("\n".join([*kept, cut[:20]]))
    assert main(["run", "--half", "dev", "--part", "1/20", "--jobs", "1", "--out", str(tmp_path)]) == 0
    *stayed, again = path.read_text().splitlines()
    assert stayed == kept
    old, new = json.loads(cut), json.loads(again)
    assert (new["number"], new["id"], new["rejected"]) == (old["number"], old["id"], old["rejected"])
    assert new.get("truth") == old.get("truth")
    for before, after in zip(runs_of(old), runs_of(new), strict=True):
        assert {name: before["claims"][name] for name in RIVALS} == {name: after["claims"][name] for name in RIVALS}


def test_the_page_opens_offline(folder: Path) -> None:
    """The page holds its script and its figures, asks no server for anything, and lists every run."""
    page = (folder / "dev-development.html").read_text()
    assert "Plotly.newPlot" in page
    assert '<script src="http' not in page
    assert "<th>healthy alarmed</th>" in page
    assert "right kind" in (folder / "dev-development.txt").read_text()
