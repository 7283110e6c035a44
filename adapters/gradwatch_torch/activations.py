"""Outputs and inputs of layers, and the gradients at them, during sampled steps.

Torch's *global* forward hook is on only from the end of the step before a sampled one to that step's end. Nothing is
put on the modules themselves, so pickling, copying and in-place operations are untouched.
"""

from __future__ import annotations

import functools
import inspect
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from gradwatch.guard import Guard
from gradwatch.record import Site, SiteTable
from gradwatch_torch.arrival import is_capturing
from gradwatch_torch.device import HostCopy
from gradwatch_torch.measure import Measured, Reader
from gradwatch_torch.units import AliveUnits, alive_units, saturated_pairs, unit_axis


@dataclass(frozen=True, slots=True)
class Layer:
    """A watched module: dotted path, whether it owns parameters, its optimizer's key (None: any), class name."""

    path: str
    owns: bool
    optimizer: str | None
    kind: str


@dataclass(slots=True)
class Capture:
    """What one site measured during a step: one entry per pass."""

    measured: list[Measured] = field(default_factory=list)
    alive: list[AliveUnits] = field(default_factory=list)
    saturated: list[HostCopy] = field(default_factory=list)

    def add(self, other: Capture) -> None:
        """Adds the passes of another capture of the site."""
        self.measured += other.measured
        self.alive += other.alive
        self.saturated += other.saturated

    def ready(self) -> bool:
        """Tells whether all passes have arrived."""
        for parts in (self.measured, self.alive, self.saturated):
            for part in parts:
                if not part.ready():
                    return False
        return True


Captures = dict[tuple[str, int], Capture]
"""(signal, site id) to its capture. The gradient at a site has the key of its activation's site id."""


class _Place:
    """One signal of a layer, as its tensors are read in every pass."""

    def __init__(self, signal: str, site: int) -> None:
        self.key = (signal, site)
        self._reader = Reader()

    def read(self, values: Tensor, axis: int | None) -> Capture:
        """Measures one pass."""
        measured = self._reader.reduce((values,), counts=True, histogram=True)
        return Capture([measured], [] if axis is None else [alive_units(values, axis, plain=self._reader.plain)], [])


