"""What is captured of a step, wherever in it the gradient is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax, value_and_grad

from gradwatch.testing import check_adapter
from gradwatch_jax import JaxAdapter
from tests.jax.capturing import capture
from tests.jax.programs import data, loss_fn, mlp, norm, norms, optimizer, same, train, train_step

MADE_BEFORE = jax.value_and_grad(loss_fn)
jitted_gradient = jax.jit(MADE_BEFORE)


def applied(params: Any, state: Any, loss: Any, gradients: Any) -> tuple[Any, Any, Any]:
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, loss


def descended(params: Any, gradients: Any) -> Any:
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)


def imported_by_name(params: Any, state: Any, x: Any) -> Any:
    return applied(params, state, *value_and_grad(loss_fn)(params, x))


def made_at_module_level(params: Any, state: Any, x: Any) -> Any:
    return applied(params, state, *MADE_BEFORE(params, x))


def nested_jit(params: Any, state: Any, x: Any) -> Any:
    return applied(params, state, *jitted_gradient(params, x))


def in_cond(params: Any, state: Any, x: Any) -> Any:
    loss, gradients = lax.cond(x.sum() > -1e9, lambda: MADE_BEFORE(params, x), lambda: (jnp.zeros(()), params))
    return applied(params, state, loss, gradients)


def with_remat(params: Any, state: Any, x: Any) -> Any:
    return applied(params, state, *jax.value_and_grad(jax.checkpoint(loss_fn))(params, x))


def of_vmap(params: Any, state: Any, x: Any) -> Any:
    def mean(p: Any) -> jax.Array:
        return jax.vmap(loss_fn, (None, 0))(p, x).mean()

    return applied(params, state, *jax.value_and_grad(mean)(params))


PROGRAMS: list[Callable[..., Any]] = [
    train_step,
    imported_by_name,
    made_at_module_level,
    nested_jit,
    in_cond,
    with_remat,
    of_vmap,
]


@pytest.mark.parametrize("compiled", [True, False], ids=["jit", "plain"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_gradients_are_found_and_true_wherever_they_are_taken(program: Callable[..., Any], compiled: bool) -> None:
    """Each gradient, update and weight equals a second computation, and the training is bitwise what it was."""
    nested_before = jitted_gradient(mlp(), data())
    step = jax.jit(program) if compiled else program
    with capture(step) as captured:
        watched = train(captured.step, 6)
    assert same(watched, train(step, 6))
    assert captured.notes == []
    for name in ("Dense_0.kernel", "Dense_1.bias", "Dense_2.kernel"):
        for signal in ("gradient", "update", "weight"):
            expected = [row[f"{signal} {name}"] for row in norms(6)]
            assert captured.series(signal, name, "l2") == pytest.approx(expected, rel=2e-4), (signal, name)
    losses = [record.logged["loss"] for record in captured.records]
    assert losses[0] == pytest.approx(float(loss_fn(mlp(), data(seed=0))), rel=1e-6)
    assert len(losses) == 6
    assert nested_before is not None


def test_the_default_schedule_is_kept_with_one_program() -> None:
    """Signals come on the steps the schedule names, and the step is traced once for all of them."""
    traced = []

    @jax.jit
    def step(params: Any, state: Any, x: Any) -> Any:
        traced.append(1)
        return train_step(params, state, x)

    with capture(step) as captured:
        train(captured.step, 70)
    assert len(traced) == 1
    recording = captured.recording
    gradient, update = recording.panel("gradient", 0), recording.panel("update", 0)
    assert gradient is not None
    assert update is not None
    assert gradient.steps.tolist() == list(range(70))
    assert update.steps.tolist() == [*range(64), 64]
    full = [record.step for record in captured.records if record.blocks[0].statistics.histogram is not None]
    assert full == [*range(16), *range(16, 70, 8)]


def test_every_leaves_the_other_steps_alone() -> None:
    """With every=3 there are records of every third step only, with all parameter signals."""
    with capture(jax.jit(train_step), every=3) as captured:
        train(captured.step, 10)
    captured_steps = [record.step for record in captured.records if record.blocks]
    assert captured_steps == [0, 3, 6, 9]
    assert captured.series("gradient", "Dense_0.kernel", "l2")[1] == pytest.approx(
        norms(4)[3]["gradient Dense_0.kernel"], rel=1e-4
    )
    assert {block.signal for block in captured.records[-1].blocks} == {"gradient", "update", "weight"}


def test_micro_batches_are_pooled_and_labelled() -> None:
    """A scan over micro-batches gives one row a step that pools their gradients, and says so."""

    @jax.jit
    def step(params: Any, state: Any, x: Any) -> Any:
        def body(total: Any, part: Any) -> Any:
            loss, gradients = jax.value_and_grad(loss_fn)(params, part)
            return jax.tree.map(jnp.add, total, gradients), loss

        total, losses = lax.scan(body, jax.tree.map(jnp.zeros_like, params), x.reshape(4, 4, -1))
        return applied(params, state, losses.mean(), jax.tree.map(lambda g: g / 4, total))

    with capture(step) as captured:
        train(captured.step, 3)
    block = captured.records[0].block("gradient")
    assert block is not None
    assert block.stage == "micro-batch"
    parts = [jax.grad(loss_fn)(mlp(), part)["Dense_0"]["kernel"] for part in data(seed=0).reshape(4, 4, -1)]
    found = captured.series("gradient", "Dense_0.kernel", "l2")
    assert found[0] == pytest.approx(norm(jnp.stack(parts)), rel=1e-5)
    assert len(found) == 3
    assert len(captured.series("update", "Dense_0.kernel", "l2")) == 3


@pytest.mark.parametrize("length", [5, 100])
def test_a_scan_over_steps_gives_its_last_steps(length: int) -> None:
    """Steps inside one call are numbered on; of a long call the last 64 are there, and no update is invented."""

    @jax.jit
    def many(params: Any, state: Any, batches: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            params, state, loss = train_step(carry[0], carry[1], x)
            return (params, state), loss

        return lax.scan(body, (params, state), batches)

    batches = jnp.stack([data(seed=i) for i in range(length)])
    params = mlp()
    with capture(many) as captured:
        carry, losses = captured.step(params, optimizer.init(params), batches)
        captured.step(*carry, batches)
    first = list(range(max(0, length - 64), length))
    assert [record.step for record in captured.records] == [*first, *(length + i for i in first)]
    assert [r.logged["loss"] for r in captured.records[: len(first)]] == pytest.approx(losses[first[0] :].tolist())
    if length == 5:
        expected = [row["gradient Dense_0.kernel"] for row in norms(5)]
        assert captured.series("gradient", "Dense_0.kernel", "l2")[:5] == pytest.approx(expected, rel=1e-4)
    assert captured.recording.panel("update", 0) is None


def test_a_loop_of_unknown_length_is_one_step_and_says_so() -> None:
    """Of a while loop over steps the last gradient of each call is recorded, with a sentence."""

    @jax.jit
    def many(params: Any, state: Any, x: Any, n: Any) -> Any:
        def body(carry: Any) -> Any:
            i, params, state = carry
            params, state, _ = train_step(params, state, x)
            return i + 1, params, state

        return lax.while_loop(lambda carry: carry[0] < n, body, (0, params, state))

    params = mlp()
    with capture(many) as captured:
        captured.step(params, optimizer.init(params), data(), 3)
    assert [record.step for record in captured.records] == [0]
    assert len(captured.notes) == 1
    assert "length is not known" in captured.notes[0]


def test_gradients_per_example_are_left_alone_and_said() -> None:
    """A step with vmap(grad) trains bitwise as before; one sentence says that its gradients were not recorded."""

    @jax.jit
    def step(params: Any, state: Any, x: Any) -> Any:
        losses, gradients = jax.vmap(jax.value_and_grad(loss_fn), (None, 0))(params, x[:, None])
        return applied(params, state, losses.mean(), jax.tree.map(lambda g: g.mean(0), gradients))

    with capture(step) as captured:
        watched = train(captured.step, 4)
    assert same(watched, train(step, 4))
    assert len(captured.notes) == 1
    assert "per example" in captured.notes[0]


def test_an_inner_gradient_is_no_gradient_of_the_step() -> None:
    """A gradient penalty differentiates twice; only the outer gradient is a site."""

    @jax.jit
    def step(params: Any, state: Any, x: Any) -> Any:
        def penalised(p: Any) -> jax.Array:
            return loss_fn(p, x) + jnp.square(jax.grad(loss_fn, argnums=1)(p, x)).sum()

        return applied(params, state, *jax.value_and_grad(penalised)(params))

    with capture(step) as captured:
        train(captured.step, 3)
    assert sorted(captured.names) == sorted(f"Dense_{i}.{name}" for i in range(3) for name in ("bias", "kernel"))


def test_two_models_keep_their_names_apart() -> None:
    """Two models with the same layers are told apart by the names of the step's arguments."""

    @jax.jit
    def step(generator: Any, critic: Any, x: Any) -> Any:
        first = jax.grad(loss_fn)(generator, x)
        second = jax.grad(loss_fn)(critic, x)
        return descended(generator, first), descended(critic, second)

    one, two = mlp(), mlp()
    with capture(step) as captured:
        for _ in range(3):
            one, two = captured.step(one, two, data())
    assert {"generator.Dense_0.kernel", "critic.Dense_0.kernel"} <= set(captured.names)
    assert len(captured.series("update", "critic.Dense_1.bias", "l2")) == 3


