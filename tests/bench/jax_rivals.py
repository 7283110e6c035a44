"""Other ways of reading gradients in JAX: each is traced after the gradient, and what it returns is a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax.experimental import io_callback

received: list[Any] = []


def nothing(gradients: Any) -> tuple[()]:
    """What a bare step does with its gradients beside using them."""
    del gradients
    return ()


def norms(gradients: Any) -> Any:
    """Returns the norm of each leaf."""
    return jax.tree.map(jnp.linalg.norm, _flat(gradients))


def one_io_callback(gradients: Any) -> tuple[()]:
    """Sends l2, sum, absmax, zeros and the non-finite count of each leaf to the host in one call."""
    io_callback(_receive, None, jax.tree.map(_five, gradients), ordered=False)
    return ()


def debug_callbacks(gradients: Any) -> tuple[()]:
    """Sends the norm of each leaf to the host in a call of its own."""
    for leaf in jax.tree.leaves(_flat(gradients)):
        jax.debug.callback(_receive, jnp.linalg.norm(leaf))
    return ()


def _receive(values: Any) -> None:
    received[:] = [values]


def _flat(gradients: Any) -> Any:
    return jax.tree.map(jnp.ravel, gradients)


def _five(leaf: jax.Array) -> tuple[jax.Array, ...]:
    finite = jnp.isfinite(leaf)
    return jnp.sum(leaf * leaf), jnp.sum(leaf), jnp.max(jnp.abs(leaf)), jnp.sum(leaf == 0), jnp.sum(~finite)


TAPS: Final[dict[str, Callable[[Any], Any]]] = {
    "": nothing,
    "norms": norms,
    "io-callback": one_io_callback,
    "debug-callback": debug_callbacks,
}
