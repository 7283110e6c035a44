"""The bench: its arithmetic on planted numbers, and each of its commands at its smallest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gradwatch.examples.synthetic import SyntheticRun
from tests.bench import __main__ as bench
from tests.bench import clock, endurance, rules_cost, scale, table, worker
from tests.bench.networks import NETWORKS
from tests.bench.rounds import Measured
from tests.bench.rows import ROWS, Row
from tests.bench.summary import Round, is_noise, ratios, spread

MLP = NETWORKS["mlp-50k"]


def outcome(steady: float, first: float = 0.127, peak: int = 0) -> dict[str, Any]:
    """Returns an outcome of 100 steady steps, of 10 ms each when ``steady`` is 1."""
    phases = {"start": 0.5, "first": first, "steady": steady, "steps": [128, 100], "peak_bytes": peak}
    return {**phases, "findings": [], "parameters": 50_570, "tensors": 26}


PLANTED: list[Round] = [
    {"bare": outcome(1.0), "default": outcome(1.155, first=1.905), "naive": outcome(1.01), "noise": outcome(1.1)},
    {"bare": outcome(2.0), "default": outcome(2.1, peak=7_000_000), "naive": outcome(2.02), "noise": outcome(2.0)},
]


def test_a_ratio_is_to_the_mean_of_both_bare_runs_of_its_round() -> None:
    """A row's steps are divided by bare steps of the same round, the drift between whose two runs cancels."""
    found = ratios(PLANTED, "default")
    assert found is not None
    assert found.pairs == pytest.approx((1.155 / 1.05, 2.1 / 2.0))
    assert (found.mean, found.low, found.high) == pytest.approx((1.075, 1.05, 1.1))


def test_first_steps_are_divided_by_bare_steps_of_the_steady_state() -> None:
    """The first 128 steps are those behind the first one, each compared with a bare step."""
    found = ratios(PLANTED[:1], "default", "first")
    assert found is not None
    assert found.pairs == pytest.approx((1.905 / 127 / 0.0105,))


def test_what_differs_less_than_bare_runs_do_is_noise() -> None:
    """A row is noise when its mean is nearer to 1 than one bare run was to the other."""
    noise, default, naive = (ratios(PLANTED, row) for row in ("noise", "default", "naive"))
    assert noise is not None
    assert default is not None
    assert naive is not None
    assert noise.pairs == pytest.approx((1.1, 1.0))
    assert spread(noise) == pytest.approx(0.1)
    assert is_noise(naive, noise)
    assert is_noise(default, noise), "1.075 is nearer to 1 than 1.1"
    assert not is_noise(default, type(noise)((1.01, 0.93))), "1.075 is further from 1 than 0.93"


def test_the_table_names_noise_and_what_is_not_installed() -> None:
    """The table gives mean and range of each row, says what is noise, and how to get a missing rival."""
    absent = Row("absent", "absent tool", module="no_such_module", install="no-such-tool")
    assert not absent.installed
    rows = [ROWS[key] for key in ("bare", "default", "noise", "naive")]
    lines = table.table(Measured(MLP, rows, [absent], PLANTED, [])).splitlines()
    assert lines[0] == "### mlp-50k: 50,570 parameters in 26 tensors, 256 examples a step, bare step 15.25 ms"
    default, noise, naive, missing = lines[4:]
    assert default.startswith("| gradwatch, default schedule | 1.075 [1.050..1.100] |")
    assert default.endswith("| +485 ms | +4 MB | noise |")
    assert noise.endswith("| differences below 0.100 are noise |")
    assert naive.endswith("| noise |")
    assert missing == "| absent tool | not installed: `pip install no-such-tool` | | | | |"


def test_windows_are_whole_periods_where_that_can_be_paid_for() -> None:
    """A row is timed over whole periods, of which a large network's rival may not even see one."""
    assert ROWS["every-100"].window(NETWORKS["gpt-25m"]) == (8, 100)
    assert ROWS["every-10"].window(MLP) == (8, 2560)
    assert ROWS["default"].window(NETWORKS["gpt-25m"]) == (128, 256)
    assert ROWS["wandb/1000"].window(MLP) == (8, 1000)
    assert ROWS["wandb/1000"].window(NETWORKS["wide-100m"]) == (8, 16)


