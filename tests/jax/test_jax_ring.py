"""The optax ring: what it holds inside optax's wrappers, what it leaves untouched, and how it reaches a run."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
import pytest
from flax import serialization

import gradwatch
from gradwatch import plugins
from gradwatch.errors import GradwatchError
from gradwatch.recorder import Recorder
from gradwatch.statistics import Statistics, measure
from gradwatch.testing import check_adapter
from gradwatch_jax.optax_drain import Drained, drain
from gradwatch_jax.optax_state import find, restore, strip
from gradwatch_jax.optax_transform import RingState, optax_ring
from gradwatch_jax.optax_watch import RingAdapter, Rings

Arrays = dict[str, npt.NDArray[np.float64]]

STEPS = 6
RATE = 0.1
NAMES = ("Dense_0.bias", "Dense_0.kernel", "Dense_1.bias", "Dense_1.kernel")


def network() -> Any:
    """A tanh network of two layers."""
    rng = np.random.default_rng(0)
    layer = {
        name: {"bias": rng.normal(size=o).astype(np.float32), "kernel": rng.normal(size=(i, o)).astype(np.float32)}
        for name, i, o in (("Dense_0", 4, 4), ("Dense_1", 4, 4))
    }
    return jax.tree.map(jnp.asarray, layer)


def batches(n: int = STEPS) -> npt.NDArray[np.float32]:
    """Returns n batches of 5 examples, shape [n, 5, 4]."""
    return np.random.default_rng(1).normal(size=(n, 5, 4)).astype(np.float32)


def loss_fn(params: Any, x: Any) -> Any:
    """Mean square of the outputs."""
    hidden = jnp.tanh(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    return jnp.mean((hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]) ** 2)


def by_hand(params: Any, x: npt.NDArray[np.float32]) -> Arrays:
    """Returns the gradient by the chain rule, in float64, by name."""
    w0, b0, w1, b1 = (
        np.asarray(params[layer][own], dtype=np.float64)
        for layer in ("Dense_0", "Dense_1")
        for own in ("kernel", "bias")
    )
    x64 = x.astype(np.float64)
    hidden = np.tanh(x64 @ w0 + b0)
    delta = 2 * (out := hidden @ w1 + b1) / out.size
    inner = (delta @ w1.T) * (1 - hidden**2)
    return {
        "Dense_0.bias": inner.sum(0),
        "Dense_0.kernel": x64.T @ inner,
        "Dense_1.bias": delta.sum(0),
        "Dense_1.kernel": hidden.T @ delta,
    }


def step_of(tx: Any) -> Any:
    """Returns an unjitted train step of this optimizer."""

    def step(params: Any, opt_state: Any, x: Any) -> tuple[Any, Any, Any]:
        loss, gradient = jax.value_and_grad(loss_fn)(params, x)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return step


def train(tx: Any, xs: Any = None) -> tuple[Any, Any, list[Arrays]]:
    """Trains; returns parameters, optimizer state, and each step's gradient by hand."""
    params, step, gradients = network(), jax.jit(step_of(tx)), []
    opt_state = tx.init(params)
    for x in batches() if xs is None else xs:
        gradients.append(by_hand(params, x))
        params, opt_state, _ = step(params, opt_state, x)
    return params, opt_state, gradients


def check(drained: Drained, expected: list[Arrays], tolerance: float = 1e-5) -> None:
    """Compares a ring with arrays of each of its steps."""
    assert len(drained.steps) == len(expected)
    for found, arrays in zip(drained.steps, expected, strict=True):
        for i, parameter in enumerate(drained.parameters):
            check_row(found.take(np.array([i])), measure(arrays[parameter.name]), tolerance)


def check_row(found: Statistics, expected: Statistics, tolerance: float) -> None:
    """Compares the lean statistics of one array."""
    np.testing.assert_allclose(found.l2, expected.l2, rtol=tolerance)
    np.testing.assert_allclose(found.absmax, expected.absmax, rtol=tolerance)
    np.testing.assert_allclose(found.sum, expected.sum, atol=tolerance * 10 * float(expected.l2[0]))
    assert (found.n, found.nan, found.inf) == (expected.n, expected.nan, expected.inf)


