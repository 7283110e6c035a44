"""The public way to take a gradient that gradwatch sees, also where JAX does not let it be seen from outside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from gradwatch_jax import compat


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False, **options: Any
) -> Callable[..., Any]:
    """Is ``jax.value_and_grad``, and shows the gradient to the watched step around it.

    Only needed where gradwatch's log says that gradients cannot be seen from outside.

    Args:
        function: returns a scalar, or a pair of a scalar and more when ``has_aux``.
        argnums: which arguments to differentiate.
        has_aux: whether the function returns a pair.
        options: further options of ``jax.value_and_grad``.
    """
    taken = jax.value_and_grad(function, argnums, has_aux=has_aux, **options)
    if compat.hooks():
        return taken

    @functools.wraps(taken)
    def shown(*args: Any, **kwargs: Any) -> Any:
        value, gradients = taken(*args, **kwargs)
        listener = compat.active()
        if listener is not None:
            single = isinstance(argnums, int)
            primals = (args[argnums],) if isinstance(argnums, int) else tuple(args[i] for i in argnums)
            _, done = listener(function, primals)
            done(value[0] if has_aux else value, (gradients,) if single else gradients)
        return value, gradients

    return shown
