"""Which models and optimizers the user gave, and how their layers and parameters are called."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gradwatch.errors import GradwatchError
from gradwatch.record import Site
from gradwatch_torch.fans import fan_in
from gradwatch_torch.wrappers import unwrap


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the watched models under its first name."""

    tensor: nn.Parameter
    name: str
    layer: str
    role: str
    aliases: tuple[str, ...]
    fan_in: int | None = None


def claims(targets: Sequence[Any]) -> bool:
    """Tells whether these are torch modules and optimizers, also in lists and dicts."""
    return bool(targets) and all(_is_target(target) for target in targets)


def models(targets: Sequence[Any]) -> dict[str, nn.Module]:
    """Returns the modules by key; a single one has the key ""."""
    found: dict[str, nn.Module] = _named(targets, nn.Module)
    if not found:
        kinds = ", ".join(type(target).__name__ for target in targets)
        raise GradwatchError(f"there is no model among the watched objects ({kinds}); pass the torch.nn.Module too.")
    return found


def optimizers(targets: Sequence[Any]) -> dict[str, Optimizer]:
    """Returns the optimizers by key; may be empty."""
    return _named(targets, Optimizer)


def modules(named: Mapping[str, nn.Module]) -> list[tuple[str, nn.Module]]:
    """Returns every module once with its dotted path, in order of registration; wrappers leave no trace.

    The path of a single model's root is ""; several models have their keys in front.
    """
    found: dict[int, tuple[str, nn.Module]] = {}

    def visit(module: nn.Module, path: str) -> None:
        module = unwrap(module)
        if id(module) not in found:
            found[id(module)] = (path, module)
            for name, child in module.named_children():
                visit(child, _join(path, name))

    for key, model in named.items():
        visit(model, key)
    return list(found.values())


def parameters(named: Mapping[str, nn.Module]) -> list[Parameter]:
    """Returns every parameter once, tied ones with their other names as aliases, in order of registration.

    Raises:
        GradwatchError: for models without parameters.
    """
    names: dict[int, list[str]] = {}
    owners: dict[int, tuple[nn.Parameter, str, nn.Module]] = {}
    for path, module in modules(named):
        for name, tensor in module._parameters.items():
            if tensor is not None:
                names.setdefault(id(tensor), []).append(_join(path, name))
                owners.setdefault(id(tensor), (tensor, layer_name(path, module), module))
    if not owners:
        kinds = ", ".join(type(model).__name__ for model in named.values())
        raise GradwatchError(f"the model {kinds} has no parameters, so there are no gradients to watch.")
    return [_described(tensor, names[key], layer, module) for key, (tensor, layer, module) in owners.items()]


def layer_name(path: str, module: nn.Module) -> str:
    """Returns the name of the layer at a path: the path itself, or the class name for a root."""
    return path or type(module).__name__


def site(signal: str, parameter: Parameter, optimizer: str, status: str) -> Site:
    """Returns the site of a parameter."""
    tensor = parameter.tensor
    return Site(
        signal,
        parameter.name,
        parameter.layer,
        parameter.role,
        tuple(tensor.shape),
        tensor.numel(),
        str(tensor.dtype).removeprefix("torch."),
        optimizer,
        status,
        parameter.aliases,
        parameter.fan_in,
    )


def _is_target(value: Any) -> bool:
    if isinstance(value, (nn.Module, Optimizer)):
        return True
    if isinstance(value, Mapping):
        value = list(value.values())
    return isinstance(value, (list, tuple)) and bool(value) and all(_is_target(item) for item in value)


def _named(targets: Sequence[Any], kind: type[Any]) -> dict[str, Any]:
    """Returns the objects of a kind by a dict's keys, else by class name; a single unnamed one has the key ""."""
    flat: list[tuple[str, Any]] = []
    for target in targets:
        items = list(target.items()) if isinstance(target, Mapping) else [("", t) for t in _as_list(target)]
        flat.extend((str(key), value) for key, value in items if isinstance(value, kind))
    if len(flat) == 1:
        return dict(flat)
    named: dict[str, Any] = {}
    for key, value in flat:
        named[_free_name(key or type(value).__name__, named)] = value
    return named


def _as_list(target: Any) -> list[Any]:
    return list(target) if isinstance(target, (list, tuple)) else [target]


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    if name not in taken:
        return name
    return next(f"{name}-{i}" for i in itertools.count(2) if f"{name}-{i}" not in taken)


def _described(tensor: nn.Parameter, names: Sequence[str], layer: str, module: nn.Module) -> Parameter:
    name, *aliases = names
    return Parameter(tensor, name, layer, _role(tensor, name, module), tuple(aliases), fan_in(tensor, module))


def _role(tensor: torch.Tensor, name: str, module: nn.Module) -> str:
    own = name.rpartition(".")[2].lower()
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or (tensor.ndim > 1 and "embed" in own):
        return "embedding"
    if "norm" in type(module).__name__.lower():
        return "norm"
    if tensor.ndim <= 1:
        return "bias" if "bias" in own else "scalar" if tensor.numel() == 1 else "norm"
    return "weight"


def _join(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name
