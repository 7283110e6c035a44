"""Hands what rings hold to a watched run."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gradwatch.errors import GradwatchError
from gradwatch.guard import log
from gradwatch.plugins import Session
from gradwatch.record import Site
from gradwatch.scalars import Reader
from gradwatch_jax.adapter import JaxAdapter
from gradwatch_jax.names import Parameter, natural
from gradwatch_jax.optax_drain import HostRing, checked, fetch
from gradwatch_jax.optax_pending import PendingRows, RowSites
from gradwatch_jax.optax_state import Found
from gradwatch_jax.optax_transform import RingState

F = TypeVar("F", bound=Callable[..., Any])

UNREAD: Final = 64
"""Snapshots that may wait for the device; JAX itself runs at most about half as many steps ahead."""


class Rings:
    """The rings of an optimizer, as something that ``gradwatch.watch`` can watch.

    ``drain`` takes a copy on the device and never waits; each optimizer step becomes a step of the run, however many
    lie between two calls, as long as they are no more than the ring's size. A ring in front gives ``gradient``, one at
    the end ``update``::

        tx = optax.chain(optax_ring(stage="before clipping"), optax.clip_by_global_norm(1.0), optax.adam(1e-3))
        opt_state = tx.init(params)
        with gradwatch.watch(rings := gradwatch_jax.Rings(opt_state), run="runs/x"):
            for batch in data:
                params, opt_state, loss = train_step(params, opt_state, batch)
                rings.drain(opt_state, loss=loss)

    The step may also be decorated, ``gradwatch.watch(rings, run="runs/x")(train_step)``: the state is then found among
    its results after each call.
    """

    def __init__(self, opt_state: Any) -> None:
        """Finds the rings; waits for the device to learn how much they have seen.

        Args:
            opt_state: of the optimizer, before the first watched step: what ``tx.init`` returned, or, for an optimizer
                from a checkpoint, what ``restore`` did. Several optimizers' states may stand in a dict.

        Raises:
            GradwatchError: when there is no ring in it, or when called inside jit.
        """
        self.found = checked(opt_state)
        self.seen = [fetch(found).count for found in self.found]
        self._take: Callable[[Any, Mapping[str, Any]], None] | None = None
        self._was_watched = False

    def drain(self, opt_state: Any, **scalars: Any) -> None:
        """Hands over what the rings saw since the last call.

        Args:
            opt_state: the state now, or any tree that holds it, with the rings in the same order.
            scalars: what to log for the newest step, such as ``loss=loss``; arrays are not waited for.

        Raises:
            GradwatchError: before the rings are watched.
            GradientFinding: when the user asked for that.
        """
        if self._take is not None:
            self._take(opt_state, scalars)
        elif not self._was_watched:
            raise GradwatchError("these rings are not watched yet: gradwatch.watch(rings, run=...) comes first.")

    def connect(self, take: Callable[[Any, Mapping[str, Any]], None] | None) -> None:
        """States who takes what is drained."""
        self._take = take
        self._was_watched = True


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Copies of the rings at one call of ``drain``."""

    states: Sequence[RingState]
    time: float
    logged: Mapping[str, Reader]

    def ready(self) -> bool:
        return all(array.is_ready() for array in jax.tree.leaves(self.states))


@dataclass(slots=True)
class _Optimizer:
    """The rings of one name, and the steps that were handed over."""

    index: int
    rings: list[int] = field(default_factory=list)
    sites: dict[int, RowSites] = field(default_factory=dict)
    ended: int = 0


