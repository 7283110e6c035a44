"""What a step captured, joined into two arrays before it leaves the program.

Every array that leaves a program costs a buffer, a handle and a read, at every step. What a step that takes gradients
alone fills is joined into one array, all the rest into another, which is read only when something was put into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwatch.schedule import Plan
from gradwatch_jax.captured import Captured, Layout
from gradwatch_jax.kernel import Array

_WORD: Final = 4
"""Bytes of an element of the joined arrays, and of all that is joined."""


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where an array stands in one of the joined ones."""

    array: int
    part: slice
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def of(self, joined: Sequence[Any]) -> Any:
        return joined[self.array][self.part].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class _Form:
    """A tree of arrays that were joined."""

    tree: Any
    slots: tuple[_Slot, ...]

    def of(self, joined: Sequence[Any]) -> Captured:
        captured: Captured = self.tree.unflatten([slot.of(joined) for slot in self.slots])
        return captured


@dataclass(frozen=True, eq=False, slots=True)
class Forms:
    """What the two arrays hold: static data of a trace."""

    layout: Layout
    lean: _Form
    whole: _Form


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, slots=True)
class Packed:
    """A captured step in two arrays.

    Attributes:
        forms: what they hold.
        often: what a step that takes gradients without their histograms fills, int32, shape [n] or longer.
        seldom: the rest, or None.
    """

    forms: Forms
    often: Array
    seldom: Array | None = None

    @property
    def layout(self) -> Layout:
        """What was captured."""
        return self.forms.layout

    def tree_flatten(self) -> tuple[tuple[Any, ...], Forms]:
        """Returns the arrays, and what they hold as static data."""
        return (self.often, self.seldom), self.forms

    @classmethod
    def tree_unflatten(cls, forms: Forms, children: tuple[Any, ...]) -> Packed:
        """Returns the node of these arrays."""
        return cls(forms, *children)

    def of(self, plan: Plan) -> Packed:
        """Returns what was captured by a plan, which lets go of the rest."""
        lean = not plan.histogram and len(plan.signals) == plan.gradient
        return Packed(self.forms, self.often) if lean else self

    def arrays(self) -> list[Any]:
        """Returns all arrays."""
        return [self.often] if self.seldom is None else [self.often, self.seldom]

    def unpacked(self) -> Captured:
        """Returns the captured step on the host; waits for it."""
        joined = [np.asarray(array) for array in self.arrays()]
        return (self.forms.lean if self.seldom is None else self.forms.whole).of(joined)


def pack(captured: Captured) -> Captured | Packed:
    """Returns what was captured in two arrays, or as it is where it has elements of more than 4 bytes, or none."""
    lean = _lean(captured)
    first = jax.tree.leaves(lean)
    known = {id(array) for array in first}
    rest = [array for array in jax.tree.leaves(captured) if id(array) not in known]
    if not first or any(array.dtype.itemsize != _WORD for array in (*first, *rest)):
        return captured
    slots = {**_slots(0, first), **_slots(1, rest)}
    forms = Forms(captured.layout, _form(lean, slots), _form(captured, slots))
    return Packed(forms, _joined(first), _joined(rest) if rest else None)


def _lean(captured: Captured) -> Captured:
    """Leaves out what a step that takes gradients alone does not fill."""
    rings = tuple(ring.lean() for ring in captured.gradients)
    return replace(captured, gradients=rings, update=None, weight=None, activations={})


def _form(tree: Any, slots: dict[int, _Slot]) -> _Form:
    arrays, structure = jax.tree.flatten(tree)
    return _Form(structure, tuple(slots[id(array)] for array in arrays))


def _slots(number: int, arrays: Sequence[Array]) -> dict[int, _Slot]:
    slots, start = {}, 0
    for array in arrays:
        slots[id(array)] = _Slot(number, slice(start, start + array.size), array.shape, np.dtype(array.dtype))
        start += array.size
    return slots


def _joined(arrays: Sequence[Array]) -> Array:
    """Joins the bits; behind a barrier, so that what the loss is made of is not computed again for us."""
    apart = lax.optimization_barrier(tuple(arrays))
    return jnp.concatenate([lax.bitcast_convert_type(array, jnp.int32).reshape(-1) for array in apart])
