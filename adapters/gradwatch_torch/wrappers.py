"""Torch's own wrappers around a module: which there are, and what they mean for capture."""

from __future__ import annotations

import gc
from typing import Final

from torch import nn

_WRAPPERS: Final = {
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "FullyShardedDataParallel": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
"""Torch's wrappers (compile, DDP, FSDP, checkpointing) and the attribute under which each keeps its module."""


def unwrap(module: nn.Module) -> nn.Module:
    """Returns the module behind torch's own wrappers."""
    while True:
        name = _WRAPPERS.get(type(module).__name__)
        inner = getattr(module, name, None) if name and type(module).__module__.startswith("torch.") else None
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def averages_gradients(module: nn.Module) -> bool:
    """Tells whether a module is a DistributedDataParallel, compiled or not."""
    while True:
        if type(module).__name__ == "DistributedDataParallel":
            return True
        inner = getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return False
        module = inner


def is_compiled(model: nn.Module) -> bool:
    """Tells whether a model, or a wrapper around it that the user did not pass, is compiled.

    A hook that is on during the first compiled call would break its graph.
    """
    if any(type(module).__name__ == "OptimizedModule" or _compiles_itself(module) for module in model.modules()):
        return True
    root = unwrap(model)
    holders = (holder for holder in gc.get_referrers(root) if type(holder) is dict)
    return any(holder.get("_orig_mod") is root for holder in holders)


def _compiles_itself(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None
