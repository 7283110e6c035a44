"""A fault at any point inside gradwatch never reaches the training loop."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradwatch
import gradwatch_torch
from tests.torch.capturing import capture

ROOMS = (str(Path(gradwatch.__file__).parent), str(Path(gradwatch_torch.__file__).parent))

OUTERMOST = {"<genexpr>", "guarded", "replacement", "_finish", "__exit__", "log", "close"}
"""Frames that hold nothing but calls of guarded functions, where no fault can start, and generators, in which a fault
may strike while they are thrown away, where Python itself swallows it."""


class ForeignError(Exception):
    """An exception of somebody else's package."""


class Saboteur:
    """Counts the calls of gradwatch's functions on every thread, and makes the n-th raise."""

    def __init__(self, n: int, error: type[Exception]) -> None:
        self.calls = 0
        self.raised_in = ""
        self._n = n
        self._error = error

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(ROOMS) or frame.f_code.co_name in OUTERMOST:
            return
        self.calls += 1
        if self.calls == self._n:
            self.raised_in = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
            raise self._error(f"fault {self._n}")


@contextmanager
def sabotage(n: int, error: type[Exception]) -> Iterator[Saboteur]:
    saboteur = Saboteur(n, error)
    threading.setprofile(saboteur)
    sys.setprofile(saboteur)
    try:
        yield saboteur
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def batches(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        yield torch.randn(4, 3, generator=generator), torch.randint(0, 2, (4,), generator=generator)


def make() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def loop(model: nn.Module, optimizer: torch.optim.Optimizer, watch: gradwatch.Watch | None = None) -> list[Tensor]:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for x, y in batches(2):
        loss = functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if watch is not None:
            watch.log(loss=loss)
    return [p.detach().clone() for p in model.parameters()]


ERRORS = (ValueError, MemoryError, OSError, RecursionError, ForeignError)


@pytest.fixture
def _lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADWATCH_STRICT", raising=False)


@pytest.mark.usefixtures("_lenient")
def test_no_fault_of_capture_escapes(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every n, the n-th call inside capture raises: training is bitwise the same and one line says what stopped."""
    monkeypatch.setattr("gradwatch_torch.wrappers.gc.get_referrers", lambda *_: [])  # slow, and not what fails here
    truth = loop(*make())
    n, sites = 0, set()
    while True:
        n += 1
        caplog.clear()
        model, optimizer = make()
        with capture(model, optimizer), sabotage(n, ERRORS[n % len(ERRORS)]) as saboteur:
            result = loop(model, optimizer)
        assert all(torch.equal(a, b) for a, b in zip(truth, result, strict=True)), saboteur.raised_in
        if not saboteur.raised_in:
            break
        sites.add(saboteur.raised_in)
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) <= 1, saboteur.raised_in
    assert n > 400
    assert len(sites) > 60
    assert not torch.nn.modules.module._global_forward_hooks


@pytest.mark.usefixtures("_lenient")
def test_no_fault_of_a_whole_watch_escapes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same through files, rules, logging and closing, at some sixty calls spread over the whole run."""
    truth = loop(*make())

    def run(n: int) -> Saboteur:
        caplog.clear()
        model, optimizer = make()
        hooks = dict(optimizer._optimizer_step_pre_hooks)
        watch = gradwatch.watch(model, optimizer, run=tmp_path / str(n), report=False)
        with sabotage(n, ERRORS[n % len(ERRORS)]) as saboteur:
            result = loop(model, optimizer, watch)
            watch.close()
        assert all(torch.equal(a, b) for a, b in zip(truth, result, strict=True)), saboteur.raised_in
        assert dict(optimizer._optimizer_step_pre_hooks) == hooks, saboteur.raised_in
        return saboteur

    total = run(0).calls
    sites = {run(n).raised_in for n in range(1, total, max(1, total // 60))}
    assert len(sites) > 25


@pytest.mark.usefixtures("_lenient")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass_through(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C and sys.exit inside a hook reach the loop as they are."""
    model, optimizer = make()
    with capture(model, optimizer) as captured:
        monkeypatch.setattr(captured.session.schedule, "plan", _raise(error))
        with pytest.raises(error):
            loop(model, optimizer)


def _raise(error: type[BaseException]) -> Any:
    def plan(_: int) -> Any:
        raise error

    return plan


@pytest.mark.usefixtures("_lenient")
def test_a_failure_is_counted_and_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stopped is in the run's data-quality notes, and the rest of the run can be read."""
    model, optimizer = make()
    with gradwatch.watch(model, optimizer, run=tmp_path / "run", report=False) as watch:
        loop(model, optimizer)
        monkeypatch.setattr(watch._scalars, "log", _raise(OSError))
        watch.log(loss=1.0)
        loop(model, optimizer)
    run = gradwatch.load(tmp_path / "run")
    assert len(run.recording.steps()) == 4
    assert any("log stopped" in note for note in run.recording.quality)
    assert sum("log stopped" in record.getMessage() for record in caplog.records) == 1
