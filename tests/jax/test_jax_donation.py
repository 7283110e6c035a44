"""Donated buffers stay the user's business: the same ones are gone after a watched call, with the same results."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from tests.jax.capturing import capture
from tests.jax.programs import data, same

Case = tuple[Callable[..., Any], Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]]


def loss_fn(params: Any, x: Any) -> Any:
    return jnp.mean(jnp.square(jnp.tanh(x @ params["w"]) - 0.5))


def train_step(params: Any, moment: Any, x: Any) -> Any:
    gradients = jax.grad(loss_fn)(params, x)
    moment = jax.tree.map(lambda m, g: 0.9 * m + g, moment, gradients)
    return jax.tree.map(lambda p, m: p - 0.1 * m, params, moment), moment


def nnx_step(model: Any, optimizer: Any, x: Any) -> Any:
    gradients = nnx.grad(lambda m: jnp.mean(jnp.square(m(x) - 0.5)))(model)
    optimizer.update(model, gradients)
    return nnx.state((model, optimizer))


def arrays() -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ({"w": jnp.ones((4, 3)) * 0.1}, {"w": jnp.zeros((4, 3))}, data()), {}


def named() -> tuple[tuple[Any, ...], dict[str, Any]]:
    (params, moment, x), _ = arrays()
    return (params,), {"moment": moment, "x": x}


def modules() -> tuple[tuple[Any, ...], dict[str, Any]]:
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    return (model, nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param), data()), {}


CASES: dict[str, Case] = {
    "jit, by position": (functools.partial(jax.jit, donate_argnums=(0, 1)), arrays),
    "jit, by name": (functools.partial(jax.jit, donate_argnames=("moment", "x")), named),
    "jit, by both": (functools.partial(jax.jit, donate_argnums=0, donate_argnames="moment"), named),
    "nnx, by position": (functools.partial(nnx.jit, donate_argnums=(0, 1)), modules),
    "nnx, by name": (functools.partial(nnx.jit, donate_argnames=("model",)), modules),
    "equinox, none": (functools.partial(eqx.filter_jit, donate="none"), arrays),
    "equinox, all": (functools.partial(eqx.filter_jit, donate="all"), arrays),
    "equinox, all but the first": (functools.partial(eqx.filter_jit, donate="all-except-first"), arrays),
    "equinox, warn": (functools.partial(eqx.filter_jit, donate="warn"), arrays),
    "equinox, warn but the first": (functools.partial(eqx.filter_jit, donate="warn-except-first"), arrays),
}


def called(step: Callable[..., Any], make: Callable[[], Any]) -> tuple[Any, list[bool], set[str]]:
    """Returns the step's results, which of its arguments' arrays are gone, and what was warned of."""
    args, kwargs = make()
    leaves = jax.tree.leaves((args, kwargs))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        result = step(*args, **kwargs)
    result = jax.tree.map(jnp.copy, result)
    return result, [leaf.is_deleted() for leaf in leaves], {str(warning.message) for warning in warned}


@pytest.mark.parametrize("case", CASES)
def test_the_same_buffers_are_donated(case: str) -> None:
    """Every array that a step donates, and none else, is gone; results are the same bits; no warning comes from us."""
    jax.clear_caches()  # a program that is compiled already warns of nothing
    jit, make = CASES[case]
    step = jit(nnx_step if make is modules else train_step)
    bare, gone, said = called(step, make)
    with capture(step, signals=("gradient", "update")) as captured:
        watched, gone_too, said_too = called(captured.step, make)
    assert same(watched, bare)
    assert gone_too == gone
    assert any(gone) == (case != "equinox, none")
    assert said_too <= said
    assert captured.notes == []
    assert len(captured.records) == 1
    assert captured.session.recorder.guard.failures == []