def clipped(gradients: list[Arrays], limit: float) -> list[Arrays]:
    """Clips each step's gradient by its global norm."""
    norms = [np.sqrt(sum(np.sum(g**2) for g in step.values())) for step in gradients]
    return [
        {name: g * min(1.0, limit / norm) for name, g in step.items()}
        for step, norm in zip(gradients, norms, strict=True)
    ]


def scaled(gradients: list[Arrays], factor: float) -> list[Arrays]:
    return [{name: g * factor for name, g in step.items()} for step in gradients]


def same_tree(first: Any, second: Any) -> bool:
    return bool(jax.tree.structure(first) == jax.tree.structure(second))  # type: ignore[operator]


def only(gradients: list[Arrays], layer: str) -> list[Arrays]:
    return [{name: g for name, g in step.items() if name.startswith(layer)} for step in gradients]


def test_a_ring_alone_holds_the_gradient_of_every_step() -> None:
    """The rows are the statistics of hand-computed gradients, under the dotted names of the parameters."""
    _, opt_state, gradients = train(optax.chain(optax_ring(), optax.sgd(RATE)))
    (drained,) = drain(opt_state)
    assert tuple(parameter.name for parameter in drained.parameters) == NAMES
    assert drained.parameters[1].layer == "Dense_0"
    assert (drained.signal, drained.stage, drained.first, drained.overwritten) == ("gradient", "unscaled", 0, 0)
    check(drained, gradients)


def test_rings_around_clipping_hold_gradients_before_it_and_the_final_updates() -> None:
    """In ``chain(ring, clip, sgd, ring)`` the first holds unclipped gradients and the last what is applied."""
    ring = optax_ring(stage="before clipping")
    tx = optax.chain(ring, optax.clip_by_global_norm(0.5), optax.sgd(RATE), optax_ring())
    _, opt_state, gradients = train(tx)
    before, after = drain(opt_state)
    assert (before.signal, before.stage, after.signal) == ("gradient", "before clipping", "update")
    check(before, gradients)
    check(after, scaled(clipped(gradients, 0.5), -RATE))


def test_a_ring_behind_clipping_holds_clipped_gradients() -> None:
    """A ring between clipping and the optimizer holds gradients, not updates."""
    tx = optax.chain(optax.chain(optax.clip_by_global_norm(0.5), optax_ring()), optax.sgd(RATE))
    _, opt_state, gradients = train(tx)
    (drained,) = drain(opt_state)
    assert drained.signal == "gradient"
    check(drained, clipped(gradients, 0.5))


def test_inside_multi_steps_a_ring_holds_accumulated_gradients() -> None:
    """Six micro-batches in threes make two rows, each of the mean gradient."""
    tx = optax.MultiSteps(optax.chain(optax_ring(), optax.sgd(RATE)), 3)
    _, opt_state, gradients = train(tx)
    (drained,) = drain(opt_state)
    means = [{name: np.mean([g[name] for g in gradients[i : i + 3]], axis=0) for name in NAMES} for i in (0, 3)]
    check(drained, means)


def test_outside_multi_steps_a_ring_holds_every_micro_gradient() -> None:
    """Six micro-batches make six rows."""
    tx = optax.chain(optax_ring(), optax.MultiSteps(optax.sgd(RATE), 3).gradient_transformation())
    _, opt_state, gradients = train(tx)
    check(drain(opt_state)[0], gradients)


def test_a_masked_ring_holds_the_unmasked_arrays() -> None:
    """Names and rows are those of the arrays that the mask lets through."""
    mask = {"Dense_0": {"bias": False, "kernel": True}, "Dense_1": {"bias": False, "kernel": True}}
    _, opt_state, gradients = train(optax.chain(optax.masked(optax_ring(), mask), optax.sgd(RATE)))
    (drained,) = drain(opt_state)
    assert [parameter.name for parameter in drained.parameters] == ["Dense_0.kernel", "Dense_1.kernel"]
    check(drained, gradients)