def test_a_second_gradient_of_the_same_parameters_is_numbered() -> None:
    """A step that differentiates its parameters twice has two sites for each."""

    @jax.jit
    def step(params: Any, state: Any, x: Any) -> Any:
        first = jax.grad(loss_fn)(params, x)
        near = jax.tree.map(lambda p, g: p + 0.01 * g, params, first)
        return applied(params, state, *jax.value_and_grad(loss_fn)(near, x))

    with capture(step) as captured:
        train(captured.step, 2)
    assert "Dense_0.kernel#2" in captured.names
    assert len(captured.names) == 12


def test_returned_gradients_are_not_taken_for_parameters() -> None:
    """A step that returns clipped gradients has no update: what it returns never comes back as its parameters."""

    @jax.jit
    def step(params: Any, x: Any) -> Any:
        gradients = jax.grad(loss_fn)(params, x)
        return jax.tree.map(lambda g: g.clip(-0.1, 0.1), gradients)

    params = mlp()
    with capture(step) as captured:
        for _ in range(5):
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, captured.step(params, data()))
    assert captured.recording.panel("update", 0) is None
    assert len(captured.series("gradient", "Dense_0.kernel", "l2")) == 5
    assert len(captured.notes) == 1
    assert "does not go into the next call" in captured.notes[0]


