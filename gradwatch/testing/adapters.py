"""What every adapter promises to the core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradwatch.guard import Guard
from gradwatch.plugins import Adapter, Session
from gradwatch.record import SIGNALS, STAGES, Block, SiteTable, StepRecord
from gradwatch.recorder import Recorder
from gradwatch.recording import Recording, from_records
from gradwatch.scalars import Scalars
from gradwatch.schedule import Schedule
from gradwatch.statistics import Statistics
from gradwatch.testing.sinks import MemorySink

_SLACK = 1 + 1e-5


def check_adapter(adapter: Adapter, targets: Sequence[Any], step: Callable[[], None], *, steps: int = 20) -> Recording:
    """Asserts that an adapter captures a training loop as the core expects, and stops when it is detached.

    Args:
        adapter: a new one.
        targets: what it watches.
        step: runs one step of training.
        steps: how many to run, 17 or more so that the schedule leaves something out.

    Returns:
        What was captured, for checks of the numbers themselves.

    Raises:
        AssertionError: with one sentence about what is wrong.
    """
    assert adapter.claims(*targets), "the adapter does not claim its own targets"
    sink, sites = MemorySink(), SiteTable(optimizers=())
    recorder = Recorder([sink], Guard())
    adapter.attach(Session(sites, Schedule(), recorder, Scalars(recorder), lambda _: True), *targets)
    for _ in range(steps):
        step()
    adapter.detach()
    adapter.detach()
    step()
    assert recorder.close(20.0), "pending records never became ready"
    assert recorder.guard.failures == [], f"the adapter failed: {recorder.guard.failures}"
    records = [record for record in sink.records if not record.late]
    _check_counting(records, steps)
    for record in records:
        for block in record.blocks:
            _check_block(block, f"step {record.step}, {block.signal}", sites)
    return from_records(sink.records, sites)


def _check_counting(records: Sequence[StepRecord], steps: int) -> None:
    optimizers = {record.optimizer for record in records}
    for optimizer in optimizers:
        numbers = [record.step for record in records if record.optimizer == optimizer]
        assert numbers == list(range(len(numbers))), f"steps must count from 0 without holes, not {numbers}"
    assert len(records) >= steps, f"{steps} steps were trained and {len(records)} captured"
    assert len(records) <= steps * max(1, len(optimizers)), "steps after detaching were captured, or some twice"
    for record in records:
        assert record.skipped or record.block("gradient"), f"step {record.step} has no gradient"


def _check_block(block: Block, where: str, sites: SiteTable) -> None:
    assert block.signal in SIGNALS, f"{where}: unknown signal"
    assert block.stage in STAGES, f"{where}: unknown stage {block.stage!r}"
    assert block.sites.dtype == np.uint32, f"{where}: site ids are uint32, not {block.sites.dtype}"
    assert len(set(block.sites.tolist())) == len(block.sites), f"{where}: a site stands twice"
    assert all(sites[i].signal == block.signal for i in block.sites.tolist()), f"{where}: sites of another signal"
    for name in Statistics.__slots__:
        column = getattr(block.statistics, name)
        if column is not None:
            assert type(column) is np.ndarray, f"{where}: {name} is no numpy array"
            assert len(column) == len(block.sites), f"{where}: {name} has {len(column)} rows"
    _check_numbers(block.statistics, where)


def _check_numbers(values: Statistics, where: str) -> None:
    """Checks what holds for any elements: max|x| <= l2 <= sqrt(n) max|x| and |sum| <= sqrt(n) l2."""
    finite = values.finite()
    assert (finite >= 0).all(), f"{where}: more non-finite elements than elements"
    known = (finite > 0) & ~np.isnan(values.absmax)
    l2, absmax, root = values.l2[known], values.absmax[known], np.sqrt(finite[known])
    assert (l2 <= absmax * root * _SLACK).all(), f"{where}: l2 above absmax * sqrt(n)"
    assert (l2 * _SLACK >= absmax).all(), f"{where}: l2 below absmax"
    assert (np.abs(values.sum[known]) <= l2 * root * _SLACK).all(), f"{where}: sum too large for its l2"
