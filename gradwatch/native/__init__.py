"""One read of arrays in memory, in C: the statistics of ``gradwatch.statistics`` from addresses.

Built with the package where there is a C compiler. Without it, or with ``GRADWATCH_NATIVE=0``, ``available`` says so,
and adapters reduce with their framework's own operations.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.statistics import BINS, Statistics

VERSION: Final = 2
"""Of the interface in ``reduce.h``."""

KINDS: Final = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}
"""Codes of the dtypes that can be read."""

COUNTS: Final = 1
HISTOGRAM: Final = 2

ROW: Final = np.dtype(
    [(name, "<f8") for name in ("l2", "sum", "absmax")]
    + [(name, "<i8") for name in ("nan", "inf", "zeros", "subnormal")]
)
"""A row without the histogram."""

FULL: Final = np.dtype([*ROW.descr, ("bins", "<u4", (BINS,))])
"""A row with it."""


def available() -> bool:
    """Tells whether the library was built and may be used."""
    return _library() is not None


def load(path: Path) -> ctypes.CDLL | None:
    """Returns a library that ``build.py`` made; None where it is absent, switched off, or of another version."""
    if os.environ.get("GRADWATCH_NATIVE", "1") == "0" or not path.exists():
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError:  # built for another machine
        return None
    return library if library.gradwatch_version() == VERSION else None


class Arrays:
    """m arrays of known sizes and dtypes that are read again and again, at other addresses each time.

    What a call needs beside the addresses is prepared once.
    """

    def __init__(self, sizes: Sequence[int], kinds: Sequence[int]) -> None:
        """Prepares.

        Args:
            sizes: counts of elements, m of them.
            kinds: codes of ``KINDS``, m of them.
        """
        library = _library()
        assert library is not None, "the library was not built; ask available() first"
        m = len(sizes)
        self._m = m
        self._sizes = np.array(sizes, dtype=np.int64)
        self._call = library.gradwatch_reduce_all
        table: Any = ctypes.c_uint64 * m
        self._addresses, self._others = table(), table()
        self._counts, self._kinds = (ctypes.c_int64 * m)(*sizes), (ctypes.c_uint8 * m)(*kinds)
        self._rows = (ctypes.c_char * (m * ROW.itemsize), ctypes.c_char * (m * FULL.itemsize))

    def reduce(self, addresses: list[int], *, flags: int = 0, minus: list[int] | None = None) -> Reduced:
        """Returns one row for each array, with the histogram only if asked for.

        The caller keeps the memory alive and in one piece. Other threads of Python run meanwhile.

        Args:
            addresses: of the first elements, m of them.
            flags: ``COUNTS`` for zeros and subnormals, ``HISTOGRAM`` for these and the histogram.
            minus: addresses of arrays of the same sizes and dtypes; then the differences are reduced.
        """
        self._addresses[:] = addresses
        others = None
        if minus is not None:
            others = self._others
            others[:] = minus
        full = bool(flags & HISTOGRAM)
        rows = self._rows[full]()
        size = FULL.itemsize if full else ROW.itemsize
        self._call(self._addresses, others, self._counts, self._kinds, self._m, flags, rows, size)
        return Reduced(rows, self._sizes, flags)


@dataclass(slots=True)
class Reduced:
    """Rows as the library wrote them; what is left to do can be done on another thread."""

    rows: Any
    sizes: npt.NDArray[np.int64]
    flags: int

    def statistics(self) -> Statistics:
        """Returns the columns, shape [m]; null where they were not taken, or over no finite element."""
        rows = np.frombuffer(self.rows, FULL if self.flags & HISTOGRAM else ROW)
        nan, inf = rows["nan"], rows["inf"]
        l2, total, absmax = (rows[name] for name in ("l2", "sum", "absmax"))
        nothing = nan + inf == self.sizes
        if np.count_nonzero(nothing):
            l2, total, absmax = (np.where(nothing, np.nan, column) for column in (l2, total, absmax))
        counted = bool(self.flags & (COUNTS | HISTOGRAM))
        return Statistics(
            self.sizes,
            l2,
            total,
            absmax,
            nan,
            inf,
            rows["zeros"] if counted else None,
            rows["subnormal"] if counted else None,
            rows["bins"] if self.flags & HISTOGRAM else None,
        )


def join(parts: Sequence[Reduced]) -> Reduced:
    """Joins the rows of several calls with the same flags."""
    sizes = np.concatenate([part.sizes for part in parts])
    return Reduced(b"".join([part.rows for part in parts]), sizes, parts[0].flags)


def alive(address: int, shape: tuple[int, int, int], kind: int) -> npt.NDArray[np.bool_]:
    """Returns which units have an element that is not zero, shape [units].

    Args:
        address: of an array that lies in memory as [outer, units, inner].
        shape: that shape.
        kind: code of ``KINDS``.
    """
    library = _library()
    assert library is not None, "the library was not built; ask available() first"
    found: Any = (ctypes.c_char * shape[1])()
    library.gradwatch_alive(address, *shape, kind, found)
    units: npt.NDArray[np.bool_] = np.frombuffer(found, np.dtype(np.bool_))
    return units


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = load(Path(__file__).with_name("_reduce.so"))
    if library is None:
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    library.gradwatch_reduce_all.argtypes = [pointer, pointer, pointer, pointer, size, ctypes.c_int, pointer, size]
    library.gradwatch_reduce_all.restype = None
    library.gradwatch_alive.argtypes = [pointer, size, size, size, ctypes.c_int, pointer]
    library.gradwatch_alive.restype = None
    return library