def test_a_worker_that_fails_says_why() -> None:
    """The end of what a failed process wrote is in the error."""
    with pytest.raises(worker.WorkerFailed, match="KeyError: 'no-such-network'"):
        worker.run({"network": "no-such-network", "row": "bare", "first": 1, "steady": 1})


def test_a_worker_is_a_process_that_tells_one_line_of_json() -> None:
    """A task goes to a process of its own, whose outcome comes back with seconds of each phase."""
    told = worker.run({"network": "mlp-50k", "row": "bare", "first": 3, "steady": 5})
    assert told["steps"] == [3, 5]
    assert min(told[phase] for phase in ("start", "first", "steady")) > 0


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets workers be calls in this process, and does not wait for the writer."""
    monkeypatch.setattr(worker, "run", worker.measure)
    monkeypatch.setattr(clock, "SETTLE", 0.01)


@pytest.mark.usefixtures("at_once")
def test_the_command_measures_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command trains bare and watched, times reads, prints a table and writes its numbers."""
    file = tmp_path / "bench.json"
    few = ["--pairs", "1", "--steps", "8", "--json", str(file)]
    bench.main(["--quick", "--networks", "mlp-50k", "--rows", "default", "reads", *few])
    shown = capsys.readouterr().out
    assert "| gradwatch, default schedule |" in shown
    assert "One read of the gradients:" in shown
    (data,) = json.loads(file.read_text(encoding="utf-8"))["networks"]
    assert (data["parameters"], data["tensors"]) == (50_570, 26)
    assert data["rows"]["default"]["first"]["mean"] > 1
    assert data["reads"][0]["full"] > 0
    assert not data["rows"]["default"]["findings"]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("row", ["default", "debug-callback"])
def test_a_step_of_jax_is_measured(row: str) -> None:
    """A watched step of linen and one with a rival in it run, and find nothing on the bench's network."""
    told = worker.run({"network": "linen-mlp", "row": row, "first": 2, "steady": 3})
    assert (told["parameters"], told["tensors"]) == (263_168, 8)
    assert not told["findings"]


def test_a_short_feed_is_told_from_one_that_grows(tmp_path: Path) -> None:
    """Parts of a real feed hold its steps, and growth of time, bytes or memory is said in sentences."""
    spans = list(endurance.feed(tmp_path / "run", 400))
    assert [span.last for span in spans] == list(range(19, 400, 20))
    assert all(span.memory > 0 for span in spans)
    flat = [endurance.Span(10**5 * i, 100.0, 10**8, 50.0) for i in range(20)]
    assert endurance.verdict(flat) == []
    growing = [endurance.Span(10**5 * i, 100.0 + 10 * i, 10**8 + 10**7 * i, 50.0 * (1 + i)) for i in range(20)]
    assert len(endurance.verdict(growing)) == 3


def test_scale_reaches_the_sizes_that_it_names() -> None:
    """The networks of the curves have the parameters and the tensors that their tasks name."""
    from tests.bench import torch_networks

    reads = scale.of_parameters(10**5)["reads"]
    model, _ = torch_networks.stack(reads["width"], reads["depth"], reads["batch"])
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(10**5, rel=0.05)
    reads = scale.of_tensors(1000)["reads"]
    model, _ = torch_networks.residual(reads["tensors"], reads["width"], reads["batch"])
    assert len(list(model.parameters())) == 1000


def test_the_rules_keep_up_with_training() -> None:
    """At 200 parameters they take about 150 us of CPU a captured step; five times that is what noise may make of it."""
    run = SyntheticRun(layers=100, steps=640)
    first, then = rules_cost.measure(run, list(run.records()))
    assert 0 < then < 5 * 150
    assert first > then
