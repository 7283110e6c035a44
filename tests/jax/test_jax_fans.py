"""How many weights an output sums over, by the names of linen, NNX, haiku and Equinox."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx
from hypothesis import given
from hypothesis import strategies as st

from gradwatch_jax.names import leaves, parameter

IN, OUT, HEADS = 6, 4, 2

sizes = st.integers(1, 9)


def fans(tree: Any) -> dict[str, int | None]:
    return {found.name: found.fan_in for found in (parameter(path, array) for path, array in leaves(tree))}


def of_linen(layer: linen.Module, *inputs: Any, name: str = "layer") -> dict[str, int | None]:
    shapes = jax.eval_shape(layer.init, jax.random.key(0), *inputs)
    return fans({"params": {name: shapes["params"]}})


def of_nnx(layer: Callable[[nnx.Rngs], nnx.Module]) -> dict[str, int | None]:
    return fans({"layer": nnx.state(nnx.eval_shape(lambda: layer(nnx.Rngs(0))), nnx.Param)})


def of_haiku(layer: Callable[[], Any], inputs: Any) -> dict[str, int | None]:
    def call(x: Any) -> Any:
        return layer()(x)

    return fans(jax.eval_shape(hk.transform(call).init, jax.random.key(0), inputs))


def of_equinox(layer: Callable[[Any], Any]) -> dict[str, int | None]:
    return fans({"layer": eqx.filter(eqx.filter_eval_shape(layer, jax.random.key(0)), _is_array)})


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


IMAGE = jnp.ones((1, 8, 8, IN))
LINEN: dict[str, tuple[linen.Module, Any, int]] = {
    "dense": (linen.Dense(OUT), IMAGE, IN),
    "conv": (linen.Conv(OUT, (3, 5)), IMAGE, 15 * IN),
    "groups": (linen.Conv(OUT, (3, 5), feature_group_count=2), IMAGE, 15 * IN // 2),
    "depthwise": (linen.Conv(IN, (3, 5), feature_group_count=IN), IMAGE, 15),
    "transposed": (linen.ConvTranspose(OUT, (3, 5)), IMAGE, 15 * IN),
    "embedding": (linen.Embed(50, OUT), jnp.zeros(3, jnp.int32), 1),
}
NNX: dict[str, tuple[Callable[[nnx.Rngs], nnx.Module], int]] = {
    "linear": (lambda rngs: nnx.Linear(IN, OUT, rngs=rngs), IN),
    "conv": (lambda rngs: nnx.Conv(IN, OUT, (3, 5), rngs=rngs), 15 * IN),
    "depthwise": (lambda rngs: nnx.Conv(IN, IN, (3, 5), feature_group_count=IN, rngs=rngs), 15),
    "transposed": (lambda rngs: nnx.ConvTranspose(IN, OUT, (3, 5), rngs=rngs), 15 * IN),
    "embedding": (lambda rngs: nnx.Embed(50, OUT, rngs=rngs), 1),
}
HAIKU: dict[str, tuple[Callable[[], Any], Any, int]] = {
    "linear": (lambda: hk.Linear(OUT), IMAGE, IN),
    "conv": (lambda: hk.Conv2D(OUT, (3, 5)), IMAGE, 15 * IN),
    "groups": (lambda: hk.Conv2D(OUT, (3, 5), feature_group_count=2), IMAGE, 15 * IN // 2),
    "depthwise": (lambda: hk.DepthwiseConv2D(1, (3, 5)), IMAGE, 15),
    "transposed": (lambda: hk.Conv2DTranspose(OUT, (3, 5)), IMAGE, 15 * IN),
    "embedding": (lambda: hk.Embed(50, OUT), jnp.zeros(3, jnp.int32), 1),
}
EQUINOX: dict[str, tuple[Callable[[Any], Any], int]] = {
    "linear": (lambda key: eqx.nn.Linear(IN, OUT, key=key), IN),
    "conv": (lambda key: eqx.nn.Conv2d(IN, OUT, (3, 5), key=key), 15 * IN),
    "groups": (lambda key: eqx.nn.Conv2d(IN, OUT, (3, 5), groups=2, key=key), 15 * IN // 2),
    "depthwise": (lambda key: eqx.nn.Conv2d(IN, IN, (3, 5), groups=IN, key=key), 15),
    "transposed": (lambda key: eqx.nn.ConvTranspose2d(IN, OUT, (3, 5), key=key), 15 * IN),
}


@pytest.mark.parametrize("kind", LINEN)
def test_linen(kind: str) -> None:
    """Linen's layers have their outputs last."""
    layer, inputs, expected = LINEN[kind]
    (weight,) = (fan for name, fan in of_linen(layer, inputs).items() if not name.endswith("bias"))
    assert weight == expected


