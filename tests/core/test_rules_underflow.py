"""The rule on underflow: gradients below the range of float16, and zeros and small numbers that are none of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from gradwatch.findings import Finding
from gradwatch.record import SiteTable, StepRecord
from gradwatch.statistics import measure
from tests.core.chain import WIDTH, Chain

LAYERS = 4
CONFUSED = {"underflow", "disconnected", "vanishing", "dead-units", "update-too-small"}
"""Kinds that could be said of the same numbers; what else is said of them is not these tests' concern."""
SMALLEST = 2.0**-24
NORMAL = np.random.default_rng(0).standard_normal(WIDTH**2)


def chain_of(dtype: str, *, activations: bool = False) -> Chain:
    """Returns a chain of which the parameters, or only the activations, have a format."""
    chain = Chain(LAYERS)
    sites = [
        replace(site, dtype=dtype) if (site.parameter is None) == activations else site for site in list(chain.sites)
    ]
    chain.sites = SiteTable(sites, order=chain.names)
    return chain


def step_of(
    chain: Chain,
    step: int,
    sizes: Sequence[float],
    *,
    scale: float = 1.0,
    loss: float | None = 1e-6,
    flush: bool = True,
) -> StepRecord:
    """Returns a step whose gradients are normal numbers of these sizes, rounded to float16 times the loss scale."""
    record = chain.record(step, gradient=1.0, loss=loss)
    parts = []
    for size in sizes:
        for numel in (WIDTH**2, WIDTH):
            exact = size * NORMAL[:numel]
            values = np.round(exact * scale / SMALLEST) * SMALLEST / scale if flush else exact
            parts.append(measure(values, smallest_normal=2.0**-14))
    names = ("n", "l2", "sum", "absmax", "nan", "inf", "zeros", "subnormal")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    histogram = np.concatenate([part.histogram for part in parts if part.histogram is not None])
    blocks = [
        replace(block, statistics=replace(block.statistics, **joined, histogram=histogram))
        if block.signal == "gradient"
        else block
        for block in record.blocks
    ]
    facts = {**record.facts, "loss_scale": scale} if scale != 1 else record.facts
    return replace(record, blocks=tuple(blocks), facts=facts)


def about(chain: Chain, records: list[StepRecord]) -> list[Finding]:
    return [finding for finding in chain.analyze(records).findings if finding.kind in CONFUSED]


LOST = (2e-9, 5e-9, 2e-8, 4e-7)


@pytest.mark.parametrize("activations", [False, True])
def test_gradients_below_the_range_are_named(activations: bool) -> None:
    """Gradients of which most entries round to 0 are critical, in fp16 parameters and under autocast alike."""
    chain = chain_of("float16", activations=activations)
    (finding,) = about(chain, [step_of(chain, step, LOST) for step in range(40)])
    assert (finding.kind, finding.severity, finding.layer, finding.first_step) == ("underflow", "critical", None, 0)
    assert finding.layers == ("fc0", "fc1", "fc2")
    assert "not scaled" in finding.cause
    assert "scaler" in finding.advice[0]


def test_no_gradient_at_all_is_underflow() -> None:
    """Where every entry is lost, nothing is disconnected: the format is to blame."""
    chain = chain_of("float16")
    (finding,) = about(chain, [step_of(chain, step, (1e-9,) * LAYERS) for step in range(40)])
    assert (finding.kind, finding.severity) == ("underflow", "critical")
    assert "No weight has a gradient" in finding.evidence[1]


def test_a_loss_scale_cures_it() -> None:
    """The same gradients under the recommended scale keep their entries, and nothing is said."""
    chain = chain_of("float16")
    records = [step_of(chain, step, LOST, scale=2.0**20) for step in range(40)]
    assert [finding.kind for finding in about(chain, records) if finding.kind != "vanishing"] == []


def test_a_loss_scale_that_is_too_small_is_named() -> None:
    """A scale that leaves most entries at 0 is named in the cause."""
    chain = chain_of("float16")
    (finding,) = about(chain, [step_of(chain, step, [s / 64 for s in LOST], scale=64.0) for step in range(40)])
    assert "64" in finding.cause


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_small_gradients_of_wide_formats_are_healthy(dtype: str) -> None:
    """The same sizes in formats that hold them are no underflow."""
    chain = chain_of(dtype)
    records = [step_of(chain, step, (4e-8,) * LAYERS, flush=False) for step in range(40)]
    assert about(chain, records) == []
    assert "underflow" in chain.analyze(records).passed


def test_subnormal_gradients_that_arrive_are_healthy() -> None:
    """Entries that lose digits and not their value still train the weights."""
    chain = chain_of("float16")
    assert about(chain, [step_of(chain, step, (3e-6,) * LAYERS) for step in range(40)]) == []


def test_what_is_lost_below_large_gradients_is_no_underflow() -> None:
    """Where some gradient is of ordinary size, the others vanish along depth, or their units are dead."""
    chain = chain_of("float16")
    records = [step_of(chain, step, (1e-9, 1e-9, 1e-9, 1e-1)) for step in range(40)]
    assert "underflow" not in [finding.kind for finding in about(chain, records)]


def test_a_solved_task_is_healthy() -> None:
    """Gradients that fall below the range because the loss did are convergence."""
    chain = chain_of("float16")
    records = [
        step_of(chain, step, (1e-2 * 10.0 ** (-step / 8),) * LAYERS, loss=10.0 ** (-step / 8)) for step in range(80)
    ]
    assert about(chain, records) == []


def test_a_run_that_recovers_is_forgiven_unless_its_loss_is_lost() -> None:
    """Gradients that grow back into the range while the loss falls are healthy; where it rises, they went astray."""
    chain = chain_of("float16")
    for worse in (False, True):
        sizes = [LOST if step < 20 else (1e-4,) * LAYERS for step in range(60)]
        losses = [1e-6 * (1 + step / 10 if worse else 1 / (1 + step / 10)) for step in range(60)]
        records = [step_of(chain, step, size, loss=losses[step]) for step, size in enumerate(sizes)]
        found = [finding.kind for finding in about(chain, records)]
        assert ("underflow" in found) == worse
