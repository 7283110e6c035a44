"""The rule on mistakes of the training loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch.analyze import analyze
from gradwatch.causes import merge
from gradwatch.findings import Finding
from gradwatch.record import ACTIVATION_SIGNALS, Block, Site, StepRecord
from gradwatch.recording import from_records
from gradwatch.statistics import concatenate, measure
from tests.core.chain import Chain
from tests.core.regression import Array, Change, Regression, kinds


class Seen(Regression):
    """The same regression with the outputs and the gradients at them, and what came in."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for signal in ACTIVATION_SIGNALS:
            for name in ("last", "last:input"):
                self.sites.add(Site(signal, name, "last", "Linear"))

    def record(self, record: StepRecord, inputs: Array, above: Array, output: Array) -> StepRecord:
        """Returns a record with activations."""
        rows = {"activation": {"last": output, "last:input": inputs}, "activation_gradient": {"last": above}}
        blocks = [
            Block(
                signal,
                np.array([self.sites.find(signal, name) for name in values], dtype=np.uint32),
                concatenate([measure(value) for value in values.values()]),
            )
            for signal, values in rows.items()
        ]
        return replace(record, blocks=(*record.blocks, *blocks))


def squared(targets: float, scale: float = 1.0, factor: float = 1.0) -> list[Finding]:
    """Returns the findings of a single layer under Adam, with inputs and targets of these scales."""
    run = Seen(single=True, adam=True, rate=2e-3, targets=targets)
    run.inputs = run.inputs * scale
    found = []
    for record in run.records():
        inputs = run.inputs[:32]
        output = inputs @ run.weights["last.weight"]
        error = output - run.outputs[:32]
        above = factor * 2 * error / error.size
        loss = factor * float(np.mean(error**2))
        found.append(run.record(replace(record, logged={"loss": loss}), inputs, above, output))
    return [f for f in analyze(from_records(found, run.sites)).findings if f.kind == "plumbing"]


def summing(clear: bool) -> Change:
    """Returns a change that sums up gradients unless they are cleared."""
    total: dict[str, Array] = {}

    def add(_: int, gradients: dict[str, Array]) -> dict[str, Array]:
        for name, gradient in gradients.items():
            total[name] = gradient + (0 if clear else total.get(name, 0))
        return dict(total)

    return add


def test_gradients_that_add_up_are_named_by_the_bias() -> None:
    """The gradient of each bias is that of the step before plus what this backward pass adds, at five steps."""
    random = np.random.default_rng(0)
    added = random.normal(size=(40, 8))
    for clear, found in ((False, ["plumbing"]), (True, [])):
        chain = Chain()
        records = [chain.record(step, gradient=1e-2 * (1 + step)) for step in range(40)]
        summed = added if clear else np.cumsum(added, axis=0)
        records = [_with_sums(chain, record, summed[record.step], added[record.step]) for record in records]
        assert kinds(chain.analyze(records)) == found


def _with_sums(chain: Chain, record: StepRecord, bias: Array, delta: Array) -> StepRecord:
    """Sets the sums of the biases' gradients and of the gradients at the outputs."""
    blocks = []
    for block in record.blocks:
        names = [chain.sites[int(site)].name for site in block.sites]
        sums = block.statistics.sum.copy()
        for i, name in enumerate(names):
            layer = int(name.removeprefix("fc").split(".")[0].split(":")[0])
            if block.signal == "gradient" and name.endswith("bias"):
                sums[i] = bias[layer]
            elif block.signal == "activation_gradient" and name == f"fc{layer}":
                sums[i] = delta[layer]
        blocks.append(replace(block, statistics=replace(block.statistics, sum=sums)))
    return replace(record, blocks=tuple(blocks))


def _fresh(run: Regression, change: Change) -> list[StepRecord]:
    """Returns records that hold the gradients before a change, which the updates alone know."""
    found: list[StepRecord] = []
    latest: list[dict[str, Array]] = [{}]

    def noted(step: int, gradients: dict[str, Array]) -> dict[str, Array]:
        latest[0] = gradients
        return change(step, gradients)

    run.change = noted
    for record in run.records():
        block = next(block for block in record.blocks if block.signal == "gradient")
        measured = concatenate([measure(gradient) for gradient in latest[0].values()])
        others = tuple(other for other in record.blocks if other is not block)
        found.append(replace(record, blocks=(replace(block, statistics=measured), *others)))
    return found


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("clear", [True, False])
def test_sums_kept_beside_the_gradients_show_in_the_updates(momentum: float, clear: bool) -> None:
    """Where only fresh gradients are captured, updates that change by the new gradient alone give it away."""
    run = Regression(rate=2e-3 * (1 - momentum), momentum=momentum)
    findings = analyze(from_records(_fresh(run, summing(clear)), run.sites)).findings
    assert any("never cleared" in finding.title for finding in findings) != clear


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
def test_momentum_is_no_sum(momentum: float, seed: int) -> None:
    """Heavy balls forget, however slowly."""
    run = Regression(rate=0.05 * (1 - momentum), momentum=momentum, seed=seed)
    assert [finding for finding in run.analyze().findings if finding.kind == "plumbing"] == []