def test_multi_transform_has_one_ring_a_group() -> None:
    """Each group's ring holds its own parameters."""
    groups = {name: optax.chain(optax_ring(), optax.sgd(RATE)) for name in ("a", "b")}
    labels = {"Dense_0": "a", "Dense_1": "b"}
    _, opt_state, gradients = train(optax.multi_transform(groups, labels))
    first, second = drain(opt_state)
    assert {parameter.layer for parameter in first.parameters} == {"Dense_0"}
    check(first, only(gradients, "Dense_0"))
    check(second, only(gradients, "Dense_1"))


def poisoned() -> npt.NDArray[np.float32]:
    """Returns batches of which the third has one NaN."""
    xs = batches()
    xs[2, 0, 0] = np.nan
    return xs


def test_outside_apply_if_finite_a_ring_holds_the_step_that_is_not_finite() -> None:
    """The row of the NaN step is there, with its counts."""
    tx = optax.chain(optax_ring(), optax.apply_if_finite(optax.sgd(RATE), 5))
    _, opt_state, gradients = train(tx, poisoned())
    (drained,) = drain(opt_state)
    check(drained, gradients)
    assert drained.steps[2].nan.sum() > 0


def test_inside_apply_if_finite_the_step_that_is_not_finite_is_lost() -> None:
    """As the docstring warns, five of six steps are there and none has a NaN."""
    tx = optax.apply_if_finite(optax.chain(optax_ring(), optax.sgd(RATE)), 5)
    (drained,) = drain(train(tx, poisoned())[1])
    assert drained.count == STEPS - 1
    assert sum(int(step.nan.sum()) for step in drained.steps) == 0


@pytest.mark.parametrize("inside", [True, False])
def test_injected_hyperparameters_change_nothing(inside: bool) -> None:
    """A ring inside or beside ``inject_hyperparams`` holds every gradient."""

    def chain(learning_rate: Any) -> Any:
        return optax.chain(optax_ring(), optax.sgd(learning_rate))

    beside = optax.chain(optax_ring(), optax.inject_hyperparams(optax.sgd)(learning_rate=RATE))
    tx = optax.inject_hyperparams(chain)(learning_rate=RATE) if inside else beside
    _, opt_state, gradients = train(tx)
    check(drain(opt_state)[0], gradients)


def test_params_can_be_mapped_in_a_state_with_a_ring() -> None:
    """``optax.tree_map_params`` finds the optimizer's arrays and leaves the ring as it is."""
    tx = optax.chain(optax_ring(), optax.adam(RATE))
    opt_state = train(tx)[1]
    mapped = optax.tree_map_params(tx, lambda x: x * 0, opt_state)
    np.testing.assert_array_equal(mapped[0].floats, opt_state[0].floats)
    assert float(jnp.sum(jnp.abs(mapped[1][0].mu["Dense_0"]["kernel"]))) == 0


def test_a_scan_over_steps_keeps_the_last_ones() -> None:
    """After 6 steps in one compiled call a ring of 4 holds the last 4, and says which size would have held all."""
    tx = optax.chain(optax_ring(4), optax.sgd(RATE))
    params, step, gradients = network(), step_of(tx), train(optax.sgd(RATE))[2]

    @jax.jit
    def run(params: Any, opt_state: Any, xs: Any) -> Any:
        return jax.lax.scan(lambda c, x: (step(*c, x)[:2], None), (params, opt_state), xs)[0]

    (drained,) = drain(run(params, tx.init(params), batches())[1])
    assert (drained.first, drained.count, drained.overwritten, drained.needed) == (2, 6, 2, 6)
    check(drained, gradients[2:])


def test_only_new_rows_are_drained() -> None:
    """With the last result, drain returns what came since and nothing twice."""
    tx = optax.chain(optax_ring(8), optax.sgd(RATE))
    params, step = network(), jax.jit(step_of(tx))
    opt_state, last = tx.init(params), None
    numbers: list[int] = []
    for i, x in enumerate(batches(7)):
        params, opt_state, _ = step(params, opt_state, x)
        if i in (0, 3, 6):
            last = drain(opt_state, last)
            numbers.extend(range(last[0].first, last[0].first + len(last[0].steps)))
            assert last[0].overwritten == 0
    assert numbers == list(range(7))
    assert drain(opt_state, last)[0].steps == ()


