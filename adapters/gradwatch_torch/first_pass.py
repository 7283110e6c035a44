"""What only the first forward pass can tell: the order of the layers, and whether DDP wraps a model there."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from gradwatch.guard import Guard
from gradwatch.record import SiteTable
from gradwatch_torch import targets
from gradwatch_torch.wrappers import averages_gradients, unwrap


class FirstPass:
    """Observes the entry of every module until the first step has ended.

    Attributes:
        averaged: whether a DistributedDataParallel that the user did not pass wraps a watched model.
    """

    def __init__(self, models: Mapping[str, nn.Module], guard: Guard) -> None:
        self.averaged = False
        self._names = {id(module): targets.layer_name(path, module) for path, module in targets.modules(models)}
        self._roots = {id(unwrap(model)) for model in models.values()}
        self._order: dict[str, None] = {}
        self._handle = register_module_forward_pre_hook(guard.wrap(self._enter, "layer order"))

    def stop(self) -> None:
        """Takes the hook off."""
        self._handle.remove()

    def end(self, sites: SiteTable) -> None:
        """Takes the hook off and states the order that was seen."""
        self.stop()
        if self._order:
            sites.set_order(self._order)

    def _enter(self, module: nn.Module, _: object) -> None:
        name = self._names.get(id(module))
        if name is not None:
            self._order.setdefault(name)
        elif averages_gradients(module) and id(unwrap(module)) in self._roots:
            self.averaged = True
