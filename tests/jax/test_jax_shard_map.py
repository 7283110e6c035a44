"""Steps under shard_map and pmap: what the optimizer applied is recorded, or one sentence says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.jax.processes import run


@pytest.fixture(scope="module")
def plain() -> Any:
    return run("-m", "tests.jax.shard_map_devices", "plain")


@pytest.fixture(scope="module")
def spread() -> Any:
    return run("-m", "tests.jax.shard_map_devices", "spread")


def assert_true_numbers(found: Any) -> None:
    """One row a layer and step, of the size of the gradient that the parameters moved by, and the same bits."""
    assert found["same"]
    assert found["notes"] == []
    assert found["stages"] == ["unscaled"]
    assert found["shapes"] == {"first": [8, 64], "second": [64, 8], "bias": [8]}
    for name, size in (("first", 512), ("second", 512), ("bias", 8)):
        applied = [step[name] for step in found["applied"]]
        assert found["l2"][name] == pytest.approx(applied, rel=1e-4)
        assert found["n"][name] == [size] * len(applied)
    assert found["histogram"] == [1032] * len(found["applied"])
    assert None not in found["losses"]


@pytest.mark.parametrize("how", ["before", "inside", "nested jit", "differentiated outside"])
def test_a_shard_map_gives_the_gradient_that_is_applied(plain: Any, how: str) -> None:
    """Made before watching began or inside the step, summed by the user or by JAX: one true number a layer."""
    assert_true_numbers(plain[how])


def test_updates_are_recorded_around_a_shard_map(plain: Any) -> None:
    """The update of every parameter is what the step added to it."""
    for name, found in plain["before"]["updates"].items():
        assert found == pytest.approx([0.1 * step[name] for step in plain["before"]["applied"]], rel=1e-5)
    assert len(plain["before"]["updates"]) == 3


def test_training_steps_in_a_loop_around_a_shard_map_are_steps(plain: Any) -> None:
    """A scan over training steps under shard_map gives a step for each, bitwise trained as without the watch."""
    found = plain["steps in a loop"]
    assert found["same"]
    assert found["notes"] == []
    assert [len(rows) for rows in found["l2"].values()] == [4, 4, 4]
    assert found["l2"]["first"][0] == pytest.approx(plain["before"]["l2"]["first"][0], rel=1e-5)


def test_gradients_that_differ_between_shards_are_labelled(plain: Any) -> None:
    """Networks that train apart are pooled, labelled as micro-batches, and one sentence says so."""
    found = plain["alone"]
    assert found["same"]
    assert found["stages"] == ["micro-batch"]
    assert found["n"]["first"] == [2048, 2048]
    assert found["l2"]["first"] == pytest.approx([step["first"] for step in found["applied"]], rel=1e-4)
    (note,) = found["notes"]
    assert "differ between the shards" in note
    assert "jax.lax.pmean" in note


def test_a_loop_inside_a_shard_map_is_told_of_the_ring(plain: Any) -> None:
    """What cannot leave a shard_map is not recorded, the training is untouched, and one sentence names the ring."""
    found = plain["loop inside"]
    assert found["same"]
    assert found["l2"] == {}
    (note,) = found["notes"]
    assert "gradwatch_jax.optax_ring()" in note


def test_a_compiled_function_on_several_devices_in_a_plain_step_is_told_of_jit(plain: Any) -> None:
    """Memory on one device would stop a program on four: nothing is recorded, and one sentence says to jit the step."""
    found = plain["compiled function in a plain step"]
    assert found["same"]
    assert found["l2"] == {}
    (note,) = found["notes"]
    assert "put jax.jit around the whole step" in note


def test_a_failure_inside_a_shard_map_costs_the_capture_only(plain: Any) -> None:
    """When what shall leave cannot, the user's own shard_map is traced again and trains to the same bits."""
    assert plain["broken"]["same"]
    assert len(plain["broken"]["failures"]) == 1


def test_a_pmap_runs_unwatched_and_is_told_of_the_ring(plain: Any) -> None:
    """A watched pmap trains to the same bits with its donation, and one sentence names what can be watched."""
    found = plain["pmap"]
    assert found["same"]
    assert found["donated"]
    assert found["names"] == []
    (note,) = found["notes"]
    assert "made by jax.pmap" in note
    assert "gradwatch_jax.optax_ring()" in note


@pytest.mark.parametrize("how", ["tensor parallel, checked", "tensor parallel", "gathered", "not compiled"])
def test_spread_parameters_give_one_true_number_a_layer(spread: Any, how: str) -> None:
    """Parameters split over a model's axis, or kept in parts and gathered where used; also in a step without jit."""
    assert_true_numbers(spread[how])


def test_no_spread_gradient_is_gathered_out_of_a_shard_map(spread: Any) -> None:
    """The watched program gathers no more elements than the user's own."""
    bare, watched = spread["gathers"]
    assert watched <= bare