class RingAdapter:
    """Captures the steps that rings have seen."""

    def __init__(self) -> None:
        self._jax = JaxAdapter()
        self._session: Session | None = None
        self._rings: Rings | None = None
        self._optimizers: dict[str, _Optimizer] = {}
        self._unread: deque[_Snapshot] = deque(maxlen=UNREAD)
        self._overwritten, self._needed = 0, 0
        self._said: set[str] = set()
        self._started = 0.0

    def claims(self, *objects: Any) -> bool:
        """Tells whether this is one ``Rings``."""
        return len(objects) == 1 and isinstance(objects[0], Rings)

    def attach(self, session: Session, *objects: Any) -> None:
        """Starts capture.

        Raises:
            GradwatchError: when ``layers=`` matches none of the rings' layers.
        """
        (rings,) = objects
        self._session, self._rings = session, rings
        self._seen = list(rings.seen)
        self._started = time.perf_counter()
        for i, found in enumerate(rings.found):
            self._add(i, found)
        if not any(len(sites.ids) for optimizer in self._optimizers.values() for sites in optimizer.sites.values()):
            raise GradwatchError("layers= and signals= leave nothing of what the rings hold.")
        names = dict.fromkeys(site.layer for site in session.sites)
        session.sites.set_order(sorted(names, key=natural))
        rings.connect(self._drain)

    def detach(self) -> None:
        """Waits for what was drained last and hands it over; safe to call twice."""
        session, self._session = self._session, None
        if session is None or self._rings is None:
            return
        self._rings.connect(None)
        while self._unread:
            self._hand_over(session, self._unread.popleft())
        if self._overwritten:
            session.note(self._lost())

    def step(self) -> None:
        """Refuses: rings count steps themselves.

        Raises:
            GradwatchError: always.
        """
        raise GradwatchError("rings count their steps themselves: call rings.drain(opt_state), not watch.step().")

    def decorate(self, function: F) -> F:
        """Returns the train step, after whose calls the state among its results is drained."""

        @functools.wraps(function)
        def step(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if self._session is not None:
                self._drain(result, {})
            return result

        return step  # type: ignore[return-value]

    def scalar(self, value: Any) -> Callable[[], float] | None:
        """Returns a reader of an array of one element, or None."""
        return self._jax.scalar(value)

    def world(self) -> tuple[int, int] | None:
        """Returns the index of this process and their number once ``jax.distributed`` is initialized."""
        return self._jax.world()

    def facts(self) -> Mapping[str, Any]:
        """Returns the framework and its version."""
        return self._jax.facts()

    def _add(self, i: int, found: Found) -> None:
        """Registers the sites of a ring's rows; a parameter's signal comes from the first ring that holds it."""
        assert self._session is not None
        about, sites = found.state.about, self._session.sites
        if about.name not in self._optimizers:
            self._optimizers[about.name] = _Optimizer(len(sites.optimizers))
            sites.optimizers.append(about.name)
        optimizer = self._optimizers[about.name]
        optimizer.rings.append(i)
        wanted = found.signal in self._session.schedule.signals
        rows = [row for row, p in enumerate(about.parameters) if wanted and self._session.layers(p.layer)]
        named = [(row, self._site(found.signal, about.parameters[row], about.name)) for row in rows]
        new = [(row, site) for row, site in named if sites.find(site.signal, site.name) is None]
        if len(new) < len(named):
            self._say(
                f"two rings hold the same {found.signal} ({named[0][1].name}): the first one counts; a ring that holds "
                "what is applied is optax_ring(signal='update')"
            )
        new.sort(key=lambda row_and_site: natural(row_and_site[1].name))
        optimizer.sites[i] = RowSites(
            found.signal,
            np.array([sites.add(site) for _, site in new], dtype=np.uint32),
            np.array([row for row, _ in new], dtype=np.intp),
            np.array([site.numel for _, site in new], dtype=np.int64),
        )

    def _site(self, signal: str, p: Parameter, optimizer: str) -> Site:
        """Describes a site; two optimizers' parameters of one name get the optimizer's name in front."""
        assert self._session is not None
        known = self._session.sites.find(signal, p.name)
        taken = known is not None and self._session.sites[known].optimizer != optimizer
        front = f"{optimizer}." if taken and optimizer else ""
        name, layer = front + p.name, front + p.layer
        return Site(signal, name, layer, p.role, p.shape, p.size, p.dtype, optimizer, fan_in=p.fan_in)

    def _drain(self, opt_state: Any, scalars: Mapping[str, Any]) -> None:
        session = self._session
        if session is not None:
            session.recorder.guard.wrap(self._take)(session, opt_state, scalars)
            session.boundary()

    def _take(self, session: Session, opt_state: Any, scalars: Mapping[str, Any]) -> None:
        assert self._rings is not None
        session.recorder.start()
        states = [found.state for found in checked(opt_state)]
        if len(states) != len(self._seen):
            raise GradwatchError(f"this state has {len(states)} rings; the watched one has {len(self._seen)}.")
        # The next step may be given the state's own buffers to write into.
        copies: list[RingState] = _copy(states)
        for array in jax.tree.leaves(copies):
            array.copy_to_host_async()
        readers = {key: reader for key, value in scalars.items() if (reader := self._reader(key, value)) is not None}
        self._unread.append(_Snapshot(copies, time.perf_counter() - self._started, readers))
        while self._unread and self._unread[0].ready():
            self._hand_over(session, self._unread.popleft())

    def _reader(self, key: str, value: Any) -> Reader | None:
        reader = self.scalar(value)
        if reader is None and hasattr(value, "__float__"):
            reader = functools.partial(float, float(value))
        if reader is None:
            self._say(f"drain({key}=...) takes a number or a scalar array, not {type(value).__name__}")
        return reader

    def _hand_over(self, session: Session, snapshot: _Snapshot) -> None:
        assert self._rings is not None
        found = [Found(state, f.signal) for state, f in zip(snapshot.states, self._rings.found, strict=True)]
        hosts = [fetch(ring) for ring in found]
        # A counter that went back is that of a new ring, put in after a checkpoint.
        seen = [seen if host.count >= seen else 0 for host, seen in zip(hosts, self._seen, strict=True)]
        for optimizer in self._optimizers.values():
            self._hand_over_steps(session, optimizer, hosts, seen, snapshot)
        self._seen = [host.count for host in hosts]

    def _hand_over_steps(
        self, session: Session, optimizer: _Optimizer, hosts: list[HostRing], seen: list[int], snapshot: _Snapshot
    ) -> None:
        new = hosts[optimizer.rings[0]].count - seen[optimizer.rings[0]]
        alike = [i for i in optimizer.rings if hosts[i].count - seen[i] == new]
        if len(alike) < len(optimizer.rings):
            self._say(
                "rings of one name saw different numbers of steps, and only the first one's are kept: put them at the "
                "same level, outside apply_if_finite and MultiSteps or both inside, or give them different names"
            )
        self._count_lost(max(hosts[i].kept_from(seen[i])[1] for i in alike), new)
        for ahead in range(new):
            step = optimizer.ended + ahead
            plan = session.schedule.plan(step)
            parts = [
                (optimizer.sites[i], hosts[i].stage, hosts[i].row(seen[i] + ahead))
                for i in alike
                if optimizer.sites[i].signal in plan.signals and seen[i] + ahead >= hosts[i].kept_from(seen[i])[0]
            ]
            last = ahead == new - 1
            logged = self._logged(session, step, optimizer, snapshot) if last else {}
            if parts or logged:
                session.recorder.put(step, PendingRows(step, optimizer.index, snapshot.time, parts, logged))
        if optimizer.ended == 0 and new:
            session.recorder.wait_open()
        optimizer.ended += new

    def _logged(self, session: Session, step: int, optimizer: _Optimizer, snapshot: _Snapshot) -> Mapping[str, Reader]:
        """Returns the scalars of a step; they belong to the first optimizer that ended one."""
        first = next(iter(self._optimizers.values()))
        if optimizer is not first:
            return {}
        return session.scalars.end_step(step, optimizer.index, snapshot.time, snapshot.logged)

    def _count_lost(self, lost: int, needed: int) -> None:
        if lost:
            first = not self._overwritten
            self._overwritten += lost
            self._needed = max(self._needed, needed)
            if first:
                log.warning("gradwatch: %s.", self._lost())

    def _lost(self) -> str:
        return (
            f"{self._overwritten:,} steps were overwritten in the ring before drain was called; "
            f"optax_ring(size={self._needed}) would have kept them"
        )

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            log.warning("gradwatch: %s.", sentence)
            if self._session is not None:
                self._session.note(sentence)


@jax.jit
def _copy(states: Any) -> Any:
    return jax.tree.map(jnp.copy, states)