def test_an_array_without_an_update_is_null() -> None:
    """Where an update is missing or of another shape than the parameter, its row is null and the others stand."""
    ring = optax_ring(2)
    state = ring.init({"a": jnp.ones(3), "b": jnp.ones(2), "c": jnp.ones(4)})
    _, state = ring.update({"a": jnp.full(3, 2.0), "b": None, "c": jnp.ones(5)}, state)
    (drained,) = drain(state)
    np.testing.assert_allclose(drained.steps[0].l2, [np.sqrt(12), np.nan, np.nan])


def test_integer_empty_and_half_precision_arrays() -> None:
    """Arrays without gradients have no row; bfloat16 is measured with the promised range."""
    params = {"a": jnp.ones(3, jnp.int32), "b": jnp.zeros((0, 2)), "c": jnp.full(1000, 1e-30, jnp.bfloat16)}
    ring = optax_ring(2)
    updates, state = jax.jit(ring.update)(params, ring.init(params))
    (drained,) = drain(state)
    assert [parameter.name for parameter in drained.parameters] == ["c"]
    check_row(drained.steps[0], measure(np.asarray(params["c"], dtype=np.float64)), 1e-5)
    jax.tree.map(np.testing.assert_array_equal, updates, params)


def test_members_of_a_mapped_step_give_the_first_as_local() -> None:
    """Where rings of several devices or members differ, the first one's rows are given, and the stage says so."""
    ring = optax_ring(2)
    updates = {"a": jnp.arange(6.0).reshape(2, 3)}
    state = jax.vmap(ring.init)(updates)
    _, state = jax.jit(jax.vmap(ring.update))(updates, state)
    (drained,) = drain(state)
    assert drained.stage == "local"
    check_row(drained.steps[0], measure(np.arange(3.0)), 1e-6)


def optimizers() -> dict[str, tuple[Any, Any]]:
    """Returns optimizers without and with rings."""
    ring = optax_ring(4)
    clip, adam = optax.clip_by_global_norm(0.5), optax.adamw(1e-2)
    return {
        "chain": (optax.chain(clip, adam), optax.chain(ring, clip, ring, adam, ring)),
        "micro": (optax.MultiSteps(optax.chain(clip, adam), 2), optax.MultiSteps(optax.chain(ring, clip, adam), 2)),
        "finite": (
            optax.chain(optax.apply_if_finite(adam, 5)),
            optax.chain(ring, optax.apply_if_finite(adam, 5), ring),
        ),
    }


@pytest.mark.parametrize(
    ("kind", "mode", "dtype"),
    [
        ("chain", "jit", jnp.float32),
        ("chain", "donated", jnp.bfloat16),
        ("micro", "donated", jnp.float32),
        ("micro", "scan", jnp.bfloat16),
        ("finite", "jit", jnp.float32),
    ],
)
def test_training_is_the_same_to_the_last_bit(kind: str, mode: str, dtype: Any) -> None:
    """Parameters after 20 steps are bitwise those of the same optimizer without rings."""
    results = [_train_in(tx, mode, dtype) for tx in optimizers()[kind]]
    jax.tree.map(np.testing.assert_array_equal, *results)


@pytest.mark.parametrize("case", ["clipped gradients into momentum", "updates of MultiSteps"])
def test_where_the_compiler_fuses_otherwise_training_differs_in_the_last_bit(case: str) -> None:
    """A ring keeps XLA from contracting ``a * b + c`` across it: the parameters then differ by rounding alone."""
    ring, clip, adam = optax_ring(4), optax.clip_by_global_norm(0.5), optax.adamw(1e-2)
    momentum = optax.sgd(0.1, momentum=0.9)
    plain, ringed = {
        "clipped gradients into momentum": (optax.chain(clip, momentum), optax.chain(clip, ring, momentum)),
        "updates of MultiSteps": (
            optax.MultiSteps(optax.chain(clip, adam), 2),
            optax.MultiSteps(optax.chain(clip, adam, ring), 2),
        ),
    }[case]
    results = [_train_in(tx, "jit", jnp.float32) for tx in (plain, ringed)]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=5e-7), *results)