class Activations:
    """Reduces the activations of watched layers while it is switched on."""

    def __init__(self, sites: SiteTable, layers: Mapping[nn.Module, Layer], guard: Guard, *, timed: bool) -> None:
        """Prepares; ``timed`` to know what it costs."""
        self._sites = sites
        self._layers = weakref.WeakKeyDictionary(dict(layers))
        forward = self._timed(self._forward) if timed else self._forward
        self._hook = guard.wrap(forward, "activations")
        gradient = self._timed(self._gradient) if timed else self._gradient
        self._gradient_hook = guard.wrap(gradient, "activations")
        self._seconds = 0.0
        self._handle: Any = None
        self._stale = False
        self._captures: Captures = {}
        self._places: dict[tuple[str, str, str], _Place] = {}
        self._owner: dict[int, str | None] = {}
        self._seen: dict[int, tuple[weakref.ref[Tensor], int, int | None]] = {}
        self._pass: set[int] = set()
        self._in_backward = False

    def switch(self, on: bool) -> None:
        """Puts the global hook on or takes it off."""
        if on and self._handle is None:
            self._handle = _register(self._hook)
        elif not on and self._handle is not None:
            self._handle.remove()
            # Torch forgets this entry when a global hook is removed, and would still count it as a hook.
            getattr(torch_module, "_global_forward_hooks_with_kwargs", {}).pop(self._handle.id, None)
            self._handle = None
            self._seen.clear()

    def take_seconds(self) -> float:
        """Returns the time spent here since the last call, 0 unless it is timed, and begins anew."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _timed(self, hook: Callable[..., None]) -> Callable[..., None]:
        def timed(*args: Any) -> None:
            began = time.perf_counter()
            hook(*args)
            self._seconds += time.perf_counter() - began

        return timed

    def end_step(self) -> None:
        """Marks what was captured so far as belonging to ended steps: the next forward pass begins anew."""
        self._stale = True
        self._seen.clear()

    def take(self, optimizer: str) -> Captures:
        """Removes and returns the captures of the layers that an optimizer trains."""
        if not self._captures:
            return {}
        keys = [key for key in self._captures if self._owner[key[1]] in (optimizer, None)]
        return {key: self._captures.pop(key) for key in keys}

    def put_back(self, captures: Captures) -> None:
        """Undoes ``take``."""
        join_captures(self._captures, captures)

    def _forward(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        layer = self._layers.get(module)
        if layer is None or not torch.is_grad_enabled() or is_capturing() or self._is_recomputed(module):
            return
        incoming = first_tensor(args[0]) if args else None
        if incoming is None:
            incoming = first_tensor((args, kwargs))
        inherited = None if incoming is None else self._axis_of(incoming)
        if layer.owns and incoming is not None and not self._is_known(incoming):
            self._capture(layer, ":input", module, incoming, unit_axis("", incoming.ndim, owns=False))
        outgoing = first_tensor(output)
        if outgoing is not None and not self._is_known(outgoing):
            axis = unit_axis(layer.kind, outgoing.ndim, owns=layer.owns, inherited=inherited)
            self._capture(layer, "", module, outgoing, axis)

    def _is_recomputed(self, module: nn.Module) -> bool:
        """Tells the second forward of activation checkpointing, run inside a backward, from a forward pass."""
        if torch._C._current_graph_task_id() != -1:
            self._in_backward = True
            return id(module) in self._pass
        if self._stale:
            self._stale = False
            self._captures.clear()
        if self._in_backward:
            self._in_backward = False
            self._pass.clear()
        self._pass.add(id(module))
        return False

    def _capture(self, layer: Layer, suffix: str, module: nn.Module, values: Tensor, axis: int | None) -> None:
        place = self._place("activation", layer, suffix, values.dtype)
        capture = place.read(values, axis)
        pairs = None if suffix else saturated_pairs(module, values)
        if pairs is not None:
            capture.saturated.append(HostCopy(pairs))
        self._add(place.key, capture)
        self._seen[id(values)] = (weakref.ref(values), values._version, axis)
        if values.requires_grad:
            place = self._place("activation_gradient", layer, suffix, values.dtype)
            values.register_hook(functools.partial(self._gradient_hook, place, axis))

    def _gradient(self, place: _Place, axis: int | None, gradient: Tensor) -> None:
        if self._handle is not None and not self._stale:
            self._add(place.key, place.read(gradient, axis))

    def _add(self, key: tuple[str, int], part: Capture) -> None:
        """Adds one pass to a site; a pass that failed on the way leaves nothing."""
        known = self._captures.setdefault(key, part)
        if known is not part:
            known.add(part)

    def _place(self, signal: str, layer: Layer, suffix: str, dtype: torch.dtype) -> _Place:
        key = (signal, layer.path, suffix)
        if key not in self._places:
            name, kind = layer.path + suffix, str(dtype).removeprefix("torch.")
            site = Site(signal, name, layer.path, layer.kind, dtype=kind, optimizer=layer.optimizer or "")
            self._places[key] = place = _Place(signal, self._sites.add(site))
            self._owner[place.key[1]] = layer.optimizer
        return self._places[key]

    def _is_known(self, tensor: Tensor) -> bool:
        """Tells whether this very tensor was read in this step and not changed since."""
        seen = self._seen.get(id(tensor))
        return seen is not None and seen[0]() is tensor and seen[1] == tensor._version

    def _axis_of(self, tensor: Tensor) -> int | None:
        seen = self._seen.get(id(tensor))
        return seen[2] if seen is not None and seen[0]() is tensor else None


def _register(hook: Callable[..., None]) -> Any:
    """Puts the global forward hook on; before torch 2.6 it does not see inputs that are given by keyword."""
    if "with_kwargs" in inspect.signature(torch_module.register_module_forward_hook).parameters:
        return torch_module.register_module_forward_hook(hook, with_kwargs=True)

    def without_keywords(module: nn.Module, args: Any, output: Any) -> None:
        hook(module, args, {}, output)

    return torch_module.register_module_forward_hook(without_keywords)


def join_captures(captures: Captures, more: Captures) -> None:
    """Adds the passes of ``more`` to ``captures``."""
    for key, part in more.items():
        known = captures.setdefault(key, part)
        if known is not part:
            known.add(part)


def first_tensor(value: Any) -> Tensor | None:
    """Returns the first floating-point tensor of a nest of tuples, lists, mappings and dataclasses; None if none."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() and value.layout == torch.strided and value.numel() else None
    if not isinstance(value, (tuple, list)):
        value = _parts(value)
    for item in value:
        found = first_tensor(item)
        if found is not None:
            return found
    return None


def _parts(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return tuple(value.values())
    return tuple(getattr(value, name) for name in getattr(value, "__dataclass_fields__", ()))
