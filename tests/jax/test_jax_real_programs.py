"""Real programs with two added lines: right names and no complaint when healthy, the right layer named when not."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flax import linen

import gradwatch
from gradwatch.findings import Finding
from tests.jax import real_programs as programs
from tests.jax import stacked_programs

Program = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """A program with its layers in order of use, some of its parameters, and its fault.

    Attributes:
        fault: arguments that plant it.
        kind, layer: what it is to be called.
        advice: a word of the first advice.
    """

    program: Program
    layers: tuple[str, ...]
    parameters: frozenset[str]
    fault: dict[str, Any]
    kind: str
    layer: str
    advice: str


CASES = {
    "linen": Case(
        programs.linen_loop,
        ("Dense_0", "Dense_1", "Dense_2", "Dense_3"),
        frozenset({"Dense_0.kernel", "Dense_3.bias"}),
        {"depth": 12, "activation": linen.sigmoid},
        "vanishing",
        "Dense_0",
        "initialisation",
    ),
    "nnx": Case(
        programs.nnx_loop,
        ("stem", "norm", "root.linear", "head"),
        frozenset({"stem.kernel", "norm.scale", "root.linear.bias"}),
        {"guarded": False},
        "nonfinite",
        "root.linear",
        "sqrt",
    ),
    "equinox": Case(
        programs.equinox_loop,
        ("embed", "cell", "head"),
        frozenset({"embed.weight", "cell.weight_hh", "cell.bias_n", "head.bias"}),
        {"cut": True},
        "disconnected",
        "embed",
        "output of embed",
    ),
    "optax": Case(
        programs.optax_loop,
        ("dense_0", "dense_1", "dense_2", "dense_3"),
        frozenset({"dense_0.kernel", "dense_3.bias"}),
        {"mislabelled": "dense_2"},
        "frozen",
        "dense_2",
        "label",
    ),
    "stax": Case(
        programs.stax_loop,
        ("[0]", "[2]", "[4]"),
        frozenset({"[0].0", "[2].1", "[4].0"}),
        {"rate": 30.0},
        "update-too-large",
        "[2]",
        "learning rate",
    ),
    "haiku": Case(
        programs.haiku_loop,
        ("mlp.linear_0", "mlp.linear_1", "layer_norm", "head"),
        frozenset({"mlp.linear_0.w", "mlp.linear_1.b", "layer_norm.offset", "head.w"}),
        {"cut": True},
        "disconnected",
        "mlp.linear_1",
        "output of mlp.linear_1",
    ),
    "stacked linen": Case(
        stacked_programs.linen_loop,
        ("stem", *(f"blocks.{i}.{part}" for i in range(3) for part in ("LayerNorm_0", "Dense_0")), "head"),
        frozenset({"blocks.0.Dense_0.kernel", "blocks.2.LayerNorm_0.scale", "head.kernel"}),
        {"depth": 12, "plain": True},
        "vanishing",
        "stem",
        "initialisation",
    ),
    "stacked nnx": Case(
        stacked_programs.nnx_loop,
        ("stem", *(f"blocks.{i}.{part}" for i in range(4) for part in ("norm", "linear")), "head"),
        frozenset({"blocks.0.linear.kernel", "blocks.3.norm.scale", "head.kernel"}),
        {"forgotten": 2},
        "frozen",
        "blocks.2.linear",
        "learning rate",
    ),
}


def recorded(program: Program, path: Path, **options: Any) -> gradwatch.Run:
    """Runs a program under watch; what was found while it ran equals what is found in its files."""
    step = program(gradwatch.watch(run=path, report=False, on_finding=lambda _: None), **options)
    step.watch.close()
    run = gradwatch.load(path)
    assert list(run.findings) == list(step.watch.findings)
    return run


def serious(findings: Any) -> list[Finding]:
    return [finding for finding in findings if finding.severity != "notice"]


@pytest.mark.parametrize("name", CASES)
def test_a_healthy_program_is_left_in_peace(name: str, tmp_path: Path) -> None:
    """Layers stand in order of use under dotted names, every step has loss and signals, and nothing is found."""
    case = CASES[name]
    run = recorded(case.program, tmp_path / "run")
    assert serious(run.findings) == []
    assert run.recording.sites.layers == case.layers
    for signal in ("gradient", "update", "weight"):
        frame = run.frame(signal)
        assert case.parameters <= set(frame["parameter"])
        assert set(frame["layer"]) == set(case.layers)
    losses = run.recording.step_tables[0].logged["loss"]
    assert len(losses) == len(run.recording.steps()) > 20
    assert losses[-10:].mean() < losses[:10].mean()


@pytest.mark.parametrize("name", CASES)
def test_a_planted_fault_is_named(name: str, tmp_path: Path) -> None:
    """The same program with one fault has one serious finding: its kind, the layer at fault, and what to do."""
    case = CASES[name]
    found = serious(recorded(case.program, tmp_path / "run", **case.fault).findings)
    assert [(finding.kind, finding.layer) for finding in found] == [(case.kind, case.layer)]
    assert case.advice in found[0].advice[0]
    assert found[0].first_step is not None
    assert found[0].first_step <= 3


def test_accumulation_is_healthy_where_sparse_samples_meet_no_update(tmp_path: Path) -> None:
    """MultiSteps of four, sampled at every 32nd step, on which it never applies an update: that is no standstill."""
    run = recorded(programs.optax_loop, tmp_path / "run", steps=340)
    assert serious(run.findings) == []


def test_the_injected_learning_rate_is_a_fact_of_the_step(tmp_path: Path) -> None:
    """The rate of each step is the schedule's, which moves on with each update that is applied."""
    run = recorded(programs.optax_loop, tmp_path / "run", steps=9, every=1)
    rates = run.recording.step_tables[0].facts["learning_rate"]
    assert rates == pytest.approx([1e-2 - step * 9e-3 / 200 for step in range(9)], rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_two_lines_are_added(name: str) -> None:
    """A program takes nothing of ours but the decorator, in one line above its jit."""
    source = inspect.getsource(CASES[name].program)
    assert len(re.findall(r"\bwatch\b", source)) == 2
    assert re.search(r"^ +@watch\n +@.*jit", source, re.MULTILINE)
