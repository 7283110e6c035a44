"""Stacked layers: one row for each slice that a scan takes, with the slice's own name, shape and statistics."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.jax.capturing import capture
from tests.jax.programs import data, norm, same

DEPTH = 3


def stacked() -> Any:
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "blocks": {"w": jax.random.normal(keys[0], (DEPTH, 4, 4)), "b": jnp.zeros((DEPTH, 4))},
        "bare": jax.random.normal(keys[1], (DEPTH, 4)),
        "head": jax.random.normal(keys[2], (4, 1)),
    }


def loss_fn(params: Any, x: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    x, _ = jax.lax.scan(lambda h, p: (jnp.tanh(h @ p["w"] + p["b"]), None), x.astype(dtype), params["blocks"])
    x, _ = jax.lax.scan(lambda h, row: (h + row, None), x, params["bare"])
    return jnp.mean(jnp.square((x @ params["head"]).astype(jnp.float32)))


@jax.jit
def step(params: Any, x: jax.Array) -> Any:
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss_fn)(params, x))


def test_each_slice_has_its_own_numbers() -> None:
    """Gradient, update and weight of a slice are those of the slice; its site has the slice's shape and role."""
    params = stacked()
    gradients = jax.grad(loss_fn)(params, data())
    with capture(step) as captured:
        new = captured.step(params, data())
        captured.step(new, data())
    for i in range(DEPTH):
        assert captured.series("gradient", f"blocks.{i}.w", "l2")[0] == pytest.approx(
            norm(gradients["blocks"]["w"][i]), rel=1e-5
        )
        moved = new["blocks"]["b"][i] - params["blocks"]["b"][i]
        assert captured.series("update", f"blocks.{i}.b", "l2")[0] == pytest.approx(norm(moved), rel=1e-5)
        assert captured.series("weight", f"blocks.{i}.w", "l2")[0] == pytest.approx(
            norm(new["blocks"]["w"][i]), rel=1e-5
        )
    sites = {site.name: site for site in captured.session.sites if site.signal == "gradient"}
    weight, bias = sites["blocks.1.w"], sites["blocks.1.b"]
    assert (weight.layer, weight.role, weight.shape, weight.numel, weight.fan_in) == (
        "blocks.1",
        "weight",
        (4, 4),
        16,
        4,
    )
    assert (bias.layer, bias.role, bias.shape) == ("blocks.1", "bias", (4,))


def test_layers_stand_in_the_order_of_the_loop() -> None:
    """All of one block comes before the next one, and what comes behind the loop behind all of them."""
    with capture(step) as captured:
        captured.step(stacked(), data())
    assert captured.session.sites.layers == ("blocks.0", "blocks.1", "blocks.2", "bare", "head")


def test_taking_slices_apart_changes_no_bit() -> None:
    """Parameters after some steps are bitwise those of the step by itself."""
    watched = bare = stacked()
    with capture(step) as captured:
        for i in range(4):
            watched = captured.step(watched, data(seed=i))
    for i in range(4):
        bare = step(bare, data(seed=i))
    assert same(watched, bare)


def test_a_table_that_is_walked_along_is_no_stack() -> None:
    """Rows without a matrix among them, such as positions, stay one parameter."""
    with capture(step) as captured:
        captured.step(stacked(), data())
    assert [name for name in captured.names if "bare" in name] == ["bare"]


def test_a_cast_of_all_parameters_hides_neither_order_nor_stacks() -> None:
    """Computing in bfloat16, with a cast of the whole tree before the first layer, changes no name and no order."""

    @jax.jit
    def low(params: Any, x: jax.Array) -> Any:
        gradients = jax.grad(loss_fn)(params, x, jnp.bfloat16)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)

    with capture(low) as captured:
        captured.step(stacked(), data())
    assert captured.session.sites.layers == ("blocks.0", "blocks.1", "blocks.2", "bare", "head")


def test_one_layer_of_a_stack_can_be_watched() -> None:
    """The choice of layers is made among the slices."""
    with capture(step, layers=lambda name: name == "blocks.1") as captured:
        captured.step(captured.step(stacked(), data()), data())
    assert sorted(captured.names) == ["blocks.1.b", "blocks.1.w"]
    assert len(captured.series("update", "blocks.1.w", "l2")) == 2


def test_a_layer_with_a_bias_is_no_embedding() -> None:
    """A projection that is called after an embedding counts as a weight; a table without a bias does not."""
    params = {
        "patch_embed": {"weight": jnp.ones((4, 4)), "bias": jnp.zeros(4)},
        "embed": {"weight": jnp.ones((4, 4))},
    }

    @jax.jit
    def embedding_step(params: Any, x: jax.Array) -> Any:
        def loss(p: Any) -> jax.Array:
            patch = p["patch_embed"]
            return jnp.mean((x @ patch["weight"] + patch["bias"]) @ p["embed"]["weight"])

        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

    with capture(embedding_step) as captured:
        captured.step(params, data())
    found = {site.name: (site.role, site.fan_in) for site in captured.session.sites if site.signal == "gradient"}
    assert found["patch_embed.weight"] == ("weight", 4)
    assert found["embed.weight"] == ("embedding", 1)
