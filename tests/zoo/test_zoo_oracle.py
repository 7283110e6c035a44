"""The oracle on known mathematics, and on plants that do no harm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.zoo import harm
from tests.zoo.fault import Planted
from tests.zoo.oracle import rule, sound
from tests.zoo.recipe import Effect, Event, Recipe
from tests.zoo.recording import record
from tests.zoo.torch_program import TorchProgram
from tests.zoo.torch_trace import trace_of
from tests.zoo.trace import Trace

PLAIN = Recipe("torch", "plain", "digits", depth=8, width=24, rate=0.02, steps=40)


def slopes(trace: Trace) -> list[float]:
    """The change of log10 rms of the gradient by the outputs, per layer from the loss down, at the first step."""
    found = [math.log10(trace.deltas[layer][0].rms) for layer in trace.chain[:-1]]
    return [below - above for below, above in itertools.pairwise(found)]


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("framework", ["torch", "nnx"])
def test_linear_chain_grows_by_its_gain(framework: str, gain: float) -> None:
    """In a chain of orthogonal weights times a, the gradient grows by exactly a per layer, in both frameworks."""
    recipe = Recipe(framework, "plain", "digits", 8, 24, activation="linear", init="orthogonal", gain=gain, steps=1)
    assert slopes(record(recipe)) == pytest.approx([math.log10(gain)] * 6, abs=1e-4)


@pytest.mark.parametrize("radius", [0.5, 0.98, 1.02, 1.5])
def test_orthogonal_recurrence_grows_by_its_radius(radius: float) -> None:
    """With a recurrent weight of rho times an orthogonal one, and states near 0, a step back in time costs rho."""
    recipe = Recipe("torch", "rnn", "digits", 8, 16, activation="tanh", recurrent=radius, input_scale=1e-6, steps=1)
    program = TorchProgram(recipe)
    with torch.no_grad():
        for name, parameter in program.model.named_parameters():
            if "bias" in name:
                parameter.zero_()
    rows = trace_of(program).deltas
    ratios = [rows[f"cell@{t}"][0].rms / rows[f"cell@{t + 1}"][0].rms for t in range(7)]
    assert ratios == pytest.approx([radius] * 7, rel=1e-4)


def chi(variance: float) -> float:
    """Chi of tanh at the fixed point of the length map, by a sum over a fine grid (Schoenholz 2017)."""
    z = np.linspace(-8, 8, 4001)
    density = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    q = 1.0
    for _ in range(500):
        q = variance * float(density @ np.tanh(math.sqrt(q) * z) ** 2)
    return variance * float(density @ (1 - np.tanh(math.sqrt(q) * z) ** 2) ** 2)


@pytest.mark.parametrize("sigma", [0.8, 1.5, 2.0])
def test_deep_tanh_follows_chi(sigma: float) -> None:
    """The slope of a deep tanh net is half the logarithm of chi, over layers at the fixed point, mean of ten seeds."""
    found = []
    for seed in range(10):
        gain = sigma / math.sqrt(2)
        recipe = Recipe("torch", "plain", "digits", 24, 200, activation="tanh", gain=gain, steps=1, batch=32, seed=seed)
        found.append(float(np.mean(slopes(record(recipe))[8:18])))
    error = float(np.std(found)) / math.sqrt(len(found))
    # A finite width adds terms of order depth / width, which 3 / 200 bounds.
    assert abs(np.mean(found) - 0.5 * math.log10(chi(sigma**2))) <= 3 * error + 3 / 200


def test_lost_and_growing_signals_are_ruled_by_the_gain() -> None:
    """The same chain is confirmed as vanishing at a gain of 0.3, as exploding at 5, and not at all at 1."""
    twin = replace(PLAIN, init="he")
    reasons = {}
    for kind, gain in (("vanishing", 0.3), ("exploding", 5.0), ("vanishing", 1.0), ("exploding", 1.0)):
        planted = Planted(replace(twin, gain=gain), twin, tuple(range(7)))
        reasons[kind, gain] = rule(kind, planted, record(planted.sick), record(planted.twin)).reason
    assert reasons["vanishing", 0.3] == reasons["exploding", 5.0] == ""
    assert reasons["vanishing", 1.0] == "no mark of vanishing"
    assert reasons["exploding", 1.0] == "no mark of exploding"


HARMLESS: dict[str, tuple[str, Recipe, Callable[[Recipe], Recipe]]] = {
    "a large weight before a norm": (
        "exploding",
        replace(PLAIN, norm="layer"),
        lambda r: replace(r, gains=((3, 30.0),)),
    ),
    "a clip under Adam": ("clipping", replace(PLAIN, optimizer="adam", rate=2e-3), lambda r: replace(r, clip=1e-2)),
    "a small loss under Adam": (
        "vanishing",
        replace(PLAIN, optimizer="adam", rate=2e-3),
        lambda r: replace(r, loss_weight=1e-3),
    ),
    "a bias that kills nothing": ("dead-units", PLAIN, lambda r: replace(r, bias=((2, -0.1),))),
    "a batch like the others": ("spike", PLAIN, lambda r: replace(r, events=(Event(20, "inputs", size=1.1),))),
    "a factor of 1": ("exploding", PLAIN, lambda r: replace(r, effects=(Effect(3, "scale", 0, 1.0),))),
    "a rate one and a half times as high": ("update-too-large", PLAIN, lambda r: replace(r, rate=1.5 * r.rate)),
    "scaled inputs before a norm": ("plumbing", replace(PLAIN, norm="layer"), lambda r: replace(r, input_scale=3.0)),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_plants_that_do_no_harm_are_rejected(name: str) -> None:
    """A change that looks like a fault and costs nothing is no case."""
    kind, twin, plant = HARMLESS[name]
    planted = Planted(plant(twin), twin, (2, 3), 20 if kind == "spike" else 0)
    assert sound(twin, record(twin)) == ""
    assert not rule(kind, planted, record(planted.sick), record(twin)).confirmed


def test_a_twin_that_does_not_learn_is_no_measure() -> None:
    """Without a twin that learns, no plant is confirmed, however broken the run."""
    twin = replace(PLAIN, rate=0.0)
    planted = Planted(replace(twin, events=(Event(10, "nan"),)), twin, (0,), 10)
    assert rule("nonfinite", planted, record(planted.sick), record(twin)).reason == "twin: it does not learn"


def test_an_onset_is_the_step_of_the_plant() -> None:
    """A missing value in the inputs, or biases that kill a layer, are dated by the record, not by the plant."""
    for kind, event in (("nonfinite", Event(17, "nan")), ("dead-units", Event(17, "bias", 2, -80.0))):
        planted = Planted(replace(PLAIN, events=(event,)), PLAIN, (2,), 17)
        ruling = rule(kind, planted, record(planted.sick), record(PLAIN))
        assert (ruling.reason, ruling.onset) == ("", 17)


def test_rows_leave_out_what_is_not_finite() -> None:
    """Statistics of a row are over finite elements, also where squares overflow; the others are counted."""
    from tests.zoo.trace import row

    found = row(np.array([3.0, np.nan, -4.0, np.inf, 0.0, 0.0]))
    assert (found.n, found.l2, found.absmax, found.zeros, found.nonfinite) == (4, 5.0, 4.0, 0.5, 2)
    assert row(np.array([3e200, 4e200])).l2 == pytest.approx(5e200)
    assert row(np.array([3e200, 4e200, np.nan])).nonfinite == 1
    assert harm.first_nonfinite(Trace(("a",), losses=[1.0, math.inf])) == 1
