"""Traps and families: healthy runs that look sick train soundly, and the breadth that the zoo promises is there."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.zoo import harm
from tests.zoo.draw import generator, healthy
from tests.zoo.families import ALL, FAMILIES, LOOPS
from tests.zoo.faults import FAULTS
from tests.zoo.oracle import sound
from tests.zoo.recipe import Event, Recipe
from tests.zoo.recording import record
from tests.zoo.trace import Trace
from tests.zoo.traps import TRAPS, needs_torch, trapped

DIGITS = Recipe("torch", "mlp", "digits", 3, 24)
OWN = sorted(set(TRAPS) - set(LOOPS))


def soundly(trap: str, framework: str) -> tuple[Recipe, Trace]:
    """The first drawn run with a trap that the oracle finds sound, of six draws."""
    drawn = (healthy(generator("traps", framework, i), i) for i in itertools.count())
    met = (draw.base for draw in drawn if draw.trap == trap and draw.framework == framework)
    for recipe in itertools.islice(met, 6):
        trace = record(recipe)
        if not sound(recipe, trace):
            return recipe, trace
    raise AssertionError(f"none of six draws of {trap} is sound")


@pytest.mark.parametrize("trap", OWN)
def test_every_trap_can_be_trained_through(trap: str) -> None:
    """Each trap that lies not in every family's loop has sound runs in torch."""
    recipe, trace = soundly(trap, "torch")
    assert recipe.trap == trap
    assert trace.steps == recipe.steps


@pytest.mark.parametrize("trap", ["accumulate", "frozen-backbone", "nan-padding", "stochastic-depth"])
def test_traps_that_jax_writes_in_its_own_way_are_sound(trap: str) -> None:
    """Updates every second call, labels that keep leaves still, masked numbers and dropped blocks train in JAX."""
    assert not needs_torch(trap)
    family = "plain" if trap == "stochastic-depth" else "mlp"
    recipe = trapped(replace(DIGITS, framework="equinox", family=family, depth=4, trap=trap))
    trace = record(recipe)
    assert sound(recipe, trace) == ""
    steps = np.array([row.absmax for row in trace.updates["hidden.1.weight"]])
    still = {"accumulate": 0.5, "frozen-backbone": 1.0, "nan-padding": 0.0, "stochastic-depth": 0.2}[trap]
    assert np.mean(steps == 0) == pytest.approx(still, abs=0.15)


@pytest.mark.parametrize("family", ["cnn", "lstm", "vae"])
@pytest.mark.parametrize("framework", ["linen", "equinox"])
def test_families_train_in_jax(family: str, framework: str) -> None:
    """Convolutions, gated recurrences and sampled codes learn in JAX, through chains of torch's length."""
    options = {} if family == "cnn" else {"init": "default", "optimizer": "adam", "rate": 5e-3}
    recipe = Recipe(framework, family, "digits", 3, 12, activation="tanh", steps=30, **options)  # type: ignore[arg-type]
    trace = record(recipe)
    assert sound(recipe, trace) == ""
    torch_chain = record(replace(recipe, framework="torch", steps=1)).chain
    assert [layer.replace("_", ".") for layer in trace.chain] == list(torch_chain)


def test_a_spike_that_leaves_a_mark_is_not_survived() -> None:
    """The loss has to jump and to come back within ten steps, or the run counts neither as healthy nor as a trap."""
    calm = [1.0] * 30
    back, stays = [*calm, 5.0, 2.0, 1.0, *[0.9] * 27], [*calm, 5.0, *[3.0] * 29]
    assert harm.survived(Trace(("a",), losses=back), 30)
    assert not harm.survived(Trace(("a",), losses=stays), 30)
    recipe = replace(DIGITS, events=(Event(30, "inputs", size=1.001),))
    assert sound(recipe, record(recipe)) == "no spike to survive"


@pytest.mark.parametrize("kind", ["clipping", "oscillating", "dead-units"])
def test_kinds_of_the_loop_and_of_units_are_planted_widely(kind: str) -> None:
    """Each of these kinds is planted in three families and more, in torch and in every library of JAX."""
    for framework in ALL:
        found = {
            family
            for fault in FAULTS.values()
            if fault.kind == kind and framework in fault.frameworks
            for family in fault.families
            if framework in FAMILIES[family].frameworks
        }
        assert len(found) >= 3
