"""Rings inside an optimizer's state: finding them, taking them out before a checkpoint, putting them back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax

from gradwatch.errors import GradwatchError
from gradwatch_jax.optax_transform import RingState


@dataclass(frozen=True, slots=True)
class Found:
    """A ring, and what its rows are: ``gradient`` or ``update``."""

    state: RingState
    signal: str


def find(state: Any) -> list[Found]:
    """Returns every ring in any tree, in the order of the tree."""
    return list(_find(state, before=False, behind=False))


def strip(opt_state: Any) -> Any:
    """Takes the rings out of an optimizer's state, in any tree: what is left is a plain state for a checkpoint.

    A chain's state becomes that of the same chain without its rings, so optimizers with and without a ring can load
    each other's checkpoints; where a ring stands alone inside another transformation, ``optax.EmptyState`` is left::

        save(gradwatch_jax.strip(opt_state))
        opt_state = gradwatch_jax.restore(load(), tx.init(params))
    """
    if isinstance(opt_state, RingState):
        return optax.EmptyState()
    if type(opt_state) in (tuple, list):
        return type(opt_state)(strip(child) for child in opt_state if not isinstance(child, RingState))
    if type(opt_state) is dict:
        return {key: strip(child) for key, child in opt_state.items() if not isinstance(child, RingState)}
    return _each(strip, opt_state)


def restore(opt_state: Any, template: Any) -> Any:
    """Puts the template's rings into a plain state: the inverse of ``strip``; those of ``tx.init(params)`` are empty.

    Args:
        opt_state: a state without rings, such as one loaded from a checkpoint; rings that it has are replaced.
        template: a state of the optimizer with rings.

    Raises:
        GradwatchError: when the two are not states of the same optimizer.
    """
    try:
        return _restore(template, strip(opt_state))
    except (ValueError, TypeError, KeyError) as error:
        message = f"cannot put rings back: the state is not that of the template's optimizer without rings ({error})."
        raise GradwatchError(message) from error


def _restore(template: Any, plain: Any) -> Any:
    if isinstance(template, RingState):
        return template
    if type(template) in (tuple, list):
        rest = iter(_checked(plain, template))
        return type(template)(t if isinstance(t, RingState) else _restore(t, next(rest)) for t in template)
    if type(template) is dict:
        _checked(plain, template)
        return {key: t if isinstance(t, RingState) else _restore(t, plain[key]) for key, t in template.items()}
    return _each(_restore, template, plain)


def _checked(plain: Any, template: Any) -> Any:
    values = list(template.values()) if isinstance(template, Mapping) else list(template)
    wanted = sum(not isinstance(value, RingState) for value in values)
    if type(plain) is not type(template) or len(plain) != wanted:
        size = len(plain) if hasattr(plain, "__len__") else "no"
        raise ValueError(f"{type(plain).__name__} of {size} parts in place of {type(template).__name__} of {wanted}")
    return plain


def _each(function: Callable[..., Any], node: Any, *others: Any) -> Any:
    """Rebuilds a node of any registered kind from its children; returns the last argument where it is a leaf."""
    if _is_leaf(node):
        return others[-1] if others else node
    return jax.tree.map(function, node, *others, is_leaf=lambda x: x is not node)


def _is_leaf(node: Any) -> bool:
    return jax.tree_util.treedef_is_leaf(jax.tree.structure(node, is_leaf=lambda x: x is not node))


def _find(node: Any, *, before: bool, behind: bool) -> Iterator[Found]:
    """Walks a tree; ``before`` and ``behind`` tell whether a chain around it has other transformations there."""
    if isinstance(node, RingState):
        yield Found(node, node.about.signal or ("update" if before and not behind else "gradient"))
    elif type(node) is tuple:
        other = [not isinstance(child, RingState) for child in node]
        for i, child in enumerate(node):
            yield from _find(child, before=before or any(other[:i]), behind=behind or any(other[i + 1 :]))
    elif not _is_leaf(node):
        for child in jax.tree.leaves(node, is_leaf=lambda x: x is not node):
            yield from _find(child, before=before, behind=behind)