def norms(passes: bool, units: float = 1.3, examples: int = 64) -> list[Finding]:
    """Returns the findings of a chain in which every other layer is batch normalisation."""
    chain = Chain()
    for signal in ACTIVATION_SIGNALS:
        for i in (1, 3, 5):
            at = chain.sites.find(signal, f"fc{i}")
            assert at is not None
            chain.sites._sites[at] = replace(chain.sites[at], role="BatchNorm1d")
    sizes = [units if i % 2 == 0 or passes else 1.0 for i in range(8)]
    sizes = [sizes[i - 1] if passes and i in (1, 3, 5) else sizes[i] for i in range(8)]
    records = [chain.record(step, output=sizes, weight=1.0, update=1e-4) for step in range(40)]
    records = [_examples(record, examples) for record in records]
    return [finding for finding in chain.analyze(records).findings if finding.kind == "plumbing"]


def _examples(record: StepRecord, examples: int) -> StepRecord:
    n = examples * 64
    blocks = [
        replace(block, statistics=replace(block.statistics, n=np.full_like(block.statistics.n, n)))
        if block.signal in ACTIVATION_SIGNALS
        else block
        for block in record.blocks
    ]
    return replace(record, blocks=tuple(blocks))


def test_normalisation_that_passes_its_inputs_is_in_evaluation_mode() -> None:
    """Outputs of the size of the inputs, where statistics of the batch would make them 1."""
    (finding,) = norms(passes=True)
    assert (finding.severity, finding.layer, finding.first_step) == ("warning", None, 0)
    assert "train()" in finding.advice[0]
    assert norms(passes=False) == []
    assert norms(passes=True, units=1.0) == []


def test_normalisation_over_one_example_is_named() -> None:
    """As many outputs as units of the last layer are one example."""
    (finding,) = norms(passes=False, examples=1)
    assert "single example" in finding.title


@pytest.mark.parametrize("factor", [1.0, 32 * 4])
def test_targets_of_another_scale_are_named(factor: float) -> None:
    """Gradient and loss of a squared error, mean or sum, give the error that small outputs leave."""
    (finding,) = squared(targets=3000.0, factor=factor)
    assert "targets" in finding.title
    assert squared(targets=1.0, factor=factor) == []


def test_raw_inputs_are_a_notice_while_training_learns() -> None:
    """Inputs a hundred times too large are named with their layer; normalised ones are not."""
    (finding,) = squared(targets=100.0, scale=100.0)
    assert (finding.layer, finding.severity) == ("last", "notice")
    assert squared(targets=1.0, scale=1.0) == []


def test_a_step_taken_twice_is_a_notice() -> None:
    """Gradients that equal those of the step before in every digit were not computed anew."""
    for same, found in ((True, ["plumbing"]), (False, [])):
        chain = Chain()
        records = [chain.record(step, gradient=1e-2 * (1 + 0.01 * (step // (2 if same else 1)))) for step in range(40)]
        assert [finding.kind for finding in chain.analyze(records).findings] == found


def test_beside_damage_a_mistake_is_its_cause() -> None:
    """The damage keeps its place and takes the mistake as its cause, which becomes a notice."""
    mistake = Finding("plumbing", "warning", "t", None, (), 0, 9, (), "Nothing clears gradients.", (), "")
    damage = Finding("update-too-large", "critical", "t", "fc1", ("fc1",), 3, 9, (), "The rate is too high.", (), "")
    found = merge([damage, mistake])
    assert [(finding.kind, finding.severity) for finding in found] == [
        ("update-too-large", "critical"),
        ("plumbing", "notice"),
    ]
    assert found[0].cause == "Nothing clears gradients. The rate is too high."
    assert merge([replace(damage, severity="notice"), mistake])[1].severity == "warning"
    assert merge([mistake]) == (mistake,)