@pytest.mark.parametrize("kind", NNX)
def test_nnx(kind: str) -> None:
    """The layers of NNX have their outputs last."""
    layer, expected = NNX[kind]
    (weight,) = (fan for name, fan in of_nnx(layer).items() if not name.endswith("bias"))
    assert weight == expected


@pytest.mark.parametrize("kind", HAIKU)
def test_haiku(kind: str) -> None:
    """Haiku's layers have their outputs last, those of transposed convolutions before the inputs."""
    layer, inputs, expected = HAIKU[kind]
    (weight,) = (fan for name, fan in of_haiku(layer, inputs).items() if not name.endswith(".b"))
    assert weight == expected


@pytest.mark.parametrize("kind", EQUINOX)
def test_equinox(kind: str) -> None:
    """Equinox's layers have their outputs first, and their biases of convolutions, [out, 1, 1], have no fan-in."""
    layer, expected = EQUINOX[kind]
    assert of_equinox(layer)["layer.weight"] == expected
    assert of_equinox(layer)["layer.bias"] is None


def test_the_heads_of_attention_are_outputs() -> None:
    """The projections to the heads sum over the inputs, that from the heads over all heads' features, in both."""
    attention = of_linen(linen.MultiHeadDotProductAttention(HEADS, qkv_features=8, out_features=5), IMAGE, IMAGE)
    own = of_nnx(
        lambda rngs: nnx.MultiHeadAttention(HEADS, IN, qkv_features=8, out_features=5, decode=False, rngs=rngs)
    )
    for found in (attention, own):
        fan = {name.split(".")[-2]: value for name, value in found.items() if name.endswith("kernel")}
        assert fan == {"query": IN, "key": IN, "value": IN, "out": 8}


def test_recurrent_cells() -> None:
    """Gates are outputs: the weights of each sum over the inputs or over the state."""
    linen_cell = of_linen(linen.GRUCell(OUT), jnp.ones((1, OUT)), jnp.ones((1, IN)))
    assert {name: fan for name, fan in linen_cell.items() if name.endswith("kernel")} == {
        **{f"layer.i{gate}.kernel": IN for gate in "rzn"},
        **{f"layer.h{gate}.kernel": OUT for gate in "rzn"},
    }
    equinox_cell = of_equinox(lambda key: eqx.nn.GRUCell(IN, OUT, key=key))
    assert (equinox_cell["layer.weight_ih"], equinox_cell["layer.weight_hh"]) == (IN, OUT)


def test_a_table_known_by_its_layers_name() -> None:
    """An Equinox table has the same array as a linear layer; in a layer that is called an embedding it is looked up."""
    table = jax.ShapeDtypeStruct((50, OUT), jnp.float32)
    assert fans({"token_embedding": {"weight": table}, "patch_embed": {"kernel": table}}) == {
        "token_embedding.weight": 1,
        "patch_embed.kernel": 50,
    }


@given(inputs=sizes, outputs=sizes, kernel=st.lists(sizes, max_size=3))
def test_fan_in_times_outputs_is_the_size(inputs: int, outputs: int, kernel: list[int]) -> None:
    """For matrices and convolutions of any size, by each convention."""
    last, first = (*kernel, inputs, outputs), (outputs, inputs, *kernel)
    for own, shape in (("kernel", last), ("w", last), ("w_h", last), ("weight", first), ("weight_hh", first)):
        (fan,) = fans({"layer": {own: jax.ShapeDtypeStruct(shape, jnp.float32)}}).values()
        assert fan is not None
        assert fan * outputs == math.prod(shape)


@given(shape=st.lists(st.integers(0, 3), max_size=3), own=st.sampled_from(["bias", "b", "scale", "W", "0", "kernels"]))
def test_other_names_say_nothing(shape: list[int], own: str) -> None:
    """An array by any other name, a vector and an empty array have no fan-in."""
    assert set(fans({"layer": {own: jax.ShapeDtypeStruct(tuple(shape), jnp.float32)}}).values()) == {None}
    for known in ("kernel", "w", "weight", "embedding"):
        for vector in ((), (3,), (0, 3), (3, 0)):
            assert set(fans({"layer": {known: jax.ShapeDtypeStruct(vector, jnp.float32)}}).values()) == {None}
