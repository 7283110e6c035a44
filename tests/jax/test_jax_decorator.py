"""The decorator as people use and misuse it: what the step was made with is kept, mistakes get one sentence."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import gradwatch
import gradwatch_jax
from gradwatch_jax import compat
from tests.jax.capturing import capture
from tests.jax.programs import Params, data, loss_fn, mlp, optimizer, same, train, train_step


def test_a_run_is_written_with_two_added_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The decorator above jax.jit writes a run with losses and a verdict, and keeps the function's face."""

    @gradwatch.watch(run=tmp_path / "run")
    @jax.jit
    def step(params: Params, state: Any, x: jax.Array) -> Any:
        """One step."""
        return train_step(params, state, x)

    train(step, 12)
    watch: gradwatch.Watch = step.watch  # type: ignore[attr-defined]
    watch.log(accuracy=jnp.float32(0.5))
    watch.close()
    assert step.__doc__ == "One step."
    assert list(inspect.signature(step).parameters) == ["params", "state", "x"]
    run = gradwatch.load(tmp_path / "run")
    assert f"gradwatch: {run.verdict}" in capsys.readouterr().err
    assert run.recording.facts["framework"] == "JAX"
    assert len(run.recording.step_tables[0].logged["loss"]) == 12
    assert set(run.frame("gradient")["layer"]) == {"Dense_0", "Dense_1", "Dense_2"}
    assert (tmp_path / "run" / "report.html").exists()


def test_the_bare_decorator_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``@gradwatch.watch`` without parentheses chooses a directory of its own."""
    monkeypatch.chdir(tmp_path)
    step: Any = gradwatch.watch(jax.jit(train_step))
    train(step, 3)
    step.watch.close()
    assert len(gradwatch.load(step.watch.run_dir).recording.steps()) == 3


def test_donated_arguments_are_donated() -> None:
    """What the user's jit donates is gone after a watched call, and what it does not is there."""
    step = functools.partial(jax.jit, donate_argnums=(0,), donate_argnames=("state",))(train_step)
    params = mlp()
    state = optimizer.init(params)
    x = data()
    with capture(step) as captured:
        result = captured.step(params, state=state, x=x)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not x.is_deleted()
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(result))


def test_static_arguments_stay_static() -> None:
    """Static arguments by position and by name reach the step as Python values."""

    @functools.partial(jax.jit, static_argnums=(1,), static_argnames=("mode",))
    def step(params: Any, scale: float, x: Any, mode: str = "sum") -> Any:
        assert isinstance(scale, float)
        assert mode == "mean"
        gradients = jax.grad(loss_fn)(params, x)
        return jax.tree.map(lambda p, g: p - scale * g, params, gradients)

    with capture(step) as captured:
        found = captured.step(mlp(), 0.5, data(), mode="mean")
    assert same(found, step(mlp(), 0.5, data(), mode="mean"))


def test_equinox_donation_is_kept() -> None:
    """filter_jit(donate="all-except-first") donates all arguments but the first, watched as unwatched."""

    @eqx.filter_jit(donate="all-except-first")
    def step(x: Any, params: Any) -> Any:
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss_fn)(params, x))

    params, x = mlp(), data()
    with capture(step) as captured:
        captured.step(x, params)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    assert not x.is_deleted()


def test_jit_above_watch_is_told_how_to_mend_it() -> None:
    """jax.jit put above the watch raises one sentence that names the right order."""
    with capture(train_step) as captured:
        outer = jax.jit(captured.step)
        with pytest.raises(gradwatch.GradwatchError, match=r"put @gradwatch\.watch above @jax\.jit"):
            train(outer, 1)


def test_a_compiled_step_is_refused() -> None:
    """A step that was compiled ahead of time cannot be watched, and the sentence says what can."""
    params = mlp()
    compiled = jax.jit(train_step).lower(params, optimizer.init(params), data()).compile()
    with pytest.raises(gradwatch.GradwatchError, match="compiled already"):
        gradwatch.watch(compiled)


def test_a_step_without_gradient_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A step that takes no gradient runs as before, with one sentence in the log."""
    with capture(jax.jit(lambda x: x * 2)) as captured:
        assert float(captured.step(jnp.float32(2))) == 4
        captured.step(jnp.float32(2))
    assert len(captured.notes) == 1
    assert "takes no gradient" in captured.notes[0]
    assert sum("takes no gradient" in record.getMessage() for record in caplog.records) == 1


def test_errors_of_the_step_are_the_users() -> None:
    """An exception inside the step reaches the caller as it is, and the next call is captured."""

    def step(params: Any, x: Any) -> Any:
        if x is None:
            raise KeyError("mine")
        return descended(params, x)

    def descended(params: Any, x: Any) -> Any:
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss_fn)(params, x))

    with capture(jax.jit(step)) as captured:
        with pytest.raises(KeyError, match="mine"):
            captured.step(mlp(), None)
        captured.step(mlp(), data())
    assert [record.step for record in captured.records] == [0]


def test_detaching_leaves_nothing_behind() -> None:
    """After the watch JAX's function is the original, and the decorated step is the user's own program."""
    from jax._src import api

    original = api.vjp
    with capture(jax.jit(train_step)) as captured:
        train(captured.step, 2)
        assert api.vjp is not original
    assert api.vjp is original
    train(captured.step, 2)
    assert len(captured.records) == 2


def test_a_failure_of_ours_costs_the_capture_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the statistics cannot be traced, the step trains bitwise as before and the run says why."""
    monkeypatch.setenv("GRADWATCH_STRICT", "0")

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("broken kernel")

    monkeypatch.setattr("gradwatch_jax.collector.gradient_rows", broken)
    step = jax.jit(train_step)
    with capture(step) as captured:
        watched = train(captured.step, 3)
    assert same(watched, train(step, 3))
    assert captured.session.recorder.guard.failures == ["capture stopped after RuntimeError: broken kernel"]


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A release of JAX that has moved the function through which gradients are seen."""
    monkeypatch.setattr(compat, "_CALLER", "renamed")
    compat.hooks.cache_clear()
    yield
    compat.hooks.cache_clear()


def test_another_jax_is_noticed_and_has_a_public_way(blind: None, caplog: pytest.LogCaptureFixture) -> None:
    """Where gradients cannot be seen from outside, one line says so, and value_and_grad of ours shows them."""

    @jax.jit
    def step(params: Any, x: Any) -> Any:
        _, gradients = gradwatch_jax.value_and_grad(loss_fn)(params, x)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)

    with caplog.at_level(logging.WARNING), capture(step) as captured:
        captured.step(mlp(), data())
    assert sum("gradwatch_jax.value_and_grad" in record.getMessage() for record in caplog.records) == 1
    assert len(captured.names) == 6
    assert len(captured.series("gradient", "Dense_0.kernel", "l2")) == 1


def test_the_training_loop_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps no array is waited for: a step whose numbers never become ready is handed over all the same."""
    monkeypatch.setattr("gradwatch_jax.pending.PendingStep.ready", lambda _: False)
    with capture(jax.jit(train_step)) as captured:
        train(captured.step, 5)
        assert captured.session.recorder.waiting == 5
        assert captured.records == []
    assert len(captured.records) == 5
