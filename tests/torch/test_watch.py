"""The public face, used as people use it, and misused."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradwatch
from gradwatch.testing import check_adapter
from gradwatch_torch import TorchAdapter
from tests.torch.networks import digits, mlp


def batch(n: int = 32) -> tuple[Tensor, Tensor]:
    x, y = digits()
    index = torch.randint(len(x), (n,))
    return x[index], y[index]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        x, y = batch()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def trained(run: Path, steps: int = 20, **options: Any) -> gradwatch.Run:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    with gradwatch.watch(model, optimizer, run=run, **options):
        train(model, optimizer, steps)
    return gradwatch.load(run)


def test_wrap_writes_a_run_a_report_and_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Leaving the with seals the run, writes report.html and prints the verdict and where the report is."""
    run = trained(tmp_path / "run")
    said = capsys.readouterr().err
    assert f"gradwatch: {run.verdict}" in said
    assert f"gradwatch: report: {tmp_path / 'run' / 'report.html'}" in said
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert run.recording.facts["framework"] == "PyTorch"
    assert [float(x) for x in run.recording.step_tables[0].logged["loss"]] != []


def test_the_decorator_captures_the_same_and_keeps_the_function(tmp_path: Path) -> None:
    """A decorated step returns what it returned, has its loss recorded, and carries its watch."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())

    @gradwatch.watch(model, optimizer, run=tmp_path / "run", report=False)
    def train_step(x: Tensor, y: Tensor) -> Tensor:
        """One step."""
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss

    losses = [float(train_step(*batch()).detach()) for _ in range(12)]
    assert train_step.__doc__ == "One step."
    watch: gradwatch.Watch = train_step.watch  # type: ignore[attr-defined]
    assert watch.run_dir == tmp_path / "run"
    watch.close()
    table = gradwatch.load(tmp_path / "run").recording.step_tables[0]
    assert table.logged["loss"].tolist() == pytest.approx(losses)


def test_a_statement_without_with_works_until_close(tmp_path: Path) -> None:
    """gradwatch.watch(...) whose result nobody keeps captures all the same."""
    script = """
        import sys, torch, gradwatch
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        gradwatch.watch(model, optimizer, run=sys.argv[1])
        for _ in range(15):
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    """
    path = tmp_path / "run"
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr.strip().splitlines()[-1] == f"gradwatch report {path}"
    assert not (path / "report.html").exists()
    assert len(gradwatch.load(path).recording.steps()) == 15


def test_nothing_is_written_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A watch in which nothing was trained leaves no directory, and says so."""
    with gradwatch.watch(mlp(), run=tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []
    assert "no step was captured" in capsys.readouterr().err


def test_the_run_exists_when_the_first_step_has_ended(tmp_path: Path) -> None:
    """A run that is killed right after its first step can be opened."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    with gradwatch.watch(model, optimizer, run=tmp_path / "run", report=False):
        train(model, optimizer, 1)
        assert (tmp_path / "run" / "run.json").exists()
        assert gradwatch.load(tmp_path / "run").recording.open


def test_a_run_can_be_read_while_it_trains(tmp_path: Path) -> None:
    """Load shows the steps so far, and the live findings need no file."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    with gradwatch.watch(model, optimizer, run=tmp_path / "run", report=False) as watch:
        train(model, optimizer, 70)
        end = time.monotonic() + 10
        while len(gradwatch.load(tmp_path / "run").recording.steps()) < 64:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert watch.findings == []


def test_logged_scalars_belong_to_their_step(tmp_path: Path) -> None:
    """A tensor, a float and a numpy scalar logged after a step are that step's; what is no scalar is left out."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    with gradwatch.watch(model, optimizer, run=tmp_path / "run", report=False) as watch:
        for i in range(5):
            train(model, optimizer, 1)
            watch.log(loss=torch.tensor(float(i)), accuracy=i / 10, size=torch.ones(3).numpy()[0], what="text")
    table = gradwatch.load(tmp_path / "run").recording.step_tables[0]
    assert table.logged["loss"].tolist() == [0, 1, 2, 3, 4]
    assert table.logged["accuracy"].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert table.logged["size"].tolist() == [1] * 5
    assert "what" not in table.logged


def test_closing_takes_less_than_two_seconds(tmp_path: Path) -> None:
    """Stopping capture and sealing are quick, whatever was captured."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    watch = gradwatch.watch(model, optimizer, run=tmp_path / "run", report=False, every=1)
    train(model, optimizer, 100)
    began = time.monotonic()
    watch.close()
    assert time.monotonic() - began < 2.0 + 3.0  # printing the verdict loads and judges the run


EXPLODING = 30.0


def explode(watch_options: dict[str, Any], steps: int = 40) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(8):
        linear = nn.Linear(64, 64)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        if i == 3:
            linear.weight.data.mul_(EXPLODING)
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with gradwatch.watch(model, optimizer, report=False, **watch_options):
        for _ in range(steps):
            train(model, optimizer, 1)
            time.sleep(0.02)


def test_on_finding_calls_back(tmp_path: Path) -> None:
    """A function gets each finding while the run goes on."""
    found: list[gradwatch.Finding] = []
    explode({"run": tmp_path / "run", "on_finding": found.append})
    assert {finding.kind for finding in found} & {"exploding", "nonfinite"}


def test_on_finding_raises_at_a_step_boundary(tmp_path: Path) -> None:
    """With "raise" the training loop is stopped by GradientFinding, and the run is there to read."""
    with pytest.raises(gradwatch.GradientFinding, match="critical"):
        explode({"run": tmp_path / "run", "on_finding": "raise"}, steps=200)
    assert gradwatch.load(tmp_path / "run").findings


def test_on_finding_warns_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By default each finding of warning and above is one line of the log."""
    explode({"run": tmp_path / "run"})
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(line.startswith("gradwatch: critical: ") for line in lines)
    assert all("\n" not in line for line in lines)


def test_silenced_findings_are_not_told(tmp_path: Path) -> None:
    """What is silenced calls nobody back, and the run remembers that it is not to be told."""
    told: list[gradwatch.Finding] = []
    explode({"run": tmp_path / "run", "on_finding": told.append, "silence": "*"})
    run = gradwatch.load(tmp_path / "run")
    assert told == []
    assert run.findings == []
    assert run.analysis.silenced[0].kind == "exploding"


@pytest.mark.parametrize(
    ("targets", "options", "sentence"),
    [
        ((nn.ReLU(),), {}, "the model ReLU has no parameters, so there are no gradients to watch."),
        ((nn.Linear(2, 2),), {"layers": "blocks.*"}, "layers= matches none of the model's layers, which are Linear."),
        (("a model",), {}, "cannot watch str: no adapter claims it"),
        ((), {"every": 0}, "every=0 must be a number of steps"),
        ((nn.Linear(2, 2),), {"on_finding": "shout"}, 'on_finding=\'shout\' must be "warn", "raise" or a function'),
        ((nn.Linear(2, 2),), {"signals": ["gradiant"]}, "['gradiant'] are unknown"),
        ((nn.Linear(2, 2),), {"max_bytes": 10}, "max_bytes=10 is too small"),
        (
            (torch.optim.SGD([torch.ones(2, requires_grad=True)]),),
            {},
            "there is no model among the watched objects (SGD)",
        ),
    ],
)
def test_bad_input_gets_one_sentence(
    targets: tuple[Any, ...], options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    """What is wrong with the call is said at once, with the value, and nothing is written."""
    with pytest.raises(gradwatch.GradwatchError) as raised:
        gradwatch.watch(*targets, run=tmp_path / "run", **options)
    assert sentence in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """run= that points to a file or to somebody's directory is refused before training begins."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    for name in ("file", "full"):
        with pytest.raises(gradwatch.GradwatchError, match=name):
            gradwatch.watch(mlp(), run=tmp_path / name)


def test_a_closed_watch_says_so(tmp_path: Path) -> None:
    """Entering, decorating or stepping a closed watch is an error; logging and a decorated step are harmless."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    watch = gradwatch.watch(model, optimizer, run=tmp_path / "run", report=False)

    @watch
    def step() -> None:
        train(model, optimizer, 1)

    step()
    watch.close()
    for use in (watch.__enter__, lambda: watch(step), watch.step):
        with pytest.raises(gradwatch.GradwatchError, match="closed watch; make a new one"):
            use()
    step()
    watch.log(loss=1.0)
    assert len(gradwatch.load(tmp_path / "run").recording.steps()) == 1


def test_a_second_training_into_one_directory_is_a_new_attempt(tmp_path: Path) -> None:
    """Running a script again replaces the series; nothing of the first attempt is overwritten on disk."""
    trained(tmp_path / "run", 12, report=False)
    run = trained(tmp_path / "run", 15, report=False)
    assert len(run.recording.steps()) == 15
    assert sorted(path.name for path in (tmp_path / "run" / "rank0000").iterdir()) == ["a0001", "a0002"]


def test_frames_have_the_promised_columns(tmp_path: Path) -> None:
    """One row per captured step and parameter, null where not captured; an uncaptured signal is an empty frame."""
    run = trained(tmp_path / "run", 20, report=False, signals=["gradient", "activation"])
    rows = run.frame()
    columns = "step optimizer layer parameter numel l2 mean absmax zeros nan inf subnormal stage"
    assert list(rows.columns) == columns.split()
    assert len(rows) == 20 * 6
    assert rows[rows["step"] == 17]["zeros"].isna().all()
    assert rows[rows["step"] == 16]["zeros"].notna().all()
    assert (rows["nan"] == 0).all()
    weight = rows[rows["parameter"] == "0.weight"]
    assert set(weight["numel"]) == {4096}
    empty = run.frame("update")
    assert list(empty.columns) == columns.split()
    assert len(empty) == 0
    activations = run.frame("activation")
    assert activations["parameter"].isna().all()
    assert {"0", "0:input", "1"} <= set(activations["layer"])
    with pytest.raises(gradwatch.GradwatchError, match="signal='loss' is unknown; choose one of gradient"):
        run.frame("loss")


def test_the_adapter_passes_the_check_for_adapters() -> None:
    """What third parties must satisfy, ours satisfies."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    recording = check_adapter(TorchAdapter(), (model, optimizer), lambda: train(model, optimizer, 1), steps=70)
    assert {signal for signal, _ in recording.panels} == {
        "gradient",
        "update",
        "weight",
        "activation",
        "activation_gradient",
    }
