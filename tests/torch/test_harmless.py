"""Watching changes nothing and leaves nothing behind."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad

import gradwatch
from tests.torch.networks import NETWORKS, digits, mlp

torch_module = torch.nn.modules.module


def train(make: Callable[[], nn.Module], steps: int, bf16: bool, run: Path | None) -> tuple[list[Tensor], Tensor]:
    """Trains from a fixed seed; returns the parameters, the optimizer's state and the generator's state."""
    torch.manual_seed(3)
    x, y = digits()
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    watching: Any = nullcontext() if run is None else gradwatch.watch(model, optimizer, run=run, report=False)
    with watching:
        for _ in range(steps):
            index = torch.randint(len(x), (32,))
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = functional.cross_entropy(model(x[index]), y[index])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    return [*(p.detach() for p in model.parameters()), *model.buffers(), *state], torch.get_rng_state()


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_is_bitwise_the_same(name: str, bf16: bool, tmp_path: Path) -> None:
    """Parameters, buffers, optimizer state and random state are equal bit for bit with and without us."""
    bare, bare_random = train(NETWORKS[name], 24, bf16, None)
    watched, watched_random = train(NETWORKS[name], 24, bf16, tmp_path / "run")
    assert len(bare) == len(watched)
    assert all(torch.equal(a, b) for a, b in zip(bare, watched, strict=True))
    assert torch.equal(bare_random, watched_random)
    assert len(gradwatch.load(tmp_path / "run").recording.steps()) == 24


def traces(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Returns everything of torch that watching could leave a mark on."""
    hooks = {name: dict(value) for name, value in vars(torch_module).items() if name.startswith("_global") and value}
    own = {
        f"{path}.{name}": dict(value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if "hooks" in name and value
    }
    parameters = {
        name: (dict(p._backward_hooks or {}), dict(getattr(p, "_post_accumulate_grad_hooks", None) or {}))
        for name, p in model.named_parameters()
    }
    return {
        "global": hooks,
        "modules": own,
        "parameters": {name: found for name, found in parameters.items() if any(found)},
        "optimizer": [dict(optimizer._optimizer_step_pre_hooks), dict(optimizer._optimizer_step_post_hooks)],
        "all optimizers": [
            dict(torch.optim.optimizer._global_optimizer_pre_hooks),
            dict(torch.optim.optimizer._global_optimizer_post_hooks),
        ]
        if hasattr(torch.optim, "optimizer")
        else [],
        "backward": torch.Tensor.backward,
        "clip": getattr(clip_grad, "_clip_grads_with_norm_", None),
        "scaler": torch.amp.GradScaler.step,
    }


def leave(watch: gradwatch.Watch, how: str, step: Callable[[], None]) -> None:
    """Ends a watch in one of the ways people end them."""
    if how == "exit":
        with watch:
            step()
    elif how == "exception":
        with pytest.raises(ZeroDivisionError), watch:  # noqa: PT012
            step()
            raise ZeroDivisionError
    elif how == "interrupt":
        with pytest.raises(KeyboardInterrupt), watch:  # noqa: PT012
            step()
            raise KeyboardInterrupt
    elif how == "double exit":
        with watch:
            step()
        watch.close()
        watch.__exit__(None, None, None)
    elif how == "before any step":
        watch.close()
    else:
        step()
        watch.close()


@pytest.mark.parametrize("how", ["exit", "exception", "interrupt", "double exit", "before any step", "close"])
@pytest.mark.parametrize("given", ["optimizer", "model alone"])
def test_nothing_is_left_behind(how: str, given: str, tmp_path: Path) -> None:
    """After every way out, hooks and patched functions are exactly as before."""
    x, y = digits()
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    before = traces(model, optimizer)
    targets = (model, optimizer) if given == "optimizer" else (model,)

    def step() -> None:
        functional.cross_entropy(model(x[:32]), y[:32]).backward()
        optimizer.step()

    leave(gradwatch.watch(*targets, run=tmp_path / "run", report=False), how, step)
    assert traces(model, optimizer) == before
    step()


def test_another_ones_patch_over_ours_is_kept(tmp_path: Path) -> None:
    """Whoever wraps a function that we listen to keeps their wrapper when we leave, and it works."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    original = torch.Tensor.backward
    watch = gradwatch.watch(model, optimizer, run=tmp_path / "run", report=False)
    ours: Callable[..., Any] = torch.Tensor.backward
    calls: list[int] = []

    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return ours(*args, **kwargs)

    torch.Tensor.backward = theirs  # type: ignore[method-assign]
    try:
        watch.close()
        assert torch.Tensor.backward is theirs
        model(torch.randn(2, 64)).sum().backward()
        assert calls == [1]
    finally:
        torch.Tensor.backward = original  # type: ignore[method-assign]


def copies(model: nn.Module) -> Iterator[nn.Module]:
    """Yields the model through pickle, deepcopy and torch.save."""
    yield pickle.loads(pickle.dumps(model))
    yield copy.deepcopy(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    yield torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_watched_model_can_be_copied_and_saved_during_a_sampled_step(name: str, tmp_path: Path) -> None:
    """Pickle, deepcopy and torch.save work between forward, backward and step, and their copies are not watched."""
    x, y = digits()
    model = NETWORKS[name]()
    optimizer = torch.optim.Adam(model.parameters())
    with gradwatch.watch(model, optimizer, run=tmp_path / "run", report=False):
        for _ in range(2):
            loss = functional.cross_entropy(model(x[:32]), y[:32])
            made = list(copies(model))
            loss.backward()
            made += copies(model)
            copy.deepcopy(optimizer)
            pickle.dumps(optimizer)
            optimizer.step()
            optimizer.zero_grad()
            for twin in made:
                functional.cross_entropy(twin(x[:8]), y[:8]).backward()
    run = gradwatch.load(tmp_path / "run")
    rows = run.frame("activation")
    assert sorted(rows["step"].unique()) == [0, 1]
    last = run.recording.sites.layers[-1]
    assert rows[(rows["layer"] == last) & (rows["step"] == 1)]["numel"].tolist() == [320]


def test_everything_is_freed(tmp_path: Path) -> None:
    """After closing, neither the model nor the optimizer is kept alive."""

    def train_once() -> list[weakref.ref[Any]]:
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters())
        with gradwatch.watch(model, optimizer, run=tmp_path / "run", report=False):
            model(torch.randn(4, 64)).sum().backward()
            optimizer.step()
        return [weakref.ref(model), weakref.ref(optimizer), weakref.ref(next(model.parameters()))]

    alive = train_once()
    gc.collect()
    assert [ref() for ref in alive] == [None, None, None]


def test_a_watch_copies_and_pickles_as_nothing(tmp_path: Path) -> None:
    """An object that holds a watch can be copied and pickled; the copy holds None."""
    holder = {"watch": gradwatch.watch(mlp(), run=tmp_path / "run")}
    assert copy.deepcopy(holder) == {"watch": None}
    assert pickle.loads(pickle.dumps(holder)) == {"watch": None}
    holder["watch"].close()
