"""The rule on saturation: nonlinearities at their bounds through which the gradient is lost, and what only looks so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from gradwatch.findings import Finding
from gradwatch.record import Block, StepRecord
from gradwatch.statistics import NULL, UnitCounts, histogram
from tests.core.chain import WIDTH, Chain

LAYERS = 5
CONFUSED = {"saturated", "vanishing", "exploding", "disconnected", "dead-units"}
"""Kinds that could be said of the same numbers; what else is said of them is not these tests' concern."""
NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 400) for i in range(400)])
Numbers = npt.NDArray[np.float64]
Drive = Sequence[float]
"""The size of the values before each nonlinearity."""


def about(chain: Chain, records: list[StepRecord]) -> list[Finding]:
    return [finding for finding in chain.analyze(records).findings if finding.kind in CONFUSED]


def driven(chain: Chain, step: int, drive: Drive, *, loss: float | None = 2.3, inputs: float = 1.0) -> StepRecord:
    """Returns a step whose layers give normal values of these sizes to tanh."""
    before = np.outer(drive, NORMAL)
    after, slope = np.tanh(before), _rms(1 - np.tanh(before) ** 2)
    back = np.cumprod(np.append(1.0, slope[:-1][::-1]))[::-1]
    given = np.concatenate([before, inputs * NORMAL[None], after[:-1]])
    record = chain.record(step, gradient=1e-2 * back, update=1e-4 * back, output=1.0, delta=1.0, loss=loss)
    told = [_told(block, given, 1e-3 * np.concatenate([back, back[:1], back[1:]])) for block in record.blocks]
    return replace(record, blocks=tuple(told))


def _told(block: Block, given: Numbers, back: Numbers) -> Block:
    values = block.statistics
    if block.signal == "activation":
        told = replace(
            values,
            l2=_rms(given) * np.sqrt(values.n),
            absmax=np.abs(given).max(axis=1),
            sum=np.zeros(len(given)),
            zeros=np.zeros_like(values.n),
            histogram=np.stack([histogram(row) for row in given]),
        )
        return replace(block, statistics=told)
    if block.signal == "activation_gradient":
        return replace(block, statistics=replace(values, l2=back * np.sqrt(values.n)))
    return block


def _rms(values: Numbers) -> Numbers:
    return np.asarray(np.sqrt(np.mean(np.square(values), axis=1)))


def sampled(*drives: tuple[int, Drive], steps: int = 60, loss: float | None = 2.3) -> tuple[Chain, list[StepRecord]]:
    chain, records = Chain(LAYERS), []
    for step in range(steps):
        if step < 16 or step % 4 == 0:
            records.append(driven(chain, step, next(d for at, d in reversed(drives) if at <= step), loss=loss))
        else:
            records.append(chain.record(step, output=None, delta=None, loss=loss))
    return chain, records


CALM = (0.5, 0.5, 0.5, 0.5, 1.0)
PACKED = (0.5, 30.0, 0.5, 0.5, 1.0)


def test_a_saturated_layer_is_named() -> None:
    """A layer that drives tanh to its bounds is critical from the start while the loss is flat."""
    (finding,) = about(*sampled((0, PACKED)))
    assert (finding.kind, finding.severity, finding.layer, finding.first_step) == ("saturated", "critical", "fc1", 0)
    assert finding.evidence[0].startswith("92% of the outputs behind fc1")
    assert "rms of" in finding.evidence[2]


def test_its_cured_twin_is_healthy() -> None:
    """The same chain with ordinary values has no finding."""
    assert about(*sampled((0, CALM))) == []


@pytest.mark.parametrize("onset", [16, 30])
def test_a_jump_into_the_bounds_is_dated(onset: int) -> None:
    """Saturation in the middle of a run is dated at the first sample that shows it."""
    (finding,) = about(*sampled((0, CALM), (onset, PACKED), loss=None))
    assert (finding.kind, finding.severity, finding.confidence) == ("saturated", "warning", "medium")
    assert onset <= (finding.first_step or 0) <= onset + 3
    assert "Updates" in finding.cause


def test_large_inputs_are_the_cause() -> None:
    """Inputs hundreds of times too large are named, and to normalise them is the first advice."""
    chain = Chain(LAYERS)
    records = [driven(chain, step, (40.0, 0.5, 0.5, 0.5, 1.0), inputs=200.0) for step in range(20)]
    (finding,) = about(chain, records)
    assert finding.layer == "fc0"
    assert "200" in finding.cause
    assert finding.advice[0].startswith("Normalise the inputs")


def test_the_last_layer_may_saturate() -> None:
    """Outputs of a confident classifier are not judged: no layer follows."""
    assert about(*sampled((0, (0.5, 0.5, 0.5, 0.5, 30.0)))) == []


def test_a_net_that_gets_certain_is_healthy() -> None:
    """Hidden units that reach their bounds slowly, while the loss falls, are how small nets end."""
    chain = Chain(LAYERS)
    drives = [(0.5, 0.3 + step / 8, 0.5, 0.5, 1.0) for step in range(60)]
    records = [driven(chain, step, drive, loss=2.3 / (1 + step)) for step, drive in enumerate(drives)]
    assert about(chain, records) == []


def test_bounded_inputs_whose_gradient_passes_are_not_saturated() -> None:
    """Large values that something bounds by 1 and passes back in full, as normalised vectors are, are healthy."""
    chain, records = sampled((0, PACKED))
    for record in records:
        for block in record.blocks:
            if block.signal == "activation_gradient":
                block.statistics.l2[:] = 1e-3
    assert about(chain, records) == []


@pytest.mark.parametrize(("share", "kinds"), [(0.8, ["saturated"]), (0.2, [])])
def test_counted_outputs_decide(share: float, kinds: list[str]) -> None:
    """Where the adapter counts the outputs of a nonlinearity near its bound, the count decides."""
    chain = Chain(3, activation_class="Tanh")
    for signal in ("activation", "activation_gradient"):
        chain.sites.add(replace(chain.sites[chain.sites.find(signal, "fc1") or 0], name="act", layer="act"))
    chain.sites.set_order(("fc0", "fc1", "act", "fc2"))
    records = []
    for step in range(30):
        record = chain.record(step, delta=1e-4, gradient=1e-3)
        records.append(replace(record, blocks=tuple(_with_module(chain, block, share) for block in record.blocks)))
    assert [finding.kind for finding in about(chain, records)] == kinds


def _with_module(chain: Chain, block: Block, share: float) -> Block:
    if not block.signal.startswith("activation"):
        return block
    site = chain.sites.find(block.signal, "act")
    rows = block.statistics.take(np.append(np.arange(len(block.sites)), 1))
    rows.l2[-1] *= 1 if block.signal == "activation" else 100
    null = np.full(len(rows), NULL)
    saturated = null.copy()
    saturated[-1] = int(share * rows.n[-1])
    units = UnitCounts(np.full(len(rows), WIDTH), null, null, saturated) if block.signal == "activation" else None
    sites = np.append(block.sites, site or 0).astype(np.uint32)
    return replace(block, sites=sites, statistics=rows, units=units)


def test_without_activations_it_does_not_apply() -> None:
    """A run that captured no activations says so."""
    chain = Chain(LAYERS)
    records = [chain.record(step, output=None, delta=None) for step in range(30)]
    assert "activation" in chain.analyze(records).not_applied["saturated"]
