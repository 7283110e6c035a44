"""JAX for gradwatch: statistics of every gradient as extra outputs of the train step's own program."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from gradwatch_jax.adapter import JaxAdapter
from gradwatch_jax.gradients import value_and_grad

if TYPE_CHECKING:
    from gradwatch_jax.optax_drain import drain
    from gradwatch_jax.optax_state import restore, strip
    from gradwatch_jax.optax_transform import optax_ring
    from gradwatch_jax.optax_watch import RingAdapter, Rings

__all__ = ["JaxAdapter", "RingAdapter", "Rings", "drain", "optax_ring", "restore", "strip", "value_and_grad"]

_WITH_OPTAX: Final = {
    "RingAdapter": "optax_watch",
    "Rings": "optax_watch",
    "drain": "optax_drain",
    "optax_ring": "optax_transform",
    "restore": "optax_state",
    "strip": "optax_state",
}
"""What needs optax is imported only when it is asked for: a train step of plain JAX is watched without it."""


def __getattr__(name: str) -> Any:
    if name not in _WITH_OPTAX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_OPTAX[name]}"), name)
