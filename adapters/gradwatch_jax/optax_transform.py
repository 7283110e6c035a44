"""An optax transformation that keeps the statistics of the last updates it saw in the optimizer's state.

For what a decorated step cannot see: gradients before and after clipping in one chain, steps under ``shard_map`` or
``pmap``, and libraries that own the step.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradwatch.errors import GradwatchError
from gradwatch.guard import Guard
from gradwatch.record import ABSENT, STAGES
from gradwatch_jax import kernel
from gradwatch_jax.names import Parameter, Path, leaves, parameter, root_name

SIGNALS: Final = ("gradient", "update")


@dataclass(frozen=True, eq=False, slots=True)
class About:
    """What the rows of a ring mean: static data of the optimizer's state.

    Attributes:
        size: rows kept.
        stage: one of ``gradwatch.record.STAGES``.
        name: key of the optimizer in a run.
        signal: ``gradient``, ``update``, or "" to go by the ring's place in the chain.
        paths: of the arrays that have a row, in the order of the rows.
        parameters: their names, shapes and sizes.
    """

    size: int
    stage: str
    name: str
    signal: str
    paths: tuple[Path, ...] = ()
    parameters: tuple[Parameter, ...] = ()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, About) or self._options() != other._options():
            return False
        # optax.tree_map_params initializes with a placeholder that has no parameters, and compares the trees.
        empty = not self.parameters or not other.parameters
        return empty or (self.paths, self.parameters) == (other.paths, other.parameters)

    def __hash__(self) -> int:
        return hash(self._options())

    def _options(self) -> tuple[int, str, str, str]:
        return self.size, self.stage, self.name, self.signal


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, slots=True)
class RingState:
    """The last rows of m arrays; row i holds the newest update whose number modulo the size is i.

    Attributes:
        count: updates seen, int32, shape [].
        floats, integers: as in ``kernel.Rows``, shape [size, m, 3]; NaN where an array of the parameters had no update.
        about: static.
    """

    count: Any
    floats: Any
    integers: Any
    about: About

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], About]:
        """Returns the arrays with their names."""
        key = jax.tree_util.GetAttrKey
        named = ((key("count"), self.count), (key("floats"), self.floats), (key("integers"), self.integers))
        return named, self.about

    def tree_flatten(self) -> tuple[tuple[Any, ...], About]:
        """Returns the arrays."""
        return (self.count, self.floats, self.integers), self.about

    @classmethod
    def tree_unflatten(cls, about: About, children: tuple[Any, ...]) -> RingState:
        """Returns the node of these arrays."""
        count, floats, integers = children
        return cls(count, floats, integers, about)


def optax_ring(
    size: int = 16, *, stage: str = "unscaled", name: str = "", signal: str | None = None
) -> optax.GradientTransformation:
    """Returns a transformation that passes updates through and remembers the statistics of the last ``size`` of them.

    The state holds l2, sum, absmax and the counts of NaN and infinite elements of each array, right for elements from
    1e-37 to 1e37, and a counter: 24 bytes an array and row. No callback. Works under jit, scan, ``pmap`` and
    ``shard_map``, and inside ``optax.chain``, ``MultiSteps``, ``masked``, ``multi_transform`` and
    ``inject_hyperparams``::

        tx = optax.chain(
            gradwatch_jax.optax_ring(stage="before clipping"),
            optax.clip_by_global_norm(1.0),
            optax.adamw(3e-4),
            gradwatch_jax.optax_ring(),  # what is applied: the run's ``update``
        )

    The updates are passed on as they are, and the statistics stand behind an optimization barrier. At the head of a
    chain that kept 20 steps of 10 optimizers bitwise equal (CPU, float32 and bfloat16). Further back XLA may contract
    ``a * b + c`` across the place of the ring or not, and round otherwise: differences up to 2.4e-7 were seen, between
    clipping and momentum and at the end of ``MultiSteps``, in float32.

    Read it with ``drain`` or, into a run, with ``Rings``. What to mind:

    * Under ``apply_if_finite`` the ring must be outside (``chain(ring, apply_if_finite(...))``): inside, the state of a
      step that is not finite is thrown away, and with it the row that says so.
    * Inside ``MultiSteps`` it sees accumulated gradients, outside every micro-batch.
    * Under ``pmap`` and ``shard_map`` each device has its own ring. Behind the ``pmean`` all are alike. Before it they
      differ: the rows are then those of the first device, with the stage ``local``.
    * The state of an optimizer with a ring is not that of one without: ``strip`` it before a checkpoint, ``restore``
      it afterwards.

    Args:
        size: updates that are kept, 1 or more: those between two calls of ``drain``.
        stage: one of ``gradwatch.record.STAGES``: what the gradients are at this place.
        name: key of the optimizer in a run; rings of one name must see the same steps.
        signal: ``"gradient"`` or ``"update"``; by default a ring with a transformation before it, and none but rings
            behind it, holds updates, and every other one gradients.

    Raises:
        GradwatchError: for an option out of range.
    """
    _check(size, stage, signal)
    # A failure of ours while the user's step is traced leaves null rows and one line in the log.
    rows_of = Guard().wrap(_rows, "an optax ring")

    def init(params: Any) -> RingState:
        _tell_flax()
        about = _about(params, size, stage, name, signal or "")
        shape = (size, len(about.parameters), 3)
        return RingState(jnp.zeros((), jnp.int32), jnp.zeros(shape, float), jnp.zeros(shape, jnp.int32), about)

    def update(updates: Any, state: RingState, params: Any = None) -> tuple[Any, RingState]:
        del params
        about = state.about
        rows = rows_of(about, updates) if about.parameters else None
        return updates, _add(state, rows or _null(len(about.parameters)))

    return optax.GradientTransformation(init, update)


def _check(size: int, stage: str, signal: str | None) -> None:
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise GradwatchError(f"size={size!r} must be a number of updates, 1 or more.")
    if stage not in STAGES or stage == ABSENT:
        known = ", ".join(repr(known) for known in STAGES if known != ABSENT)
        raise GradwatchError(f"stage={stage!r} is unknown; choose one of {known}.")
    if signal is not None and signal not in SIGNALS:
        raise GradwatchError(f"signal={signal!r} is unknown; choose 'gradient' or 'update', or leave it out.")


def _about(params: Any, size: int, stage: str, name: str, signal: str) -> About:
    root = root_name(params)
    found = [(path, array) for path, array in leaves(params) if _has_row(array)]
    described = tuple(parameter(path, array, root) for path, array in found)
    return About(int(size), stage, name, signal, tuple(path for path, _ in found), described)


def _has_row(array: Any) -> bool:
    dtype = getattr(array, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and array.size > 0


def _add(state: RingState, rows: tuple[Any, Any]) -> RingState:
    floats, integers = rows
    slot = state.count % state.about.size
    return RingState(
        state.count + 1,
        state.floats.at[slot].set(floats.astype(state.floats.dtype)),
        state.integers.at[slot].set(integers),
        state.about,
    )


def _null(m: int) -> tuple[Any, Any]:
    return jnp.full((m, 3), jnp.nan, float), jnp.zeros((m, 3), jnp.int32)


def _rows(about: About, updates: Any) -> tuple[Any, Any]:
    """Returns the newest row; null for arrays that have no update, or one of another shape than at ``init``."""
    given = dict(leaves(updates))
    arrays: list[tuple[int, Any]] = [(i, given.get(path)) for i, path in enumerate(about.paths)]
    shapes = [described.shape for described in about.parameters]
    there = [(i, array) for i, array in arrays if _has_row(array) and np.shape(array) == shapes[i]]
    floats, integers = _null(len(arrays))
    if not there:
        return floats, integers
    rows = kernel.separate_reductions([jnp.asarray(array) for _, array in there], full=None, grouped=_may_stack())
    if len(there) == len(arrays):
        return rows.floats, rows.integers
    at = np.array([i for i, _ in there])
    return floats.at[at].set(rows.floats.astype(floats.dtype)), integers.at[at].set(rows.integers)


def _may_stack() -> bool:
    """Tells whether arrays may be stacked: not where a mesh is set whose arrays carry shardings in their types."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or bool(mesh.manual_axes)


def _tell_flax() -> None:
    """Lets flax.serialization, where it is in use, take the state apart as it does with optax's own."""
    serialization = sys.modules.get("flax.serialization")
    if serialization is not None:
        serialization.register_serialization_state(RingState, _to_dict, _from_dict, override=True)


def _to_dict(state: RingState) -> dict[str, Any]:
    return {"count": state.count, "floats": state.floats, "integers": state.integers}


def _from_dict(state: RingState, given: dict[str, Any]) -> RingState:
    return RingState(given["count"], given["floats"], given["integers"], state.about)
