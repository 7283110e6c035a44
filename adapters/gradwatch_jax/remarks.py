"""What could not be seen, one sentence each, with what to do about it."""

from __future__ import annotations

from typing import Final

PER_EXAMPLE: Final = (
    "gradients are taken per example (vmap of grad) and were not recorded, because reading them would change the "
    "training; take the gradient of the mean loss to have it recorded"
)
MANUAL: Final = (
    "gradients are taken inside pmap, or in a loop or a jit inside shard_map, and were not recorded, because nothing "
    "else can leave it; put gradwatch_jax.optax_ring() at the head of the optimizer's chain to have them recorded"
)
APART: Final = (
    "gradients differ between the shards of a shard_map and no psum or pmean of them was found, so those of all shards "
    "were recorded together; if all are to apply the same gradient, take jax.lax.pmean of it, in a step under jax.jit"
)
PMAP: Final = (
    "the step was made by jax.pmap, which nothing else can leave, so it runs unwatched; use jax.jit over a "
    "jax.shard_map in its place, or put gradwatch_jax.optax_ring() at the head of the optimizer's chain and watch that"
)
UNREACHABLE: Final = (
    "gradients are taken in a compiled function inside a step that is not compiled itself, and were not recorded, "
    "because there is more than one device; put jax.jit around the whole step, below @gradwatch.watch"
)
UNKNOWN_LENGTH: Final = (
    "gradients are taken in a loop whose length is not known when it is compiled; of each call only the last one was "
    "recorded, as one step"
)
NO_GRADIENT: Final = (
    "the step takes no gradient with jax.grad or jax.value_and_grad, so none was recorded; decorate the function that "
    "takes it"
)
NOT_FED_BACK: Final = (
    "no update and no weight was recorded, because what the step returns does not go into the next call as its "
    "parameters"
)
OUTER_TRANSFORMATION: Final = (
    "a watched step was called inside jax.jit, grad or vmap; put @gradwatch.watch above @jax.jit, so that it is the "
    "outermost decorator."
)
COMPILED: Final = (
    "cannot watch a step that is compiled already ({kind}); give @gradwatch.watch the function that jax.jit returns, "
    "before lower() and compile()."
)
