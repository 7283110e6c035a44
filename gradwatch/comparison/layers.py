"""Which layer of one run is which of another: by name, then, where one was renamed, by shape, kind and order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from gradwatch.record import SIGNALS
from gradwatch.recording import Recording

MOST_CELLS: Final = 16_000_000
"""Layers of one run times layers of the other between two that share a name; above it none of them is matched."""

_OUTSIDE: Final = -1

Positions = tuple[int, int]
Part = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class LayerMatch:
    """The layers of two runs, input first.

    Attributes:
        pairs: (layer of the first run, layer of the other) of every match, in the first run's order.
        renamed: those of ``pairs`` that have another name.
        resized: layers of the same name whose parameters have other shapes.
        only_first, only_other: layers without a match.
    """

    pairs: tuple[tuple[str, str], ...]
    renamed: tuple[tuple[str, str], ...]
    resized: tuple[str, ...]
    only_first: tuple[str, ...]
    only_other: tuple[str, ...]


def match_layers(first: Recording, other: Recording) -> LayerMatch:
    """Matches the layers of two runs.

    A layer is the one of the same name. Of the rest, between two neighbours that are matched by name and come in the
    same order in both runs, the longest common subsequence (Hirschberg 1975) of what the layers are is matched: the
    roles and shapes of their parameters, and the kind of module where both runs tell it. Axes of a shape may come in
    another order, as those of a dense layer do from framework to framework. A layer without parameters is matched by
    its kind alone, and only where that is known.
    """
    names = (first.sites.layers, other.sites.layers)
    shapes = (_shapes(first), _shapes(other))
    keys = _keys(first, other, shapes)
    place = {name: i for i, name in enumerate(names[1])}
    same = [(i, place[name]) for i, name in enumerate(names[0]) if name in place]
    renamed = list(_renamed(same, keys))
    taken = [{pair[side] for pair in (*same, *renamed)} for side in (0, 1)]
    only = [tuple(name for i, name in enumerate(names[side]) if i not in taken[side]) for side in (0, 1)]
    return LayerMatch(
        tuple((names[0][i], names[1][j]) for i, j in sorted((*same, *renamed))),
        tuple((names[0][i], names[1][j]) for i, j in renamed),
        tuple(names[0][i] for i, j in same if shapes[0][names[0][i]] != shapes[1][names[1][j]]),
        *only,
    )


def aligned(layers: Sequence[Sequence[str]], matches: Sequence[LayerMatch]) -> tuple[tuple[str | None, ...], ...]:
    """Puts the layers of all runs in one order of depth: a row a layer, its name in each run, None where it has none.

    Args:
        layers: of each run, input first.
        matches: of each later run with the first one.

    Returns:
        The first run's layers in its order, and behind each the layers that a later run alone has there.
    """
    rows: list[list[str | None]] = [[name, *[None] * len(matches)] for name in layers[0]]
    behind: dict[int, list[list[str | None]]] = {}
    at = {name: i for i, name in enumerate(layers[0])}
    for run, match in enumerate(matches, 1):
        first_of = {theirs: mine for mine, theirs in match.pairs}
        anchor = _OUTSIDE
        for name in layers[run]:
            if name in first_of:
                anchor = at[first_of[name]]
                rows[anchor][run] = name
            else:
                alone: list[str | None] = [None] * len(layers)
                alone[run] = name
                behind.setdefault(anchor, []).append(alone)
    ordered = [*behind.get(_OUTSIDE, []), *(r for i, row in enumerate(rows) for r in (row, *behind.get(i, [])))]
    return tuple(map(tuple, ordered))


def _shapes(recording: Recording) -> dict[str, tuple[Part, ...]]:
    """Returns role and shape of each parameter of each layer, in an order that does not depend on names."""
    found: dict[str, dict[str, Part]] = {name: {} for name in recording.sites.layers}
    for site in recording.sites:
        if site.parameter is not None:
            found[site.layer][site.name] = (site.role, tuple(sorted(site.shape)))
    return {layer: tuple(sorted(parts.values())) for layer, parts in found.items()}


def _keys(
    first: Recording, other: Recording, shapes: Sequence[Mapping[str, tuple[Part, ...]]]
) -> list[list[Hashable | None]]:
    """Returns, of each layer of both runs, what it is: equal where one may be the other, None where it is unknown."""
    kinds = [_kinds(recording) for recording in (first, other)]
    # Frameworks have names of their own for the same module.
    told = first.facts.get("framework") == other.facts.get("framework") and all(kinds)
    return [
        [_key(shapes[side][name], kinds[side].get(name, ""), told) for name in recording.sites.layers]
        for side, recording in enumerate((first, other))
    ]


def _key(shapes: tuple[Part, ...], kind: str, told: bool) -> Hashable | None:
    return (shapes, kind if told or not shapes else "") if shapes or kind else None


def _kinds(recording: Recording) -> dict[str, str]:
    """Returns the kind of each module whose activation was captured."""
    return {
        site.layer: site.role
        for signal in SIGNALS
        for site in recording.sites
        if site.signal == signal and site.parameter is None and site.role
    }


def _renamed(same: Sequence[Positions], keys: Sequence[Sequence[Hashable | None]]) -> Iterator[Positions]:
    taken = [{pair[side] for pair in same} for side in (0, 1)]
    ends = (len(keys[0]), len(keys[1]))
    for before, after in pairwise([(_OUTSIDE, _OUTSIDE), *_in_order(same), ends]):
        free = [
            [i for i in range(before[side] + 1, after[side]) if i not in taken[side] and keys[side][i] is not None]
            for side in (0, 1)
        ]
        found = common_subsequence([keys[0][i] for i in free[0]], [keys[1][j] for j in free[1]])
        yield from ((free[0][i], free[1][j]) for i, j in found)


def _in_order(same: Sequence[Positions]) -> list[Positions]:
    """Returns the longest part of the pairs that comes in the same order in both runs (patience sorting)."""
    tails: list[int] = []
    ends: list[int] = []
    previous: list[int] = []
    for i, (_, place) in enumerate(same):
        pile = bisect_left(tails, place)
        tails[pile:], ends[pile:] = [place, *tails[pile + 1 :]], [i, *ends[pile + 1 :]]
        previous.append(ends[pile - 1] if pile else _OUTSIDE)
    kept = []
    at = ends[-1] if ends else _OUTSIDE
    while at != _OUTSIDE:
        kept.append(same[at])
        at = previous[at]
    return kept[::-1]


def common_subsequence(first: Sequence[Hashable], other: Sequence[Hashable]) -> list[Positions]:
    """Returns the positions of a longest common subsequence; of several, one that begins and ends in step."""
    head = 0
    while head < min(len(first), len(other)) and first[head] == other[head]:
        head += 1
    tail = 0
    while tail < min(len(first), len(other)) - head and first[-1 - tail] == other[-1 - tail]:
        tail += 1
    middle = _longest(first[head : len(first) - tail], other[head : len(other) - tail])
    return [
        *((i, i) for i in range(head)),
        *((i + head, j + head) for i, j in middle),
        *((len(first) - k, len(other) - k) for k in range(tail, 0, -1)),
    ]


def _longest(first: Sequence[Hashable], other: Sequence[Hashable]) -> list[Positions]:
    """Fills the table of lengths row by row: a row is the running maximum of what the row above offers."""
    if not first or not other or len(first) * len(other) > MOST_CELLS:
        return []
    codes: dict[Hashable, int] = {}
    a, b = (np.array([codes.setdefault(key, len(codes)) for key in keys]) for keys in (first, other))
    length = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int32)
    for i, code in enumerate(a):
        offered = np.maximum(length[i, 1:], length[i, :-1] + (b == code))
        length[i + 1, 1:] = np.maximum.accumulate(offered)
    found = []
    i, j = len(a), len(b)
    while i and j:
        if length[i, j] == length[i - 1, j]:
            i -= 1
        elif length[i, j] == length[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            found.append((i, j))
    return found[::-1]
