"""What one step measured: sites, step records, and the pending record that crosses threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from gradwatch.statistics import Statistics, UnitCounts

SIGNALS: Final = ("gradient", "update", "weight", "activation", "activation_gradient")
PARAMETER_SIGNALS: Final = ("gradient", "update", "weight")
ACTIVATION_SIGNALS: Final = ("activation", "activation_gradient")
ROLES: Final = ("weight", "bias", "norm", "embedding", "scalar")

ABSENT: Final = "absent"
"""The stage of a gradient that was None: its row has n = 0 and null statistics."""

STAGES: Final = (
    "unknown",
    "unscaled",
    "after clipping",
    "before clipping",
    "after the step",
    "reduced",
    "reduced, after clipping",
    "shard",
    "local",
    ABSENT,
    "micro-batch",
)
"""Where a number was read; "micro-batch" pools the gradients of all micro-batches of a step. Rows of the stages that
begin with "reduced" are the same on every rank, "shard" rows add over ranks, and the others belong to their rank. Codes
on disk are positions in this tuple: append only."""

STEP_FACTS: Final = ("learning_rate", "loss_scale", "total_norm", "clip_threshold", "dot", "square")
"""Scalars that adapters give with a step: the learning rate (largest over the optimizer's groups), the loss scaler's
scale, the global gradient norm before clipping and its threshold, and the two sums of the cosine of successive
gradients: cos_t = dot_t / sqrt(square_t * square_{t-1})."""

STATUSES: Final = ("trained", "frozen", "missing", "foreign")


@dataclass(frozen=True, slots=True)
class Site:
    """One signal of one parameter or layer: the unit that has a time series.

    Attributes:
        signal: one of ``SIGNALS``.
        name: dotted path of the parameter (``blocks.3.attn.q.weight``) or of the layer, unique within its signal; an
            input of a layer is ``layer:input``.
        layer: dotted path of the layer.
        role: one of ``ROLES`` for parameters; the layer's class name for activations.
        shape: of the parameter; empty for activations, whose size varies with the batch.
        numel: elements of the parameter, 0 for activations.
        dtype: of the array when it was first seen.
        optimizer: key of the optimizer that owns it, "" when none does.
        status: "trained" (in the optimizer), "frozen" (requires no gradient), "missing" (requires one but is in no
            optimizer) or "foreign" (in the optimizer but not in the model).
        aliases: other names of a tied parameter.
        fan_in: how many weights each output of the layer sums over, which is numel over the output channels, strides
            left out, and 1 where rows are looked up; only the adapter knows which axis the outputs are. None where it
            is not known: then the first axis counts as the outputs.
    """

    signal: str
    name: str
    layer: str
    role: str = "weight"
    shape: tuple[int, ...] = ()
    numel: int = 0
    dtype: str = "float32"
    optimizer: str = ""
    status: str = "trained"
    aliases: tuple[str, ...] = ()
    fan_in: int | None = None

    @property
    def parameter(self) -> str | None:
        """The parameter's full name, or None for a site of a layer."""
        return self.name if self.signal in PARAMETER_SIGNALS else None


class SiteTable:
    """The sites of a run in order of their ids; grows during a run, ids are never reused.

    Written by the training thread only, read by the writer thread: appends are atomic, and ``version`` changes last.
    """

    def __init__(
        self, sites: Iterable[Site] = (), optimizers: Iterable[str] = ("",), order: Iterable[str] = ()
    ) -> None:
        self.optimizers: list[str] = list(optimizers)
        self.version = 0
        self._sites: list[Site] = []
        self._ids: dict[tuple[str, str], int] = {}
        self._order: tuple[str, ...] = tuple(order)
        self._layers: tuple[int, tuple[str, ...]] | None = None
        for site in sites:
            self.add(site)

    def __len__(self) -> int:
        return len(self._sites)

    def __getitem__(self, site_id: int) -> Site:
        return self._sites[site_id]

    def __iter__(self) -> Iterator[Site]:
        return iter(tuple(self._sites))

    def add(self, site: Site) -> int:
        """Returns the id of the site with this signal and name, adding it when new."""
        key = (site.signal, site.name)
        known = self._ids.get(key)
        if known is not None:
            return known
        self._ids[key] = len(self._sites)
        self._sites.append(site)
        self.version += 1
        return self._ids[key]

    def find(self, signal: str, name: str) -> int | None:
        """Returns the id of a site, or None."""
        return self._ids.get((signal, name))

    def set_order(self, layers: Iterable[str]) -> None:
        """States the layers in order of their use in the forward pass; the rest keep the order of their sites."""
        self._order = tuple(dict.fromkeys(layers))
        self.version += 1

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers, input first: those of the forward pass in its order, unseen ones where registration puts them."""
        if self._layers is None or self._layers[0] != self.version:
            self._layers = (self.version, _weave(self._order, dict.fromkeys(site.layer for site in self)))
        return self._layers[1]


def _weave(order: tuple[str, ...], registered: Iterable[str]) -> tuple[str, ...]:
    """Puts each registered layer that ``order`` lacks behind the ordered one registered before it."""
    registered = tuple(registered)
    ordered = set(order)
    behind: dict[str | None, list[str]] = {}
    anchor: str | None = None
    for layer in registered:
        if layer in ordered:
            anchor = layer
        else:
            behind.setdefault(anchor, []).append(layer)
    known = set(registered)
    used = [layer for layer in order if layer in known]
    return (*behind.get(None, []), *(name for layer in used for name in (layer, *behind.get(layer, []))))


@dataclass(frozen=True, slots=True)
class Block:
    """The statistics of m sites of one signal at one step.

    Attributes:
        signal: one of ``SIGNALS``.
        sites: site ids, uint32, shape [m], each at most once.
        statistics: columns of shape [m].
        stage: one of ``STAGES``.
        units: counts per unit, for activations, or None.
    """

    signal: str
    sites: npt.NDArray[np.uint32]
    statistics: Statistics
    stage: str = "unknown"
    units: UnitCounts | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one attempted optimizer step measured; sparse, because signals come at different cadences.

    Attributes:
        step: number of the attempted step, counted per optimizer from 0.
        optimizer: index into ``SiteTable.optimizers``.
        time: seconds since the attempt began.
        skipped: True for a step that a loss scaler skipped.
        blocks: what was captured, at most one per signal and stage.
        facts: some of ``STEP_FACTS``.
        logged: scalars the user logged, ``loss`` among them.
        late: True when the record only adds scalars to a step that was handed over before.
    """

    step: int
    optimizer: int = 0
    time: float = 0.0
    skipped: bool = False
    blocks: tuple[Block, ...] = ()
    facts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    logged: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    late: bool = False

    def block(self, signal: str) -> Block | None:
        """Returns the first block of a signal, or None."""
        return next((block for block in self.blocks if block.signal == signal), None)


class Pending(Protocol):
    """A step whose numbers may still be on a device. ``ready`` and ``resolve`` run on the writer thread."""

    def ready(self) -> bool:
        """Tells without waiting whether ``resolve`` would not wait."""
        ...

    def resolve(self) -> StepRecord:
        """Returns the record; may wait for the device only when the run is being closed."""
        ...

    def shed(self) -> tuple[str, ...]:
        """Drops everything but the lean gradient rows (called on overflow); returns the signals that were dropped."""
        ...


@dataclass(slots=True)
class Resolved:
    """A pending record over numbers that are already on the host."""

    record: StepRecord

    def ready(self) -> bool:
        """Always true."""
        return True

    def resolve(self) -> StepRecord:
        """Returns the record."""
        return self.record

    def shed(self) -> tuple[str, ...]:
        """Keeps the lean gradient rows only."""
        kept, dropped = [], []
        for block in self.record.blocks:
            if block.signal == "gradient":
                kept.append(Block(block.signal, block.sites, block.statistics.lean(), block.stage))
                if block.statistics.histogram is not None:
                    dropped.append("histogram")
            else:
                dropped.append(block.signal)
        self.record = replace(self.record, blocks=tuple(kept))
        return tuple(dropped)
