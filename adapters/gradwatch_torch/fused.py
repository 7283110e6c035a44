"""One launch of the Triton kernel over many tensors, through a table of their addresses.

Triton comes with builds of torch for graphics cards; it is imported when the first tensor on one is reduced. Where it
is absent, or its results are wrong, ``is_usable`` says so and ``packed`` reduces instead.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from gradwatch.statistics import BINS, Integer, concatenate, measure
from gradwatch_torch.arrival import Arrival, send, stream
from gradwatch_torch.rows import COLUMNS, Rows, join

CHUNK: Final = 2**16
"""Elements a program reads, at most: 382 programs for 25 million elements, several for each processor of the card."""

TILE: Final = 2**11
_WARPS: Final = 8
KINDS: Final = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_TABLES: Final = 64


class Fused:
    """A reduction of tensors on one device whose addresses are fixed, so that ``launch`` can be captured in a graph.

    Attributes:
        owner: index of the tensor of each part, shape [r].
        results: what ``launch`` fills: the columns of ``rows.Rows``, shape [r, 8], and bins, shape [r, 64], if asked.
    """

    def __init__(self, vectors: Sequence[Tensor], *, counts: bool, histogram: bool) -> None:
        """Lays out the launch.

        Args:
            vectors: tensors that ``is_plain`` holds of, not all empty.
            counts: also take zeros and subnormals.
            histogram: also take the histogram, and with it the counts.
        """
        self.owner, table = _lay_out(vectors)
        device, programs = vectors[0].device, len(table)
        self._vectors = vectors
        self._flags = {"COUNTS": counts or histogram, "HISTOGRAM": histogram}
        self._flags["ALIGNED"] = not np.any(table[:, 0] % 16)
        self._table = _upload(table, device)
        self.results = [torch.empty(programs, COLUMNS, dtype=torch.float64, device=device)]
        if histogram:
            self.results.append(torch.empty(programs, BINS, dtype=torch.int32, device=device))

    def launch(self) -> None:
        """Enqueues the reduction on the current stream."""
        rows, bins = self.results[0], self.results[-1]
        device = rows.device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            kernel = _kernel().reduce_chunks[(len(rows),)]
            kernel(self._table, rows, bins, **self._flags, TILE=TILE, num_warps=_WARPS, enable_fp_fusion=True)


def is_plain(tensor: Tensor) -> bool:
    """Tells whether a tensor can be read from its address on as it is; ``flat`` costs far more than this question."""
    return tensor.dtype in KINDS and tensor.is_contiguous() and not tensor.is_neg()


def takes(tensor: Tensor) -> bool:
    """Tells whether the kernel reads tensors of this dtype, on this device."""
    return tensor.dtype in KINDS and tensor.device.type == "cuda" and is_usable(tensor.device)


def _lay_out(vectors: Sequence[Tensor]) -> tuple[Integer, Integer]:
    """Returns which tensor each program reads, shape [r], and the table of the kernel, shape [r, 3]."""
    sizes = np.array([vector.numel() for vector in vectors], dtype=np.int64)
    columns = [(vector.data_ptr(), vector.element_size(), KINDS[vector.dtype]) for vector in vectors]
    address, width, kind = np.array(columns, dtype=np.int64).T
    programs = -(-sizes // CHUNK)
    owner = np.repeat(np.arange(len(vectors)), programs)
    start = (np.arange(len(owner)) - np.repeat(np.cumsum(programs) - programs, programs)) * CHUNK
    length = np.minimum(CHUNK, sizes[owner] - start)
    return owner, np.stack([address[owner] + start * width[owner], length, kind[owner]], axis=1)


_tables: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()


def _upload(table: Integer, device: torch.device) -> Tensor:
    """Returns the table on the device. Gradients mostly lie where they lay before, so recent tables are kept."""
    key = (device, stream(device), table.tobytes())
    known = _tables.pop(key, None)
    if known is None:
        known = send(torch.from_numpy(table), device)
    _tables[key] = known
    while len(_tables) > _TABLES:
        _tables.popitem(last=False)
    return known


@functools.cache
def _kernel() -> ModuleType:
    return importlib.import_module("gradwatch_torch.triton_kernel")


@functools.cache
def is_usable(device: torch.device) -> bool:
    """Tells whether the kernel is there and right on this device. Compiles it, and waits for the device, once."""
    try:
        _kernel()
    except ImportError:
        return False
    try:
        fault = fault_of(device)
    except Exception as error:  # whatever Triton, its compiler or the driver may raise
        fault = f"{type(error).__name__}: {error}"
    if fault:
        warnings.warn(
            f"gradwatch reduces with torch on {device}, which is slower, because its Triton kernel failed: {fault}",
            RuntimeWarning,
            stacklevel=2,
        )
    return not fault


def fault_of(device: torch.device) -> str:
    """Compares the kernel's results with those of the core, and says where they differ."""
    probes = _probes()
    expected = concatenate(
        [measure(p.float().numpy(), smallest_normal=torch.finfo(p.dtype).smallest_normal) for p in probes]
    )
    for counts, histogram in ((True, True), (True, False), (False, False)):
        reduction = Fused([send(probe, device) for probe in probes], counts=counts, histogram=histogram)
        reduction.launch()
        values, *bins = [tensor.numpy() for tensor in Arrival(reduction.results).tensors()]
        found = join(
            [Rows(reduction.owner, values, bins[0] if bins else None)], expected.n, counts=counts, histogram=histogram
        )
        for name in ("l2", "sum", "absmax", "nan", "inf", "zeros", "subnormal", "histogram"):
            column, right = getattr(found, name), getattr(expected, name)
            if column is not None and not np.allclose(column, right, rtol=1e-5, atol=0, equal_nan=True):
                return f"{name} is {column.tolist()}, not {right.tolist()}"
    return ""


def _probes() -> list[Tensor]:
    """Returns tensors of every kind with elements of every sort, one longer than a chunk."""
    special = [0.0, -0.0, 1.0, float("nan"), float("inf"), float("-inf")]
    ramp = torch.linspace(0.25, 4.0, CHUNK + 5)
    return [
        ramp,
        torch.tensor([*special, 1e-42, 1e-37, 2.0**100]),
        torch.full((TILE,), 1e37),
        torch.full((TILE + 1,), 1e-37),
        torch.tensor([*special, 1e-39, 3.0, 2.0**100]).bfloat16(),
        torch.tensor([*special, 1e-7, 3.0, 6e4]).half(),
        ramp[:77].half(),
    ]
