"""Steps as their authors write them, with each framework's own jit: right names, true numbers, untouched training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

from tests.jax.capturing import Captured, capture
from tests.jax.programs import data, norm, same

STEPS = 4


def target(x: jax.Array) -> jax.Array:
    return jnp.sin(x.sum(-1, keepdims=True))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.LayerNorm()(linen.relu(linen.Dense(8)(x)))
        return linen.Dense(1)(x)


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.List([nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 8, rngs=rngs)])
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = nnx.relu(block(x))
        y: jax.Array = self.head(self.dropout(self.norm(x)))
        return y


class EquinoxNet(eqx.Module):
    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        first, second = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(1, 8, key=first)
        self.head = eqx.nn.Linear(8, 1, key=second)

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden, _ = jax.lax.scan(lambda h, v: (self.cell(v[None], h), None), jnp.zeros(8), x)
        return self.head(hidden)


def linen_state() -> TrainState:
    net = LinenNet()
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    state: TrainState = TrainState.create(  # type: ignore[no-untyped-call]
        apply_fn=net.apply, params=net.init(jax.random.key(0), data())["params"], tx=tx
    )
    return state


@jax.jit
def linen_step(state: TrainState, x: jax.Array) -> tuple[TrainState, jax.Array]:
    def loss_fn(params: Any) -> jax.Array:
        return jnp.mean(jnp.square(state.apply_fn({"params": params}, x) - target(x)))

    loss, gradients = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=gradients), loss  # type: ignore[no-untyped-call]


def train_linen(step: Callable[..., Any]) -> Any:
    state = linen_state()
    for i in range(STEPS):
        state, _ = step(state, data(seed=i))
    return state.params


def nnx_loss(model: NnxNet, x: jax.Array) -> Any:
    return jnp.mean(jnp.square(model(x) - target(x)))


@nnx.jit
def nnx_step(model: NnxNet, optimizer: nnx.Optimizer[Any], x: jax.Array) -> Any:
    loss: jax.Array
    loss, gradients = nnx.value_and_grad(nnx_loss)(model, x)
    optimizer.update(model, gradients)
    return loss


def train_nnx(step: Callable[..., Any]) -> Any:
    model = NnxNet(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    for i in range(STEPS):
        step(model, optimizer, data(seed=i))
    return nnx.state(model, nnx.Param)


equinox_optimizer = optax.adam(1e-3)


def equinox_loss(model: EquinoxNet, x: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(jax.vmap(model)(x) - target(x)))


@eqx.filter_jit(donate="all-except-first")
def equinox_step(x: jax.Array, model: EquinoxNet, state: Any) -> tuple[EquinoxNet, Any, jax.Array]:
    loss, gradients = eqx.filter_value_and_grad(equinox_loss)(model, x)
    updates, state = equinox_optimizer.update(gradients, state, eqx.filter(model, eqx.is_array))
    return eqx.apply_updates(model, updates), state, loss


def train_equinox(step: Callable[..., Any]) -> Any:
    model = EquinoxNet(jax.random.key(0))
    state = equinox_optimizer.init(eqx.filter(model, eqx.is_array))
    for i in range(STEPS):
        model, state, _ = step(data(seed=i), model, state)
    return eqx.filter(model, eqx.is_array)


Train = Callable[[Callable[..., Any]], Any]
FRAMEWORKS: dict[str, tuple[Callable[..., Any], Train, list[str], tuple[str, ...]]] = {
    "linen": (
        linen_step,
        train_linen,
        ["Dense_0.bias", "Dense_0.kernel", "LayerNorm_0.bias", "LayerNorm_0.scale", "Dense_1.bias", "Dense_1.kernel"],
        ("Dense_0", "LayerNorm_0", "Dense_1"),
    ),
    "nnx": (
        nnx_step,
        train_nnx,
        [f"{layer}.{name}" for layer in ("blocks.0", "blocks.1", "head") for name in ("bias", "kernel")]
        + ["norm.bias", "norm.scale"],
        ("blocks.0", "blocks.1", "norm", "head"),
    ),
    "equinox": (
        equinox_step,
        train_equinox,
        ["cell.weight_ih", "cell.weight_hh", "cell.bias", "cell.bias_n", "head.weight", "head.bias"],
        ("cell", "head"),
    ),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_framework_keeps_its_names_and_its_training(framework: str) -> None:
    """Names are dotted paths, layers come in order of use, all signals arrive, parameters are bitwise the same."""
    step, train, names, layers = FRAMEWORKS[framework]
    with capture(step) as captured:
        watched = train(captured.step)
    assert same(watched, train(step))
    assert captured.notes == []
    assert sorted(captured.names) == sorted(names)
    assert captured.session.sites.layers == layers
    for signal in ("gradient", "update", "weight"):
        assert len(captured.series(signal, names[-1], "l2")) == STEPS
    last = {path[-2:]: leaf for path, leaf in _leaves(watched)}
    assert captured.series("weight", names[-1], "l2")[-1] == pytest.approx(
        norm(last[tuple(names[-1].split(".")[-2:])]), rel=1e-5
    )
    assert [len(record.logged) for record in captured.records] == [1] * STEPS


def _leaves(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    from gradwatch_jax.names import dotted, leaves

    return [(tuple(dotted(path).split(".")), leaf) for path, leaf in leaves(tree)]


def roles(captured: Captured) -> dict[str, str]:
    return {site.name: site.role for site in captured.session.sites if site.signal == "gradient"}


def test_roles_are_told_from_names_and_shapes() -> None:
    """Kernels are weights, scales and everything in a norm layer are norms, the rest are biases."""
    with capture(linen_step) as captured:
        train_linen(captured.step)
    assert roles(captured) == {
        "Dense_0.bias": "bias",
        "Dense_0.kernel": "weight",
        "LayerNorm_0.bias": "norm",
        "LayerNorm_0.scale": "norm",
        "Dense_1.bias": "bias",
        "Dense_1.kernel": "weight",
    }


def test_a_stax_style_loop_has_names_by_position() -> None:
    """Nameless pairs of weight and bias are called by their place: layer [0], parameters [0].0 and [0].1."""
    params: Any = [(jnp.eye(4), jnp.zeros(4)), (), (jnp.ones((4, 1)), jnp.zeros(1))]

    def loss_fn(params: Any, x: jax.Array) -> jax.Array:
        (first, offset), _, (last, shift) = params
        return jnp.mean(jnp.square(jnp.tanh(x @ first + offset) @ last + shift - target(x)))

    @jax.jit
    def step(params: Any, x: jax.Array) -> Any:
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss_fn)(params, x))

    with capture(step) as captured:
        for i in range(3):
            params = captured.step(params, data(seed=i))
    assert captured.session.sites.layers == ("[0]", "[2]")
    assert roles(captured) == {"[0].0": "weight", "[0].1": "bias", "[2].0": "weight", "[2].1": "bias"}
    assert len(captured.series("update", "[0].0", "l2")) == 3


def test_haiku_paths_become_dotted() -> None:
    """``mlp/~/linear_0`` and ``w`` are called mlp.linear_0.w."""
    params: Any = {"mlp/~/linear_0": {"w": jnp.eye(4), "b": jnp.zeros(4)}}

    @jax.jit
    def step(params: Any, x: jax.Array) -> Any:
        def loss_fn(p: Any) -> jax.Array:
            return jnp.mean(jnp.square(x @ p["mlp/~/linear_0"]["w"] + p["mlp/~/linear_0"]["b"]))

        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss_fn)(params))

    with capture(step) as captured:
        captured.step(params, data())
    assert roles(captured) == {"mlp.linear_0.w": "weight", "mlp.linear_0.b": "bias"}


def first_pass(framework: str) -> tuple[jax.Array, jax.Array]:
    """Returns the output of the last layer at the first step, and the gradient of the loss there."""
    x = data(seed=0)
    if framework == "linen":
        state = linen_state()
        out = state.apply_fn({"params": state.params}, x)
    elif framework == "nnx":
        out = NnxNet(nnx.Rngs(0))(x)
    else:
        out = jax.vmap(EquinoxNet(jax.random.key(0)))(x)
    return out, jax.grad(lambda y: jnp.mean(jnp.square(y - target(x))))(out)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_activations_and_their_gradients_are_true(framework: str) -> None:
    """Outputs and inputs of layers and the gradients at them are those of the forward pass, over all examples."""
    step, train, _, layers = FRAMEWORKS[framework]
    with capture(step) as captured:
        train(captured.step)
    last = layers[-1]
    out, gradient = first_pass(framework)
    assert captured.series("activation", last, "l2")[0] == pytest.approx(norm(out), rel=1e-5)
    assert captured.series("activation_gradient", last, "l2")[0] == pytest.approx(norm(gradient), rel=1e-5)
    assert captured.series("activation_gradient", last, "absmax")[0] == pytest.approx(
        float(jnp.abs(gradient).max()), rel=1e-5
    )
    assert captured.series("activation", last, "n")[0] == out.size
    names = {site.name for site in captured.session.sites if site.signal == "activation"}
    assert any(name.endswith(":input") for name in names)
    if framework == "linen":  # the input of Dense_1 is the output of LayerNorm_0, read once
        assert names == {"Dense_0", "Dense_0:input", "LayerNorm_0", "LayerNorm_0:input", "Dense_1"}
    if framework != "equinox":  # its cell stands in a scan over time
        assert set(layers) <= names
    assert len(captured.series("activation", last, "l2")) == STEPS


def test_a_low_precision_model_keeps_its_bits_when_its_layers_are_read() -> None:
    """Reading activations changes no bit of a network that computes in bfloat16."""

    def trained(watched: bool) -> Any:
        model = nnx.Sequential(
            nnx.Linear(4, 32, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)),
            jax.nn.gelu,
            nnx.LayerNorm(32, dtype=jnp.bfloat16, rngs=nnx.Rngs(1)),
            nnx.Linear(32, 1, dtype=jnp.bfloat16, rngs=nnx.Rngs(2)),
        )
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

        @nnx.jit
        def step(model: Any, optimizer: Any, x: Any) -> Any:
            loss, gradients = nnx.value_and_grad(nnx_loss)(model, x)
            optimizer.update(model, gradients)
            return loss

        with capture(step) as captured:
            for i in range(24):
                (captured.step if watched else step)(model, optimizer, data(64, seed=i))
        return nnx.state(model, nnx.Param)

    assert same(trained(True), trained(False))
