"""The compiled step: one program, traced and compiled in the first call, that calls nothing in Python."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from gradwatch_jax import compat
from tests.jax.capturing import capture
from tests.jax.programs import data, mlp, optimizer, train_step

STEPS: Final = 300
COMPILATION: Final = "/jax/core/compile/"
"""What the names of the events begin with that JAX reports for tracing, lowering and compiling."""

CALLBACKS: Final = re.compile(r"xla_(ffi_|buffer_)?(partitioned_)?python_(cpu|gpu)_callback")
"""Targets with which the releases of JAX call Python from a program."""

Arguments = tuple[Any, ...]
Step = Callable[..., Any]
Case = tuple[Step, Callable[[], Arguments], Callable[[Arguments, Any], Arguments]]
"""A step, its first arguments, and the arguments of the next call, made of those of a call and its result."""


def jax_case() -> Case:
    def start() -> Arguments:
        params = mlp()
        return params, optimizer.init(params), data()

    return jax.jit(train_step), start, lambda args, result: (*result[:2], args[2])


def nnx_case() -> Case:
    @nnx.jit
    def step(model: nnx.Linear, adam: nnx.Optimizer[nnx.Linear], x: jax.Array) -> None:
        adam.update(model, nnx.grad(lambda m: jnp.mean(jnp.square(m(x) - 0.5)))(model))

    def start() -> Arguments:
        model = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
        return model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param), data()

    return step, start, lambda args, _: args


def equinox_case() -> Case:
    @eqx.filter_jit
    def step(model: eqx.nn.Linear, state: Any, x: jax.Array) -> Any:
        gradients = eqx.filter_grad(lambda m: jnp.mean(jnp.square(jax.vmap(m)(x) - 0.5)))(model)
        updates, state = optimizer.update(gradients, state, model)
        return eqx.apply_updates(model, updates), state

    def start() -> Arguments:
        model = eqx.nn.Linear(4, 2, key=jax.random.key(0))
        return model, optimizer.init(eqx.filter(model, eqx.is_array)), data()

    return step, start, lambda args, result: (*result, args[2])


CASES: Final[dict[str, tuple[Callable[[], Case], str]]] = {
    "jax.jit": (jax_case, "jax_jit"),
    "nnx.jit": (nnx_case, "nnx_jit"),
    "eqx.filter_jit": (equinox_case, "equinox_jit"),
}
cases = pytest.mark.parametrize("name", CASES)

_events: Counter[str] = Counter()


def _count(event: str, duration_secs: float, **metadata: str | int) -> None:
    if event.startswith(COMPILATION):
        _events[event.removeprefix(COMPILATION)] += 1


@pytest.fixture(scope="module", autouse=True)
def _listening() -> Iterator[None]:
    """Counts compilations of all threads. JAX offers no public way to end a listener; it goes on counting."""
    jax.monitoring.register_event_duration_secs_listener(_count)
    yield
    _events.clear()


@cases
def test_nothing_is_traced_or_compiled_after_the_first_call(name: str) -> None:
    """Over 300 steps of the default schedule, whose plans differ, only the first call compiles."""
    step, start, following = CASES[name][0]()
    args = start()
    with capture(step) as captured:
        _events.clear()
        args = following(args, captured.step(*args))
        assert _events["backend_compile_duration"] > 0
        assert _events["jaxpr_trace_duration"] > 0
        _events.clear()
        for _ in range(STEPS - 1):
            args = following(args, captured.step(*args))
    assert dict(_events) == {}
    assert len(captured.records) == STEPS
    assert len({frozenset(block.signal for block in record.blocks) for record in captured.records}) > 1


@cases
def test_the_program_calls_nothing_outside(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of a watched step calls nothing in Python and exchanges nothing with the host while it runs."""
    step, start, _ = CASES[name][0]()
    made: list[Any] = []
    given: list[Arguments] = []
    real = getattr(compat, CASES[name][1])

    def spying(*args: Any, **options: Any) -> Step:
        made.append(real(*args, **options))

        def call(*args: Any) -> Any:
            given.append(args)
            return made[-1](*args)

        return call

    monkeypatch.setattr(compat, CASES[name][1], spying)
    with capture(step) as captured:
        captured.step(*start())
    assert len(made) == 1
    compiled = made[0].lower(*given[0]).compile()
    check_calls_nothing(getattr(compiled, "compiled", compiled).as_text())  # Equinox wraps what JAX compiled


def check_calls_nothing(text: str) -> None:
    operations = set(re.findall(r"(?<= )([a-z-]+)\(", text))
    assert "parameter" in operations
    assert not {"infeed", "outfeed", "send", "recv"} & operations
    assert not {target for target in targets(text) if CALLBACKS.fullmatch(target)}


def targets(text: str) -> set[str]:
    """Returns what a compiled program calls by name."""
    return set(re.findall(r'custom_call_target="([^"]*)"', text))


@pytest.mark.parametrize("callback", ["debug", "io", "pure"])
def test_a_callback_would_be_seen(callback: str) -> None:
    """The targets that the programs are searched for are those by which this JAX calls Python."""

    def callee(x: jax.Array) -> Any:
        if callback == "debug":
            return jax.debug.callback(print, x)
        if callback == "io":
            return jax.experimental.io_callback(abs, x, x)
        return jax.pure_callback(abs, x, x)

    text = str(jax.jit(callee).lower(jnp.float32(1)).compile().as_text())
    assert [target for target in targets(text) if CALLBACKS.fullmatch(target)]
