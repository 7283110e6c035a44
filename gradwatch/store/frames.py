"""The messages of an Arrow IPC stream, found one by one, so that damage to one costs no other.

Each message is framed as ``FF FF FF FF``, the length of its metadata, the metadata (a flatbuffer that states the length
of the body) and the body, all padded to 8 bytes: https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_MARK: Final = b"\xff\xff\xff\xff"
_BATCH: Final = 3
_MAX_METADATA: Final = 2**20


@dataclass(frozen=True, slots=True)
class Frame:
    """One record batch as it lies in the file.

    Attributes:
        start, end: its bytes; ``end`` may lie behind the end of the file.
        rows: the rows it states.
        size: the bytes its columns state to take when decompressed.
    """

    start: int
    end: int
    rows: int
    size: int


def frames(data: bytes) -> Iterator[Frame]:
    """Yields the record batches of a hot file in order; a torn one has its ``end`` beyond the file.

    Bytes that are no message are skipped up to the next one, and so is a message that no other one follows.
    """
    at = 0
    while 0 <= at <= len(data) - 8:
        message = _message(data, at)
        if message is None:
            at = _next_mark(data, at + 1)
            continue
        frame, end = message
        if frame is not None:
            yield frame
        follows = end == len(data) or data[end : end + 4] == _MARK
        at = end if follows else _next_mark(data, at + 8)


def _next_mark(data: bytes, start: int) -> int:
    at = data.find(_MARK, start)
    while at >= 0 and at % 8:
        at = data.find(_MARK, at + 1)
    return at


def _message(data: bytes, at: int) -> tuple[Frame | None, int] | None:
    """Returns the record batch at this position (None for another message) and its end, or None when there is none."""
    if data[at : at + 4] != _MARK:
        return None
    length = struct.unpack_from("<i", data, at + 4)[0]
    if not 0 < length <= _MAX_METADATA:
        return None
    head = at + 8
    if head + length > len(data):
        return Frame(at, head + length, 0, 0), head + length
    try:
        return _parsed(data, at, _Table(data[head : head + length]), head + length)
    except (struct.error, IndexError):
        return None


def _parsed(data: bytes, at: int, message: _Table, body: int) -> tuple[Frame | None, int] | None:
    kind = message.number(1, "<B")
    length = message.number(3, "<q")
    if not 0 <= length < 2**40 or length % 8:
        return None
    if kind != _BATCH:
        return None, body + length
    batch = message.table(2)
    size = sum(_stated(data, body + start, held) for start, held in batch.buffers(2))
    return Frame(at, body + length, batch.number(0, "<q"), size), body + length


def _stated(data: bytes, start: int, held: int) -> int:
    """Returns the size a compressed buffer states for itself; -1 there means that it is not compressed."""
    if held < 8 or start + 8 > len(data) or start < 0:
        return max(held, 0)
    stated: int = struct.unpack_from("<q", data, start)[0]
    return held if stated == -1 else max(stated, 0) if stated >= 0 else 2**62


class _Table:
    """A table of a flatbuffer: fields by their position (https://flatbuffers.dev/internals)."""

    def __init__(self, data: bytes, at: int | None = None) -> None:
        self._data = data
        self._at = struct.unpack_from("<i", data, 0)[0] if at is None else at

    def number(self, field: int, form: str) -> int:
        """Returns a number, 0 when it is not there."""
        place = self._place(field)
        return int(struct.unpack_from(form, self._data, place)[0]) if place else 0

    def table(self, field: int) -> _Table:
        """Returns a table that a field points to."""
        return _Table(self._data, self._target(field))

    def buffers(self, field: int) -> list[tuple[int, int]]:
        """Returns a vector of (offset, length) pairs."""
        start = self._target(field)
        count = struct.unpack_from("<I", self._data, start)[0]
        if count > len(self._data) // 16:
            raise IndexError("a vector longer than its message")
        return [struct.unpack_from("<qq", self._data, start + 4 + 16 * i) for i in range(count)]

    def _target(self, field: int) -> int:
        place = self._place(field)
        if not place:
            raise IndexError("a field is missing")
        return place + int(struct.unpack_from("<I", self._data, place)[0])

    def _place(self, field: int) -> int:
        if self._at < 0:
            raise IndexError("a table before its buffer")
        fields = self._at - int(struct.unpack_from("<i", self._data, self._at)[0])
        if fields < 0:
            raise IndexError("a table before its buffer")
        entry = 4 + 2 * field
        if entry >= struct.unpack_from("<H", self._data, fields)[0]:
            return 0
        offset = int(struct.unpack_from("<H", self._data, fields + entry)[0])
        return self._at + offset if offset else 0
