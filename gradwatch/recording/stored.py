"""Panels of a run in files: a column is read when it is asked for, and the steps are replayed file by file."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from gradwatch.recording.filling import filled
from gradwatch.recording.panels import Panel, Steps
from gradwatch.recording.series import OTHERS, SCATTERED, Key, Piece, Series
from gradwatch.statistics import Histogram

KEPT_BYTES: Final = 128 * 2**20
"""Columns of a run that are kept in memory, the ones asked for latest; of larger ones the last ``KEPT`` are."""
KEPT: Final = 2


class Kept:
    """Arrays that were read, as long as there is room for them."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[Key, str], Any] = OrderedDict()

    def get(self, key: Key, name: str, read: Callable[[], Any]) -> Any:
        """Returns an array, read now when it is not held."""
        at = (key, name)
        if at not in self._held:
            array = read()
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
            self._held[at] = array
            self._make_room()
        self._held.move_to_end(at)
        return self._held[at]

    def _make_room(self) -> None:
        sizes = {at: size for at, array in self._held.items() if (size := _bytes(array))}
        for at in list(sizes)[:-KEPT]:
            if sum(sizes.values()) > KEPT_BYTES:
                del self._held[at], sizes[at]


class StoredColumns(Mapping[str, Any]):
    """The columns of a panel."""

    def __init__(self, series: Series, kept: Kept) -> None:
        self.series = series
        self._kept = kept

    def __getitem__(self, name: str) -> Any:
        if name not in SCATTERED and name not in OTHERS:
            raise KeyError(name)
        return self._kept.get(self.series.key, name, lambda: self._read(name))

    def __iter__(self) -> Iterator[str]:
        return iter((*SCATTERED, *OTHERS))

    def __len__(self) -> int:
        return len(SCATTERED) + len(OTHERS)

    def _read(self, name: str) -> Any:
        if name == "histogram_steps":
            return self.series.histogram_steps()
        if name == "histogram":
            return self.series.histograms()[1]
        return self.series.units() if name == "units" else self.series.column(name)

    def histograms(self) -> Iterator[tuple[Steps, Histogram]]:
        """Yields rows of the panel that have histograms and these, some steps at a time; of a step given twice both."""
        for part in windows({self.series.key: self.series}):
            one = part[self.series.key]
            having, histogram = one.histograms()
            if len(having):
                wide = np.zeros((len(having), len(self.series.sites), histogram.shape[2]), dtype=histogram.dtype)
                wide[:, np.searchsorted(self.series.sites, one.sites)] = histogram
                yield np.searchsorted(self.series.steps, one.steps[having]), wide


class StoredPanels(Mapping[Key, Panel]):
    """The panels of a run in files."""

    def __init__(self, series: Mapping[Key, Series]) -> None:
        self._series = series
        kept = Kept()
        self._panels = {key: Panel(*key, one.steps, one.sites, StoredColumns(one, kept)) for key, one in series.items()}

    def __getitem__(self, key: Key) -> Panel:
        return self._panels[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._panels)

    def __len__(self) -> int:
        return len(self._panels)

    def parts(self, optimizer: int, begin: int) -> Iterator[dict[Key, Panel]]:
        """Yields the panels of an optimizer from a step on in memory, some steps at a time, in order."""
        mine = {key: one for key, one in self._series.items() if key[1] == optimizer}
        # The next part is read while the rules see this one: Arrow decodes without the interpreter's lock.
        asked: set[Key] = set()
        with ThreadPoolExecutor(1, thread_name_prefix="gradwatch-read") as pool:
            coming: deque[Future[dict[Key, Panel]]] = deque()
            try:
                for part in windows(mine, begin):
                    coming.append(pool.submit(_read, part, asked))
                    if len(coming) > 1:
                        yield from _noting(coming.popleft().result(), asked)
                while coming:
                    yield from _noting(coming.popleft().result(), asked)
            finally:
                for future in coming:
                    future.cancel()


def _read(part: dict[Key, Series], asked: set[Key]) -> dict[Key, Panel]:
    """Reads a part, with the histograms of the signals of which the rules asked for them before."""
    panels = filled(part)
    for key in tuple(asked):
        if key in panels:
            _ = panels[key].histogram
    return panels


def _noting(panels: dict[Key, Panel], asked: set[Key]) -> Iterator[dict[Key, Panel]]:
    """Yields panels, and notes of which signals histograms were asked for."""
    yield panels
    asked.update(key for key, panel in panels.items() if "histogram" in tuple(panel.columns))


def windows(series: Mapping[Key, Series], begin: int = 0) -> Iterator[dict[Key, Series]]:
    """Cuts series from a step on into parts that share no step, in order of steps: those of a file, mostly."""
    pieces = [
        (key, piece) for key, one in series.items() for piece in one.pieces if int(piece.grid.steps.max()) >= begin
    ]
    spans = sorted((int(piece.grid.steps.min()), int(piece.grid.steps.max()), i) for i, (_, piece) in enumerate(pieces))
    group: list[int] = []
    reached = -1
    for first, last, i in spans:
        if group and first > reached:
            yield _part(pieces, group, begin)
            group = []
        group.append(i)
        reached = max(reached, last)
    if group:
        yield _part(pieces, group, begin)


def _part(pieces: list[tuple[Key, Piece]], group: list[int], begin: int) -> dict[Key, Series]:
    found: dict[Key, Series] = {}
    # By position: of a step given twice the last stands.
    for i in sorted(group):
        key, piece = pieces[i]
        found.setdefault(key, Series(key)).pieces.append(piece)
    kept = {key: one.kept(lambda grid: grid.steps >= begin) for key, one in found.items()}
    return {key: one for key, one in kept.items() if one.pieces}


def _bytes(array: Any) -> int:
    """Returns what an array takes; a view of one row or value takes nothing."""
    if array is None or 0 in array.strides[:1]:
        return 0
    return int(array.nbytes)
