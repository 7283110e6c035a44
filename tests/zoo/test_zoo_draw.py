"""Draws: by their seed alone, by their id again, and of all sorts."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.findings import KINDS
from tests.zoo import case, halves
from tests.zoo.draw import Draw, faulty, generator, healthy
from tests.zoo.families import FAMILIES, hidden_layers
from tests.zoo.faults import FAULTS
from tests.zoo.oracle import MARKS
from tests.zoo.program import build
from tests.zoo.recipe import Recipe
from tests.zoo.recording import record
from tests.zoo.traps import TRAPS


def drawn(kind: str, seed: int) -> Draw:
    random = generator("tests", seed, kind)
    return faulty(kind, random, seed) if kind else healthy(random, seed)


def first(slot: case.Slot) -> Draw:
    """The first draw of a slot."""
    random = generator(slot.seed, slot.number, slot.kind, 0)
    return faulty(slot.kind, random, slot.turn) if slot.kind else healthy(random, slot.turn)


@given(st.sampled_from((*KINDS, "")), st.integers(0, 10**6))
def test_a_draw_is_made_again_by_its_seed_and_by_its_id(kind: str, seed: int) -> None:
    """The same seed draws the same case, and its id gives an equal draw with an equal recipe."""
    draw = drawn(kind, seed)
    assert drawn(kind, seed) == draw
    assert Draw.parse(str(draw)) == draw
    assert Draw.parse(str(draw)).base == draw.base


def test_a_text_that_is_no_id_is_refused() -> None:
    """An id with too few parts says how many it has."""
    with pytest.raises(ValueError, match="has 2 parts"):
        Draw.parse("torch/mlp")


@given(st.sampled_from(KINDS), st.integers(0, 10**6))
def test_a_plant_changes_the_recipe_by_the_draw_alone(kind: str, seed: int) -> None:
    """Planting twice gives the same recipes; the sick one differs from its twin, and culprits lie in the chain."""
    draw = drawn(kind, seed)
    once, again = (FAULTS[draw.fault].plant(draw.base, generator(draw)) for _ in range(2))
    assert once == again
    assert once.sick != once.twin
    assert all(0 <= position <= hidden_layers(once.twin) for position in once.culprits)


def test_every_kind_has_several_plants_and_a_mark() -> None:
    """All fourteen kinds are planted in two ways and more, in several families."""
    ways = collections.Counter(fault.kind for fault in FAULTS.values())
    assert set(ways) == set(KINDS) == set(MARKS)
    assert min(ways.values()) >= 2
    for kind in KINDS:
        assert len({family for fault in FAULTS.values() if fault.kind == kind for family in fault.families}) >= 2


def test_every_trap_exists() -> None:
    """Every trap that a family names changes something, or is read by the networks."""
    named = {trap for family in FAMILIES.values() for trap in family.traps} - {""}
    assert named <= set(TRAPS)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_chain_is_as_long_as_the_family_says(family: str) -> None:
    """Positions in the chain mean the same to plants and to networks."""
    draw = next(d for d in (drawn("", seed) for seed in range(10_000)) if d.family == family and d.framework == "torch")
    assert len(build(draw.base).chain) == hidden_layers(draw.base) + 1


@pytest.mark.parametrize("framework", ["torch", "linen"])
def test_a_run_is_decided_by_its_recipe(framework: str) -> None:
    """Training twice gives the same losses to the last bit; another seed gives others."""
    recipe = Recipe(framework, "mlp", "wine", 3, 16, steps=8)
    first = record(recipe).losses
    assert record(recipe).losses == first
    other = Recipe(framework, "mlp", "wine", 3, 16, steps=8, seed=1)
    assert not np.allclose(record(other).losses, first)


def test_a_half_has_all_sorts_and_its_parts_make_it_whole() -> None:
    """Ten slots a kind and over eighty healthy ones; twenty parts hold every slot once, and no kind twice."""
    slots = halves.slots("dev")
    counts = collections.Counter(slot.kind for slot in slots)
    assert all(counts[kind] >= 10 for kind in KINDS)
    assert counts[""] >= 80
    parts = [halves.part(slots, i, 20) for i in range(1, 21)]
    assert sorted(itertools.chain(*parts), key=lambda slot: slot.number) == slots
    for part in parts:
        kinds = [slot.kind for slot in part if slot.kind]
        assert len(kinds) == len(set(kinds)) == 7


def test_families_and_plants_take_turns() -> None:
    """The healthy slots of a half start with every family four times and more, those of a kind with all its plants."""
    slots = halves.slots("dev")
    drawn_of = {slot.number: first(slot) for slot in slots}
    families = collections.Counter(drawn_of[slot.number].family for slot in slots if not slot.kind)
    assert min(families[family] for family in FAMILIES) >= 4
    for kind in KINDS:
        plants = {drawn_of[slot.number].fault for slot in slots if slot.kind == kind}
        assert plants == {name for name, fault in FAULTS.items() if fault.kind == kind}


def test_a_changed_rule_draws_another_test_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test half is drawn from the tree hash of the rules, and not at all while they are not committed."""
    answers = {"status": "", "rev-parse": "0123abcd"}
    monkeypatch.setattr(halves, "_git", lambda *words: answers[words[0]])
    one = halves.slots("test")
    answers["rev-parse"] = "4567abcd"
    assert halves.slots("test") != one
    answers["status"] = " M gradwatch/rules/exploding.py"
    with pytest.raises(RuntimeError, match="not committed"):
        halves.slots("test")