def _train_in(tx: Any, mode: str, dtype: Any) -> Any:
    params, step, xs = jax.tree.map(lambda x: x.astype(dtype), network()), step_of(tx), batches(20).astype(dtype)
    opt_state = tx.init(params)
    if mode == "scan":
        return jax.jit(lambda c, xs: jax.lax.scan(lambda c, x: (step(*c, x)[:2], None), c, xs)[0])(
            (params, opt_state), xs
        )[0]
    compiled = jax.jit(step, donate_argnums=(0, 1) if mode == "donated" else ())
    for x in xs:
        params, opt_state, _ = compiled(params, opt_state, x)
    return params


def test_the_program_calls_nothing_outside_and_is_traced_once() -> None:
    """The compiled step calls nothing outside, and is traced for the first step alone."""
    plain, ringed = optimizers()["chain"]
    traces = []

    def step(params: Any, opt_state: Any, x: Any) -> Any:
        traces.append(1)
        return step_of(ringed)(params, opt_state, x)

    params, compiled = network(), jax.jit(step)
    opt_state = ringed.init(params)
    assert calls(jax.jit(step), params, opt_state) == calls(jax.jit(step_of(plain)), params, plain.init(params))
    for x in batches():
        params, opt_state, _ = compiled(params, opt_state, x)
    assert len(traces) == 1


def calls(step: Any, *args: Any) -> set[str]:
    """Returns what a compiled step calls or exchanges with the host."""
    program = step.lower(*args, batches()[0]).compile().as_text()
    return set(re.findall(r"custom_call_target=\"[^\"]*|infeed\(|outfeed\(|send\(|recv\(", program))


@pytest.mark.parametrize("kind", ["chain", "micro"])
def test_a_stripped_state_is_that_of_the_plain_optimizer(kind: str) -> None:
    """It goes through flax.serialization, loads into the optimizer without rings, and comes back with empty rings."""
    plain, ringed = optimizers()[kind]
    params, opt_state, _ = train(ringed)
    bare = strip(opt_state)
    assert same_tree(bare, plain.init(params))
    loaded = serialization.from_bytes(plain.init(params), serialization.to_bytes(bare))
    jax.tree.map(np.testing.assert_array_equal, loaded, train(plain)[1])
    back = restore(loaded, ringed.init(params))
    assert same_tree(back, opt_state)
    assert [found.state.count for found in find(back)] == [0] * len(find(opt_state))


def test_rings_that_stand_alone_leave_an_empty_state() -> None:
    """Stripping inside ``masked`` and ``multi_transform`` keeps the tree valid, and restoring inverts it."""
    tx = optax.multi_transform(
        {"a": optax_ring(), "b": optax.chain(optax.adam(1e-3))}, {"Dense_0": "a", "Dense_1": "b"}
    )
    params = network()
    opt_state = tx.init(params)
    bare = strip(opt_state)
    assert find(bare) == []
    assert same_tree(restore(bare, opt_state), opt_state)
    assert isinstance(restore(strip(find(opt_state)[0].state), find(opt_state)[0].state), RingState)


def test_restoring_another_optimizers_state_is_refused() -> None:
    """The error says that the states are of two optimizers."""
    params = network()
    template = optax.chain(optax_ring(), optax.adam(1e-3)).init(params)
    with pytest.raises(GradwatchError, match="not that of the template's optimizer"):
        restore(optax.chain(optax.sgd(0.1), optax.sgd(0.1)).init(params), template)


