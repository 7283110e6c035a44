"""Raw files: whole writes, atomic replacement, and opening only what is a plain file."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

from gradwatch.store.layout import TEMPORARY

_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all bytes, also when the system takes them in parts."""
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view)
        if written == 0:
            raise OSError(errno.EIO, "the system wrote nothing")
        view = view[written:]


def create(path: Path) -> int:
    """Creates a file that must not exist yet; returns its descriptor."""
    return os.open(path, _CREATE, 0o644)


def replace_whole(path: Path, data: bytes) -> None:
    """Puts a file in place whole: temporary beside it, fsync, replace. Leaves no temporary behind when it fails."""
    temporary = temporary_beside(path)
    try:
        _write_new(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise


def place_exclusive(path: Path, data: bytes) -> bool:
    """Puts a file in place whole unless one is there already; tells whether it did."""
    temporary = temporary_beside(path)
    try:
        _write_new(temporary, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            return _copy_exclusive(path, data)
        return True
    finally:
        remove(temporary)


def _copy_exclusive(path: Path, data: bytes) -> bool:
    # Some file systems know no hard links; there a reader may see the file before it is whole.
    try:
        descriptor = create(path)
    except FileExistsError:
        return False
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)
    return True


def temporary_beside(path: Path) -> Path:
    """Returns a name for a temporary that no other process uses."""
    return path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")


def _write_new(path: Path, data: bytes) -> None:
    remove(path)
    descriptor = create(path)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Unlinks a file if that is possible."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def open_plain(path: Path, limit: int) -> int:
    """Opens a plain file of at most ``limit`` bytes to read; returns its descriptor.

    Raises:
        OSError: also for symlinks, devices, pipes and files over the limit.
    """
    descriptor = os.open(path, os.O_RDONLY | _NO_FOLLOW)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if found.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_plain(path: Path, limit: int) -> bytes:
    """Reads a plain file of at most ``limit`` bytes.

    Raises:
        OSError: also for symlinks, devices, pipes and files over the limit.
    """
    with os.fdopen(open_plain(path, limit), "rb") as file:
        # Not of the limit: so much room would be set aside first.
        return file.read(os.fstat(file.fileno()).st_size)
