"""Attaches capture to torch models and optimizers, and takes it off again."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from gradwatch.errors import GradwatchError
from gradwatch.plugins import Session
from gradwatch.schedule import Plan
from gradwatch_torch import interception, targets
from gradwatch_torch.activations import Activations, Layer
from gradwatch_torch.arrival import is_capturing
from gradwatch_torch.capture import OptimizerCapture, Shared
from gradwatch_torch.device import HostCopy, scalar_reader
from gradwatch_torch.first_pass import FirstPass
from gradwatch_torch.losses import Losses
from gradwatch_torch.manual import ManualLoop
from gradwatch_torch.targets import Parameter
from gradwatch_torch.unstepped import Unstepped
from gradwatch_torch.wrappers import averages_gradients, is_compiled

F = TypeVar("F", bound=Callable[..., Any])

_NAMES_SHOWN = 8


class TorchAdapter:
    """Captures training loops of torch: at the optimizer's step, and in the passes of sampled steps."""

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []
        self._models: dict[str, weakref.ref[nn.Module]] = {}
        self._index: dict[int, Parameter] = {}
        self._status: dict[int, tuple[str, str]] = {}
        self._captures: dict[int, OptimizerCapture] = {}
        self._session: Session | None = None
        self._by_hand = False
        self._plans: list[Plan] = []
        self._loop: ManualLoop | None = None
        self._stepped: Callable[[], None] | None = None
        self._first_pass: FirstPass | None = None

    def claims(self, *objects: Any) -> bool:
        """Tells whether these are torch modules and optimizers, also in lists and dicts."""
        return targets.claims(objects)

    def attach(self, session: Session, *objects: Any) -> None:
        """Starts capture.

        Raises:
            GradwatchError: when there is no model, no parameter, or no watched layer among the objects.
        """
        models, optimizers = targets.models(objects), targets.optimizers(objects)
        self._session = session
        self._models = {key: weakref.ref(model) for key, model in models.items()}
        watched = self._watched_parameters(models)
        self._assign(watched, optimizers)
        for parameter in watched:
            optimizer, status = self._status[id(parameter.tensor)]
            session.sites.add(targets.site("gradient", parameter, optimizer, status))
        self._losses = Losses()
        layers = self._layers(models, optimizers)
        self._activations = Activations(
            session.sites, layers, session.recorder.guard, timed=session.schedule.budget is not None
        )
        self._compiled = any(is_compiled(model) for model in models.values())
        if self._compiled:
            session.note("no activations were captured, because the model is compiled")
        self._extra = [p.tensor for p in watched if self._status[id(p.tensor)][1] == "missing"]
        self._reduced = any(averages_gradients(model) for model in models.values())
        self._listen(optimizers)
        if not self._compiled:
            self._first_pass = FirstPass(models, session.recorder.guard)
            self._ends.append(self._first_pass.stop)
        self._switch()

    def detach(self) -> None:
        """Takes every hook off and puts torch's functions back; safe to call twice."""
        while self._ends:
            self._ends.pop()()
        if self._session is not None:
            self._activations.switch(False)
        self._captures.clear()
        self._index.clear()

    def step(self) -> None:
        """Ends a step by hand: reads the gradients as they are now."""
        session = self._session
        if session is None:
            return
        self._by_hand = True
        session.recorder.guard.wrap(self._end_by_hand)()

    def _end_by_hand(self) -> None:
        capture = self._captures.get(id(None)) or self._capture(None, "", [])
        capture.end_by_hand(capture.read_by_hand(self._trainable()))

    def _trainable(self) -> list[Tensor]:
        return [p.tensor for p in self._index.values() if p.tensor.requires_grad]

    def _manual_capture(self) -> OptimizerCapture | None:
        """Returns the capture of a loop in which neither an optimizer nor the user ends the steps."""
        if self._by_hand or any(key != id(None) for key in self._captures):
            return None
        return self._captures.get(id(None)) or self._capture(None, "", [])

    def decorate(self, function: F) -> F:
        """Returns the train step; a scalar that it returns is recorded as the loss unless the loss is known already."""
        assert self._session is not None
        suggest = self._session.recorder.guard.wrap(self._suggest, "log")

        @functools.wraps(function)
        def step(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            suggest(result)
            return result

        return step  # type: ignore[return-value]

    def scalar(self, value: Any) -> Callable[[], float] | None:
        """Returns a reader of a tensor of one element, or None."""
        if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
            return scalar_reader(value)
        return None

    def world(self) -> tuple[int, int] | None:
        """Returns rank and world size once a process group exists."""
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return None

    def facts(self) -> Mapping[str, Any]:
        """Returns the framework and its version."""
        return {"framework": "PyTorch", "framework_version": torch.__version__}

    def _suggest(self, result: Any) -> None:
        reader = self.scalar(result)
        if reader is None and isinstance(result, float):
            reader = functools.partial(float, result)
        if reader is not None and self._session is not None:
            self._session.scalars.suggest({"loss": reader})

    def _watched_parameters(self, models: Mapping[str, nn.Module]) -> list[Parameter]:
        assert self._session is not None
        everything = targets.parameters(models)
        watched = [parameter for parameter in everything if self._session.layers(parameter.layer)]
        if not watched:
            names = list(dict.fromkeys(parameter.layer for parameter in everything))
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            raise GradwatchError(
                f"layers= matches none of the model's layers, which are {', '.join(names[:_NAMES_SHOWN])}{more}."
            )
        self._index = {id(parameter.tensor): parameter for parameter in watched}
        return watched

    def _assign(self, watched: Sequence[Parameter], optimizers: Mapping[str, Optimizer]) -> None:
        """States which optimizer trains each parameter, and which are frozen or in none."""
        owners = {
            id(tensor): key
            for key, optimizer in reversed(list(optimizers.items()))
            for group in optimizer.param_groups
            for tensor in group["params"]
        }
        for parameter in watched:
            key = id(parameter.tensor)
            owner = owners.get(key, "")
            held = key in owners or not optimizers
            status = "frozen" if not parameter.tensor.requires_grad else "trained" if held else "missing"
            self._status[key] = (owner, status)

    def _describe(self, tensor: Tensor) -> tuple[Parameter, str] | None:
        """Returns a parameter's names and status; looks again when a wrapper has replaced the model's parameters."""
        if id(tensor) not in self._index:
            alive = {key: model for key, ref in self._models.items() if (model := ref()) is not None}
            found = [p for p in targets.parameters(alive) if p.tensor is tensor] if alive else []
            if not found or self._session is None or not self._session.layers(found[0].layer):
                return None
            self._index[id(tensor)] = found[0]
        status = self._status.get(id(tensor), ("", "trained" if tensor.requires_grad else "frozen"))[1]
        return self._index[id(tensor)], status

    def _layers(self, models: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> dict[nn.Module, Layer]:
        """Returns the watched modules that own parameters or are leaves, each with its optimizer.

        A leaf without parameters goes with the parameters before it.
        """
        assert self._session is not None
        layers: dict[nn.Module, Layer] = {}
        owner = next(iter(optimizers), None)
        for path, module in targets.modules(models):
            owned = list(module.parameters(recurse=False))
            trained = [self._status[id(p)][0] for p in owned if id(p) in self._status]
            if optimizers and trained and trained[0]:
                owner = trained[0]
            name = targets.layer_name(path, module)
            if (owned or not any(True for _ in module.children())) and self._session.layers(name):
                layers[module] = Layer(name, bool(owned), owner, type(module).__name__)
        return layers

    def _listen(self, optimizers: Mapping[str, Optimizer]) -> None:
        assert self._session is not None
        guard = self._session.recorder.guard
        before = torch.compiler.disable(guard.wrap(self._before_step))
        after = torch.compiler.disable(guard.wrap(self._after_step))
        for i, (key, optimizer) in enumerate(optimizers.items()):
            self._capture(optimizer, key, self._extra if i == 0 else [])
            self._ends.append(optimizer.register_step_pre_hook(before).remove)
            self._ends.append(optimizer.register_step_post_hook(after).remove)
        if not optimizers:
            self._ends.append(register_optimizer_step_pre_hook(before).remove)
            self._ends.append(register_optimizer_step_post_hook(after).remove)
        scaling = (guard.wrap(self._before_scaler), guard.wrap(self._after_scaler))
        self._ends.append(interception.scaler_step.listen(*scaling))
        self._ends.append(interception.clip.listen(guard.wrap(self._clipping, "clipping")))
        if not optimizers:
            self._loop = loop = ManualLoop(self._manual_capture, self._trainable)
            around = (guard.wrap(loop.before_backward), guard.wrap(loop.after_backward))
            self._ends.append(interception.backward.listen(*around))
            self._ends.append(guard.wrap(loop.end, "the last step"))
        else:
            self._stepped = Unstepped(self._captures, optimizers.values(), self._trainable).listen(guard)
            self._ends.append(self._stepped)
        self._ends.append(interception.backward.listen(guard.wrap(self._losses.listen, "loss")))

    def _capture(self, optimizer: Optimizer | None, name: str, extra: Sequence[Tensor]) -> OptimizerCapture:
        session = self._session
        assert session is not None
        shared = Shared(session, self._activations, self._losses, self._describe, self._after_end)
        capture = OptimizerCapture(name, shared, extra, optimizer)
        self._captures[id(optimizer)] = capture
        return capture

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        capture = self._captures.get(id(optimizer)) or self._adopt(optimizer)
        if capture is not None:
            if self._stepped is not None:
                self._stepped()
                self._stepped = None
            capture.reduced = self._reduced or (self._first_pass is not None and self._first_pass.averaged)
            capture.before_step(optimizer, args, kwargs)

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        capture = self._captures.get(id(optimizer))
        if capture is not None:
            capture.after_step()

    def _adopt(self, optimizer: Optimizer) -> OptimizerCapture | None:
        """Takes on an optimizer that was not given but trains watched parameters."""
        tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
        if not any(id(tensor) in self._index for tensor in tensors):
            return None
        first = self._captures.pop(id(None), None)
        if first is not None and self._loop is not None and not first.ended:
            # Until its first step nothing tells an optimizer's loop from one without: what was read is its.
            self._activations.put_back(self._loop.give_up())
            first.belongs_to(optimizer)
            self._captures[id(optimizer)] = first
            return first
        known = {capture.key for capture in self._captures.values()}
        name = type(optimizer).__name__ if known else ""
        while name in known:
            name += "'"
        return self._capture(optimizer, name, [])

    def _before_scaler(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        capture = self._captures.get(id(_scaled_optimizer(args, kwargs)))
        scale = getattr(args[0], "_scale", None)
        if capture is not None and isinstance(scale, Tensor):
            capture.loss_scale = HostCopy(scale)
            self._ended_before = capture.ended

    def _after_scaler(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        capture = self._captures.get(id(_scaled_optimizer(args, kwargs)))
        if capture is not None and capture.loss_scale is not None and capture.ended == self._ended_before:
            capture.skipped_step()

    def _clipping(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = dict(zip(("parameters", "max_norm", "total_norm"), args, strict=False)) | kwargs
        norm, parameters = bound["total_norm"], bound["parameters"]
        if not isinstance(norm, Tensor) or hasattr(norm, "to_local") or is_capturing():
            return
        tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        limit = bound["max_norm"]
        max_norm = scalar_reader(limit) if isinstance(limit, Tensor) else functools.partial(float, limit)
        for capture in self._captures.values():
            capture.clipped(tensors, max_norm, HostCopy(norm))

    def _after_end(self) -> None:
        """Called when any step has ended."""
        assert self._session is not None
        if self._first_pass is not None:
            self._first_pass.end(self._session.sites)
            self._reduced |= self._first_pass.averaged
            self._first_pass = None
        if self._loop is None or self._by_hand or id(None) not in self._captures:
            # A loop without an optimizer is seen to have ended its step in the next pass, whose activations must stay.
            self._activations.end_step()
        self._losses.end_step()
        self._switch()

    def _switch(self) -> None:
        assert self._session is not None
        plans = [capture.plan for capture in self._captures.values()] or [self._session.schedule.plan(0)]
        if plans == self._plans:
            return
        self._plans = plans
        self._losses.wanted = any(plans)
        self._activations.switch(any(plan.activation for plan in plans) and not self._compiled)


def _scaled_optimizer(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("optimizer")