def test_a_state_with_rings_goes_through_flax_as_it_is() -> None:
    """Who checkpoints the whole state gets the rows back."""
    tx = optax.chain(optax_ring(), optax.sgd(RATE))
    params, opt_state, gradients = train(tx)
    loaded = serialization.from_bytes(tx.init(params), serialization.to_bytes(opt_state))
    check(drain(loaded)[0], gradients)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optax_ring(0), "size=0"),
        (lambda: optax_ring(2.5), "size=2.5"),  # type: ignore[arg-type]
        (lambda: optax_ring(stage="absent"), "stage='absent'"),
        (lambda: optax_ring(signal="weight"), "signal='weight'"),
        (lambda: drain(optax.sgd(0.1).init({"a": jnp.ones(2)})), "no ring"),
        (lambda: jax.jit(lambda s: drain(s)[0].count)(optax_ring().init({"a": jnp.ones(2)})), "outside jit"),
        (lambda: Rings(optax_ring().init({"a": jnp.ones(2)})).drain(()), "not watched yet"),
        (lambda: drain(optax_ring().init({"a": jnp.ones(2)}), []), "after= has 0 rings"),
    ],
)
def test_mistakes_get_one_sentence(make: Callable[[], Any], match: str) -> None:
    """Each says what was given and what to do."""
    with pytest.raises(GradwatchError, match=match):
        make()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``gradwatch.watch`` find the adapter, as its entry point does."""
    group = "gradwatch.adapters"
    entry = EntryPoint("gradwatch_jax", "gradwatch_jax.optax_watch:RingAdapter", group)
    monkeypatch.setattr(plugins, "_entries", lambda asked: iter([entry] if asked == group else []))


def around(clip: float = 0.5, size: int = 16) -> Any:
    """Returns an optimizer with a ring before clipping and one at the end."""
    ring = optax_ring(size, stage="before clipping")
    return optax.chain(ring, optax.clip_by_global_norm(clip), optax.sgd(RATE), optax_ring(size))


def check_run(path: Path, gradients: list[Arrays], losses: list[float] | None) -> None:
    """Compares a run on disk with gradients by hand, and each step's loss."""
    run = gradwatch.load(path)
    for signal, expected, stage in (
        ("gradient", gradients, "before clipping"),
        ("update", scaled(clipped(gradients, 0.5), -RATE), "unscaled"),
    ):
        frame = run.frame(signal)
        assert set(frame["stage"]) == {stage}
        assert list(frame.loc[frame["step"] == 0, "parameter"]) == list(NAMES)
        for row in frame.itertuples():
            array = expected[int(row.step)][str(row.parameter)]  # type: ignore[arg-type]
            assert row.l2 == pytest.approx(np.linalg.norm(array), rel=1e-5)
        assert sorted(set(frame["step"])) == list(range(len(gradients)))
    if losses is not None:
        assert run.recording.step_tables[0].logged["loss"].tolist() == pytest.approx(losses)


@pytest.mark.parametrize("every", [1, 5])
def test_rings_write_a_run(installed: None, tmp_path: Path, every: int) -> None:
    """Drained each step or each fifth, from donated states, a run holds every step's gradient and update."""
    tx = around()
    params, gradients, losses = network(), [], []
    step = jax.jit(step_of(tx), donate_argnums=(0, 1))
    opt_state = tx.init(params)
    rings = Rings(opt_state)
    with gradwatch.watch(rings, run=tmp_path / "run", report=False):
        for i, x in enumerate(batches(20)):
            gradients.append(by_hand(params, x))
            params, opt_state, loss = step(params, opt_state, x)
            losses.append(float(loss))
            if (i + 1) % every == 0:
                rings.drain(opt_state, loss=loss)
    check_run(tmp_path / "run", gradients, losses if every == 1 else None)


def test_the_adapter_keeps_its_promises() -> None:
    """``check_adapter`` passes, and what it captured are the gradients by hand."""
    tx = optax.chain(optax_ring(), optax.sgd(RATE))
    params, step = network(), jax.jit(step_of(tx))
    opt_state, gradients, xs = tx.init(params), [], iter(batches(30))
    rings = Rings(opt_state)

    def train_once() -> None:
        nonlocal params, opt_state
        x = next(xs)
        gradients.append(by_hand(params, x))
        params, opt_state, _ = step(params, opt_state, x)
        rings.drain(opt_state)

    recording = check_adapter(RingAdapter(), [rings], train_once)
    panel = recording.panel("gradient")
    assert panel is not None
    np.testing.assert_allclose(panel.l2[7], [np.linalg.norm(gradients[7][name]) for name in NAMES], rtol=1e-5)


def test_a_decorated_step_is_drained_after_each_call(installed: None, tmp_path: Path) -> None:
    """The state is found among the results of the step, and the step returns what it returned."""
    tx = around()
    params, gradients = network(), []
    opt_state = tx.init(params)
    step = gradwatch.watch(Rings(opt_state), run=tmp_path / "run", report=False)(jax.jit(step_of(tx)))
    for x in batches(8):
        gradients.append(by_hand(params, x))
        params, opt_state, _ = step(params, opt_state, x)
    step.watch.close()  # type: ignore[attr-defined]
    step(params, opt_state, batches()[0])
    check_run(tmp_path / "run", gradients, None)


