"""The content of a file as it was at the first look, also when its name is gone since: evicted, replaced, removed."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Final

import pyarrow as pa

from gradwatch.store import files

IN_MEMORY: Final = 256 * 2**10
"""Bytes up to which a file is kept in memory."""
DESCRIPTORS: Final = 128
"""Files of a process that may be kept open; further ones are kept in memory, compressed as they are."""


class Held:
    """A file of a run, kept to be read from later: open where that is cheap, else in memory.

    Nowhere else than on POSIX systems does a file that is open let itself be removed, and no reader may hinder the
    process that trains: on others the content is kept in memory.
    """

    _open = 0

    def __init__(self, path: Path, limit: int) -> None:
        """Reads the file once; ``content`` is there until ``release``.

        Raises:
            OSError: also for symlinks, devices, pipes and files over the limit.
        """
        self.path = path
        self._descriptor: int | None = None
        descriptor = files.open_plain(path, limit)
        try:
            with os.fdopen(os.dup(descriptor), "rb") as file:
                self.content: bytes | None = file.read(os.fstat(descriptor).st_size)
            if len(self.content) > IN_MEMORY and Held._open < DESCRIPTORS and hasattr(os, "pread"):
                self._descriptor, self._size = descriptor, len(self.content)
                Held._open += 1
        finally:
            if self._descriptor is None:
                os.close(descriptor)

    @classmethod
    def kept_open(cls) -> int:
        """Returns how many files this process keeps open."""
        return cls._open

    def release(self) -> None:
        """Lets go of the content in memory where the file is kept open."""
        if self._descriptor is not None:
            self.content = None

    def source(self) -> pa.NativeFile:
        """Returns the content as Arrow reads it."""
        if self.content is not None:
            return pa.BufferReader(self.content)
        assert self._descriptor is not None
        return pa.PythonFile(_Reading(self, self._descriptor, self._size), mode="r")

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            self._descriptor = None
            Held._open -= 1
            with contextlib.suppress(OSError):
                os.close(descriptor)


class _Reading(io.RawIOBase):
    """A file object with a place of its own over a shared descriptor."""

    def __init__(self, held: Held, descriptor: int, size: int) -> None:
        self._held = held  # Keeps the descriptor open.
        self._descriptor = descriptor
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        wanted = max(0, self._size - self._at) if size < 0 else size
        parts = []
        while wanted and (part := os.pread(self._descriptor, wanted, self._at)):
            parts.append(part)
            self._at += len(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