def test_layers_come_in_order_of_use() -> None:
    """Layers are ordered as the forward pass uses them, not by name."""

    def reversed_loss(params: Any, x: jax.Array) -> jax.Array:
        for name in ("zeta", "alpha", "mid"):
            x = jnp.tanh(x @ params[name]["w"])
        return x.sum()

    @jax.jit
    def step(params: Any, x: Any) -> Any:
        gradients = jax.grad(jax.jit(reversed_loss))(params, x)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)

    params = {name: {"w": jnp.eye(4)} for name in ("alpha", "mid", "zeta")}
    with capture(step) as captured:
        captured.step(params, data())
    assert captured.session.sites.layers == ("zeta", "alpha", "mid")


def test_only_watched_layers_have_sites() -> None:
    """layers= leaves the rest out."""
    with capture(jax.jit(train_step), layers=lambda layer: layer == "Dense_1") as captured:
        train(captured.step, 2)
    assert sorted(captured.names) == ["Dense_1.bias", "Dense_1.kernel"]
    assert len(captured.series("update", "Dense_1.bias", "l2")) == 2


def test_a_second_batch_shape_goes_on_with_the_same_sites() -> None:
    """A retrace for another batch shape adds no site and loses no step."""
    params = mlp()
    state = optimizer.init(params)
    with capture(jax.jit(train_step)) as captured:
        for n in (16, 8, 16, 8):
            params, state, _ = captured.step(params, state, data(n))
    assert len(captured.names) == 6
    assert len(captured.series("gradient", "Dense_0.kernel", "l2")) == 4


def test_the_adapter_passes_the_check_for_adapters() -> None:
    """What third parties must satisfy, the JAX adapter satisfies."""
    state: dict[str, Any] = {"params": mlp(), "optimizer": optimizer.init(mlp())}
    adapter = JaxAdapter()
    step = jax.jit(train_step)
    decorated: list[Callable[..., Any]] = []

    def once() -> None:
        if not decorated:
            decorated.append(adapter.decorate(step))
        params, opt, _ = decorated[0](state["params"], state["optimizer"], data())
        state.update(params=params, optimizer=opt)

    recording = check_adapter(adapter, (step,), once, steps=70)
    assert {signal for signal, _ in recording.panels} == {"gradient", "update", "weight"}