def test_what_was_overwritten_is_left_out_and_said(
    installed: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A ring of 4 that is drained every 6 steps holds steps 2-5 and 8-11; the note names the size that fits."""
    tx = around(size=4)
    params, step = network(), jax.jit(step_of(tx))
    opt_state = tx.init(params)
    rings = Rings(opt_state)
    with caplog.at_level(logging.WARNING), gradwatch.watch(rings, run=tmp_path / "run", report=False):
        for i, x in enumerate(batches(12)):
            params, opt_state, _ = step(params, opt_state, x)
            if i % 6 == 5:
                rings.drain(opt_state)
    frame = gradwatch.load(tmp_path / "run").frame("gradient")
    assert sorted(set(frame["step"])) == [2, 3, 4, 5, 8, 9, 10, 11]
    assert "optax_ring(size=6) would have kept them" in caplog.text


def test_the_schedule_holds_for_rings(installed: None, tmp_path: Path) -> None:
    """With ``every`` and ``layers`` only those steps and layers are recorded."""
    tx = around()
    params, step = network(), jax.jit(step_of(tx))
    opt_state = tx.init(params)
    rings = Rings(opt_state)
    with gradwatch.watch(rings, run=tmp_path / "run", report=False, every=4, layers="Dense_1"):
        for x in batches(9):
            params, opt_state, _ = step(params, opt_state, x)
            rings.drain(opt_state)
    for signal in ("gradient", "update"):
        frame = gradwatch.load(tmp_path / "run").frame(signal)
        assert sorted(set(frame["step"])) == [0, 4, 8]
        assert set(frame["layer"]) == {"Dense_1"}


def test_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch, installed: None, tmp_path: Path) -> None:
    """While the device computes, drain hands nothing over; closing does."""
    monkeypatch.setattr("gradwatch_jax.optax_watch._Snapshot.ready", lambda _: False)
    handed_over: list[int] = []
    put = Recorder.put

    def counted(recorder: Recorder, step: int, record: Any) -> None:
        handed_over.append(step)
        put(recorder, step, record)

    monkeypatch.setattr(Recorder, "put", counted)
    tx = around()
    params, step, gradients = network(), jax.jit(step_of(tx)), []
    opt_state = tx.init(params)
    rings = Rings(opt_state)
    with gradwatch.watch(rings, run=tmp_path / "run", report=False):
        for x in batches(8):
            gradients.append(by_hand(params, x))
            params, opt_state, _ = step(params, opt_state, x)
            rings.drain(opt_state)
        assert handed_over == []
    check_run(tmp_path / "run", gradients, None)


def test_a_restored_ring_goes_on_counting_steps(installed: None, tmp_path: Path) -> None:
    """Rows that a ring holds from before are not of this run, and a ring that starts anew continues it."""
    tx = around()
    params, opt_state, _ = train(tx)
    step, gradients = jax.jit(step_of(tx)), []
    rings = Rings(opt_state)
    with gradwatch.watch(rings, run=tmp_path / "run", report=False):
        for i, x in enumerate(batches(8)):
            if i == 4:
                opt_state = restore(strip(opt_state), tx.init(params))
            gradients.append(by_hand(params, x))
            params, opt_state, _ = step(params, opt_state, x)
            rings.drain(opt_state)
    check_run(tmp_path / "run", gradients, None)


def test_two_optimizers_with_the_same_names_stay_apart(installed: None, tmp_path: Path) -> None:
    """Steps are counted per optimizer, and parameters of one name get the second optimizer's name in front."""
    makers = {name: optax.chain(optax_ring(name=name), optax.sgd(RATE)) for name in ("gen", "dis")}
    steps = {name: jax.jit(step_of(tx)) for name, tx in makers.items()}
    params = {name: network() for name in makers}
    states = {name: tx.init(params[name]) for name, tx in makers.items()}
    rings = Rings(states)
    with gradwatch.watch(rings, run=tmp_path / "run", report=False):
        for i, x in enumerate(batches(8)):
            for name, step in steps.items():
                if name == "dis" or i % 2 == 0:
                    params[name], states[name], _ = step(params[name], states[name], x)
            rings.drain(states)
    frame = gradwatch.load(tmp_path / "run").frame("gradient")
    counted = {key: len(set(rows["step"])) for key, rows in frame.groupby("optimizer")}
    assert counted == {"gen": 4, "dis": 8}
    assert frame["parameter"].nunique() == 8


def test_two_rings_of_one_signal_are_not_mixed(
    installed: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The gradient of a run is that of the first ring, and one line says so."""
    first, second = optax_ring(stage="before clipping"), optax_ring(stage="after clipping")
    tx = optax.chain(first, optax.clip_by_global_norm(0.5), second, optax.sgd(RATE), optax_ring())
    params, step, gradients = network(), jax.jit(step_of(tx)), []
    opt_state = tx.init(params)
    rings = Rings(opt_state)
    with caplog.at_level(logging.WARNING), gradwatch.watch(rings, run=tmp_path / "run", report=False):
        for x in batches(8):
            gradients.append(by_hand(params, x))
            params, opt_state, _ = step(params, opt_state, x)
            rings.drain(opt_state)
    check_run(tmp_path / "run", gradients, None)
    assert "two rings hold the same gradient" in caplog.text


def test_rings_of_one_name_that_count_differently_are_not_mixed(
    installed: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A ring that missed steps is left out where it did, and one line says so."""
    tx = optax.chain(optax_ring(), optax.apply_if_finite(optax.chain(optax.sgd(RATE), optax_ring(signal="update")), 5))
    params, step = network(), jax.jit(step_of(tx))
    opt_state = tx.init(params)
    rings = Rings(opt_state)
    with caplog.at_level(logging.WARNING), gradwatch.watch(rings, run=tmp_path / "run", report=False):
        for x in poisoned():
            params, opt_state, _ = step(params, opt_state, x)
            rings.drain(opt_state)
    run = gradwatch.load(tmp_path / "run")
    assert sorted(set(run.frame("gradient")["step"])) == [0, 1, 2, 3, 4, 5]
    assert sorted(set(run.frame("update")["step"])) == [0, 1, 3, 4, 5]
    assert "saw different numbers of steps" in caplog.text


def test_steps_cannot_be_ended_by_hand(installed: None, tmp_path: Path) -> None:
    """``watch.step()`` says that rings count themselves."""
    opt_state = around().init(network())
    with (
        gradwatch.watch(Rings(opt_state), run=tmp_path / "run", report=False) as watch,
        pytest.raises(GradwatchError, match="drain"),
    ):
        watch.step()


@pytest.fixture(scope="module")
def devices() -> Any:
    """Returns what rings held on four virtual devices."""
    script = Path(__file__).with_name("ring_devices.py")
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    found = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert found.returncode == 0, found.stderr[-2000:]
    report = json.loads(found.stdout)
    assert report["devices"] == 4
    return report


@pytest.mark.parametrize("way", ["pmap", "shard_map", "NamedSharding"])
def test_rings_on_four_devices_hold_the_gradient_of_the_whole_batch(devices: Any, way: str) -> None:
    """Behind the mean over devices, and under NamedSharding, there is one true row, equal to one device's gradient."""
    before, after = devices[way]
    assert (before["stage"], before["signal"], after["signal"]) == ("before clipping", "gradient", "update")
    np.testing.assert_allclose(before["l2"], devices["expected"], rtol=1e-4)
    assert before["n"] == [256, 256]


@pytest.mark.parametrize("way", ["pmap", "shard_map", "NamedSharding"])
def test_training_on_four_devices_is_the_same_to_the_last_bit(devices: Any, way: str) -> None:
    """Parameters after two steps are those without rings."""
    assert devices["bitwise"][way]


def test_before_the_mean_over_devices_a_ring_is_local(devices: Any) -> None:
    """Where devices hold different gradients, the stage says that the rows are one device's."""
    assert devices["pmap before the mean"][0]["stage"] == "local"


def test_a_split_gradient_is_not_gathered(devices: Any) -> None:
    """The ring adds no all-gather of a sharded kernel to the program."""
    bare, ringed = devices["gathered"]
    assert ringed - bare < 100
