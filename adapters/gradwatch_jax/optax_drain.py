"""Reads rings on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import jax
import numpy as np
import numpy.typing as npt

from gradwatch.errors import GradwatchError
from gradwatch.statistics import Statistics
from gradwatch_jax.host import statistics
from gradwatch_jax.kernel import Rows
from gradwatch_jax.names import Parameter
from gradwatch_jax.optax_state import Found, find
from gradwatch_jax.optax_transform import About

NO_RING: Final = (
    "there is no ring in this state; put gradwatch_jax.optax_ring() into the optimizer's chain and pass the state that "
    "its init and update return."
)
TRACED: Final = "a ring is read on the host: call drain outside jit, on the state that the compiled step returned."

_ON_ALL_PROCESSES: Final = {
    "unscaled": "reduced",
    "before clipping": "reduced",
    "after clipping": "reduced, after clipping",
}


@dataclass(frozen=True, slots=True)
class HostRing:
    """A ring whose rows have arrived on the host.

    Attributes:
        about: static data of the ring.
        stage: that of the ring, but ``local`` where devices differ, and a reduced one where processes share it.
        count: updates seen.
        floats, integers: shape [size, m, 3].
    """

    about: About
    stage: str
    count: int
    floats: npt.NDArray[Any]
    integers: npt.NDArray[Any]

    def row(self, number: int) -> Rows:
        """Returns the row of an update that is still there, by its number."""
        slot = number % self.about.size
        return Rows(self.floats[slot], self.integers[slot])

    def kept_from(self, seen: int) -> tuple[int, int]:
        """Returns the first update since ``seen`` that is still there, and how many were overwritten before it."""
        first = max(seen, self.count - self.about.size)
        return first, first - seen


@dataclass(frozen=True, slots=True)
class Drained:
    """What one ring held that was not read before.

    Attributes:
        name, stage: those of the ring; ``local`` where devices held different rows, of which the first's are given.
        signal: ``gradient`` or ``update``.
        parameters: the arrays, in the order of the statistics.
        first: number of the first of ``steps``, counted from the ring's first update.
        steps: statistics of shape [m], one for each update.
        count: updates that the ring has seen.
        overwritten: updates that came and went since the last reading.
        needed: the smallest ``optax_ring(size=...)`` that would have kept all.
    """

    name: str
    stage: str
    signal: str
    parameters: tuple[Parameter, ...]
    first: int
    steps: tuple[Statistics, ...]
    count: int
    overwritten: int
    needed: int


def drain(opt_state: Any, after: Sequence[Drained] | None = None) -> list[Drained]:
    """Returns what every ring in a state holds, in the order of the tree; waits for the device.

    Args:
        opt_state: the optimizer's state, or any tree that holds it.
        after: what the last call returned; only what came since then is given, and what was overwritten is counted.

    Raises:
        GradwatchError: when there is no ring, when called inside jit, or for an ``after`` of another optimizer.
    """
    found = checked(opt_state)
    if after is not None and len(after) != len(found):
        raise GradwatchError(f"after= has {len(after)} rings and the state {len(found)}: they are of two optimizers.")
    seen = [0] * len(found) if after is None else [drained.count for drained in after]
    return [_drained(ring, start) for ring, start in zip(found, seen, strict=True)]


def checked(opt_state: Any) -> list[Found]:
    """Returns the rings of a state.

    Raises:
        GradwatchError: when there is none, or when called inside jit.
    """
    found = find(opt_state)
    if not found:
        raise GradwatchError(NO_RING)
    if any(isinstance(ring.state.count, jax.core.Tracer) for ring in found):
        raise GradwatchError(TRACED)
    return found


def fetch(found: Found) -> HostRing:
    """Returns a ring on the host; of rows with a leading axis of devices the first device's."""
    state, about = found.state, found.state.about
    count, floats, integers = (_to_host(x) for x in (state.count, state.floats, state.integers))
    copies = count.size
    stage = about.stage
    if copies > 1 and not (_alike(floats, count.ndim) and _alike(integers, count.ndim)):
        stage = "local"
    elif _shared(state.floats):
        stage = _ON_ALL_PROCESSES.get(stage, stage)
    shape = (-1, *floats.shape[count.ndim :])
    return HostRing(about, stage, int(count.flat[0]), floats.reshape(shape)[0], integers.reshape(shape)[0])


def _drained(found: Found, seen: int) -> Drained:
    ring = fetch(found)
    about = ring.about
    # A counter that went back is that of a new ring, put in after a checkpoint.
    seen = seen if ring.count >= seen else 0
    first, overwritten = ring.kept_from(seen)
    sizes = np.array([parameter.size for parameter in about.parameters], dtype=np.int64)
    steps = tuple(statistics(ring.row(number), sizes, full=False) for number in range(first, ring.count))
    return Drained(
        about.name, ring.stage, found.signal, about.parameters, first, steps, ring.count, overwritten, ring.count - seen
    )


def _to_host(array: Any) -> npt.NDArray[Any]:
    if isinstance(array, jax.Array) and not array.is_fully_addressable and not array.is_fully_replicated:
        array = array.addressable_shards[0].data
    return np.asarray(array)


def _shared(array: Any) -> bool:
    return isinstance(array, jax.Array) and not array.is_fully_addressable and array.is_fully_replicated


def _alike(array: npt.NDArray[Any], leading: int) -> bool:
    copies = array.reshape(-1, int(np.prod(array.shape[leading:])))
    return bool(np.array_equal(copies, np.broadcast_to(copies[:1], copies.shape), equal_nan=copies.dtype.kind == "f"))
