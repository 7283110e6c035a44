"""The same training in every framework gives the same numbers, the same steps and the same findings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest

from gradwatch.analyze import analyze
from gradwatch.plugins import Adapter
from gradwatch.record import ACTIVATION_SIGNALS, PARAMETER_SIGNALS, SIGNALS, STEP_FACTS, StepRecord
from gradwatch.recording import from_records
from gradwatch.rules.history import History
from gradwatch.rules.view import StepView
from gradwatch.statistics import NULL, Statistics, UnitCounts, measure
from gradwatch.testing import check_adapter
from tests.parity.comparison import SHARES, Place, compared, differences, disagreements, distance, place, places
from tests.parity.implementations import IMPLEMENTATIONS, ORACLE, Run, trained
from tests.parity.numpy_adapter import NumpyAdapter
from tests.parity.numpy_network import Descent
from tests.parity.problem import DEEP, HEALTHY_STEPS, PLANTED, SHALLOW, WIDE, Problem, phases

ALL: Final = (*IMPLEMENTATIONS, ORACLE)
each = pytest.mark.parametrize("name", ALL, scope="module")
"""The scope groups the tests by implementation, so that each is trained once, also where processes share the tests."""
each_framework = pytest.mark.parametrize("name", IMPLEMENTATIONS, scope="module")

COUNTED: Final = frozenset({"zeros", "subnormal", "histogram"})
PARAMETERS: Final = {"gradient": frozenset(), "update": frozenset({"histogram"}), "weight": COUNTED}
ABSENT: Final = dict.fromkeys(ACTIVATION_SIGNALS, frozenset({"everything"}))
UNITLESS: Final = dict.fromkeys(ACTIVATION_SIGNALS, frozenset({"units"}))
OPTIONAL_FACTS: Final = frozenset({"loss_scale", "clip_threshold", "dot", "square"})
NULLS: Final[dict[str, dict[str, frozenset[str]]]] = {
    "numpy": {
        **PARAMETERS,
        "update": frozenset(),
        **UNITLESS,
        "facts": frozenset(STEP_FACTS),
    },
    "torch": {
        **PARAMETERS,
        "activation": frozenset({"saturated"}),
        "activation_gradient": frozenset({"units"}),
        "facts": OPTIONAL_FACTS,
    },
    "jax": {**PARAMETERS, **ABSENT, "facts": OPTIONAL_FACTS | {"learning_rate"}},
    "linen": {**PARAMETERS, **UNITLESS, "facts": OPTIONAL_FACTS | {"learning_rate"}},
    "nnx": {**PARAMETERS, **UNITLESS, "facts": OPTIONAL_FACTS | {"learning_rate"}},
    "equinox": {**PARAMETERS, **UNITLESS, "facts": OPTIONAL_FACTS | {"learning_rate"}},
}
"""What each leaves null of an affine layer of this network at a step of which everything is captured. ``units`` stands
for all counts per unit. Sums over shards, clipping and loss scales do not occur here."""


@each_framework
def test_every_number_of_every_step_agrees_with_numpy(name: str) -> None:
    """Loss, gradients, updates, weights and what there is of activations agree, also where infinities are planted."""
    run, oracle = trained(name, SHALLOW), trained(ORACLE, SHALLOW)
    assert run.notes == []
    assert disagreements(run, oracle, SIGNALS) == []
    for signal in PARAMETER_SIGNALS:
        assert len(compared(run, oracle, signal)) == 2 * SHALLOW.depth
    for signal in ACTIVATION_SIGNALS:
        outputs = {at for at in compared(run, oracle, signal) if at[1] == "output"}
        assert len(outputs) == (SHALLOW.depth if "everything" not in NULLS[name][signal] else 0)


def test_the_planted_batches_spoil_some_elements_and_not_all() -> None:
    """The oracle counts NaN, infinite and finite elements in one gradient, so that equal counts mean something."""
    block = trained(ORACLE, SHALLOW).records[HEALTHY_STEPS + 8].block("gradient")
    assert block is not None
    row = places(trained(ORACLE, SHALLOW), block)[2, "weight"]
    counts = block.statistics
    assert (counts.nan[row], counts.inf[row], counts.n[row]) == (176, 144, 320)
    pixel = trained(ORACLE, SHALLOW).records[HEALTHY_STEPS].block("gradient")
    assert pixel is not None
    assert pixel.statistics.nan.sum() == 48


@each_framework
def test_vanishing_gradients_agree_with_numpy(name: str) -> None:
    """Eight sigmoid layers down, where a gradient is 10^-4 of that at the output, the numbers still agree."""
    # An update of a few ulps of its weight depends on how the subtraction is rounded, so updates are left out.
    signals = tuple(signal for signal in SIGNALS if signal != "update")
    assert disagreements(trained(name, DEEP), trained(ORACLE, DEEP), signals) == []


@each
@pytest.mark.parametrize("problem", [SHALLOW, DEEP], ids=["shallow", "deep"])
def test_each_signal_comes_on_the_same_steps(name: str, problem: Problem) -> None:
    """Every signal that a framework gives comes on the steps of the default schedule, and so do counts."""
    run = trained(name, problem)
    assert [record.step for record in run.records] == list(range(problem.steps))
    steps = set(range(problem.steps))
    expected = {
        "gradient": steps,
        "update": {step for step in steps if step < 64 or step % 32 == 0},
        "weight": {step for step in steps if step < 64 or step % 32 == 0},
    }
    activations = {step for step in steps if step < 16 or step % (4 if step < 64 else 64) == 0}
    for signal in ACTIVATION_SIGNALS:
        expected[signal] = set() if "everything" in NULLS[name][signal] else activations
    for signal, at in expected.items():
        assert {record.step for record in run.records if record.block(signal)} == at, signal
    counted = {step for step in steps if step < 16 or step % 8 == 0}
    for column in COUNTED:
        assert {record.step for record in run.records if _given(record, "gradient", column)} == counted, column


@each
def test_layers_parameters_and_shapes_correspond(name: str) -> None:
    """Layers stand in order of use, and each has a weight and a bias of the same role and, transposed, shape."""
    run = trained(name, SHALLOW)
    assert tuple(layer for layer in run.sites.layers if layer in run.layers) == run.layers
    for signal in PARAMETER_SIGNALS:
        sites = {place(run, site): site for site in run.sites if site.signal == signal}
        assert sites.keys() == {(i, part) for i in range(SHALLOW.depth) for part in ("weight", "bias")}
        for i in range(SHALLOW.depth):
            inputs, outputs = SHALLOW.sizes[i : i + 2]
            weight, bias = sites[i, "weight"], sites[i, "bias"]
            assert (weight.role, bias.role, bias.shape) == ("weight", "bias", (outputs,))
            first_is_output = weight.name.endswith(".weight") and name != ORACLE
            assert weight.shape == ((outputs, inputs) if first_is_output else (inputs, outputs))
            assert (weight.fan_in, bias.fan_in) == (inputs, None)
            assert (weight.numel, weight.dtype, weight.status) == (inputs * outputs, "float32", "trained")


@each
def test_the_findings_agree(name: str) -> None:
    """The healthy run has no finding of warning or above; the sigmoid net vanishes at its first layer from step 0.

    Its loss falls from 2.4 to log 10, that of a constant guess, within 10 steps, and stays there: it learns nothing.
    """
    shallow, deep = trained(name, SHALLOW), trained(name, DEEP)
    assert serious(shallow, shallow.records[:HEALTHY_STEPS]) == []
    assert serious(deep, deep.records) == [("vanishing", "critical", 0, 0)]


@pytest.mark.parametrize("step", PLANTED, ids=PLANTED.values())
@each
def test_nonfinite_numbers_are_found_alike(name: str, step: int) -> None:
    """Each plant is critical at its step: the first layer is named for a pixel, no layer for the loss itself."""
    run = trained(name, SHALLOW)
    culprit = 0 if step == HEALTHY_STEPS else None
    assert serious(run, [run.records[step]]) == [("nonfinite", "critical", culprit, step)]


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_shares_of_a_large_layer_agree(name: str) -> None:
    """The histogram of a layer of 2^17 elements, sampled or not, is within 0.02 of the whole one."""
    run, oracle = trained(name, WIDE), trained(ORACLE, WIDE)
    apart = [
        distance(histograms(run, record)[1, "weight"], histograms(oracle, true)[1, "weight"])
        for record, true in zip(run.records, oracle.records, strict=True)
    ]
    assert max(apart) <= SHARES


@each
def test_the_update_ratio_that_rules_judge_agrees(name: str) -> None:
    """The ratio of update to weight has a floor at the initial size for the fan-in, however a weight is laid out."""
    run, last = trained(name, DEEP), (DEEP.depth - 1, "weight")
    update, weight = (row(run, run.records[0], signal, last) for signal in ("update", "weight"))
    floor = 1 / np.sqrt(3 * DEEP.sizes[-2])
    assert ratio(run, run.records[0], last) == pytest.approx(update.rms()[0] / max(weight.rms()[0], floor), rel=1e-4)


@each
def test_what_each_leaves_null_is_listed(name: str) -> None:
    """Signals, columns, unit counts and facts that are null are those of ``NULLS``, no fewer and no more."""
    run = trained(name, SHALLOW)
    record = run.records[HEALTHY_STEPS - 8]
    found: dict[str, frozenset[str]] = {signal: nulls(run, record, signal) for signal in SIGNALS}
    found["facts"] = frozenset(STEP_FACTS) - record.facts.keys()
    assert found == NULLS[name]
    for lean in (run.records[HEALTHY_STEPS - 7], run.records[HEALTHY_STEPS - 1]):
        assert nulls(run, lean, "gradient") == COUNTED
    assert all(block.stage == "unscaled" for record in run.records for block in record.blocks)


def test_the_comparison_sees_what_differs() -> None:
    """A number off by twice its limit, a single NaN more and a shifted histogram are each told."""
    random = np.random.default_rng(0)
    values = random.normal(size=2000).astype(np.float32)
    true = measure(values)
    assert list(differences(true, true)) == []
    for changed, statistic in (
        (replace(true, l2=true.l2 * (1 + 2e-4)), "l2"),
        (replace(true, absmax=true.absmax * (1 - 2e-4)), "absmax"),
        (replace(true, sum=true.sum + 2e-4 * true.rms() * true.n), "mean"),
        (replace(true, nan=true.nan + 1, inf=true.inf), "nan"),
        (replace(true, inf=true.inf + 1), "inf"),
        (replace(true, l2=np.array([np.nan])), "l2"),
        (replace(true, zeros=np.array([4])), "zeros"),
        (replace(true, histogram=measure(values * 1.1).histogram), "histogram"),
    ):
        assert [sentence.split()[0] for sentence in differences(changed, true)] == [statistic]


def test_an_adapter_of_a_third_party_passes_the_check_for_adapters() -> None:
    """An adapter of a hundred lines satisfies the protocol and hands over resolved records of every signal."""
    descent, batches = Descent(SHALLOW), next(phases(SHALLOW))
    adapter = NumpyAdapter()
    assert isinstance(adapter, Adapter)
    recording = check_adapter(adapter, (descent,), lambda: descent.step(batches[0]))
    assert {signal for signal, _ in recording.panels} == set(SIGNALS)
    assert descent.listeners == []


def serious(run: Run, records: list[StepRecord]) -> list[tuple[str, str, int | None, int | None]]:
    """Returns kind, severity, culprit as a number, and onset of the findings of warning and above."""
    found = analyze(from_records(records, run.sites)).at_least("warning")
    layers: dict[str | None, int | None] = {None: None, **{layer: i for i, layer in enumerate(run.layers)}}
    return [(finding.kind, finding.severity, layers[finding.layer], finding.first_step) for finding in found]


def row(run: Run, record: StepRecord, signal: str, at: Place) -> Statistics:
    block = record.block(signal)
    assert block is not None, signal
    return block.statistics.take(np.array([places(run, block)[at]]))


def histograms(run: Run, record: StepRecord) -> dict[Place, Any]:
    block = record.block("gradient")
    assert block is not None
    assert block.statistics.histogram is not None
    return {at: block.statistics.histogram[i] for at, i in places(run, block).items()}


def ratio(run: Run, record: StepRecord, at: Place) -> float:
    """Returns the update ratio of a parameter as the rules see it."""
    history = History(run.sites)
    history.observe(StepView(record, history.current_layout()))
    assert history.ratio is not None
    name = next(site.name for site in run.sites if site.signal == "weight" and place(run, site) == at)
    return float(history.ratio[history.layout.parameters.index(name)])


def nulls(run: Run, record: StepRecord, signal: str) -> frozenset[str]:
    """Returns the columns of a signal's affine layers that are null, "units" for all of its counts per unit."""
    block = record.block(signal)
    if block is None:
        return frozenset({"everything"})
    columns = {name for name in Statistics.__slots__ if getattr(block.statistics, name) is None}
    if signal in PARAMETER_SIGNALS:
        return frozenset(columns)
    if block.units is None:
        return frozenset(columns | {"units"})
    affine = list(places(run, block).values())
    return frozenset(
        columns | {name for name in UnitCounts.__slots__ if (getattr(block.units, name)[affine] == NULL).all()}
    )


def _given(record: StepRecord, signal: str, column: str) -> bool:
    block = record.block(signal)
    return block is not None and getattr(block.statistics, column) is not None
