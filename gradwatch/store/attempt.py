"""Claiming a place to write: the run's directory, and in it a new attempt that no other process has."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from gradwatch.errors import RunError
from gradwatch.store import files, manifest, process
from gradwatch.store.layout import (
    ATTEMPT_FORMAT,
    META_FILE,
    RUN_FILE,
    RUN_FORMAT,
    SCHEMA_VERSION,
    TEMPORARY,
    attempt_name,
    attempts,
    rank_name,
    ranks,
)

_STALE_SECONDS: Final = 60.0
_RACES: Final = 100


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed attempt.

    Attributes:
        run: the run's directory, not the wanted one when another process writes there.
        directory: of the attempt.
        meta: the attempt's manifest as written.
    """

    run: Path
    directory: Path
    meta: dict[str, Any]


def check(run: Path) -> None:
    """Refuses a path that is no place for a run.

    Raises:
        RunError: for a file, a directory that holds something else, a run that this release cannot read, or a place
            where nothing can be created.
    """
    if not run.exists():
        parent = next(path for path in run.absolute().parents if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise RunError(f"run={str(run)!r} cannot be created below {parent}; choose a directory you can write to.")
        return
    if not run.is_dir():
        raise RunError(f"run={str(run)!r} is a file; give a directory, new or of an earlier run.")
    if not (run / RUN_FILE).exists() and any(not path.name.endswith(TEMPORARY) for path in run.iterdir()):
        raise RunError(f"run={str(run)!r} holds something else than a run; give a new or empty directory.")
    if (run / RUN_FILE).exists():
        manifest.read_run(run)


def claim(wanted: Path, content: Mapping[str, Any], meta: Mapping[str, Any]) -> Claim:
    """Claims an attempt in the wanted run, or in ``<run>-2``, ``<run>-3`` ... when another process writes there.

    Args:
        wanted: the run's directory.
        content: of ``run.json``, if the run is new.
        meta: of the attempt; ``rank`` and ``launch_id`` decide with whom the run is shared.

    Raises:
        OSError: when nothing can be written.
        RunError: when the wanted directory is not a run.
    """
    for run in _candidates(wanted, str(meta["launch_id"])):
        claimed = _claim_in(run, content, meta)
        if claimed is not None:
            return claimed
    raise AssertionError("the candidates do not end")


def _candidates(wanted: Path, launch_id: str) -> Iterator[Path]:
    """Yields run directories to try: the ones of the same launch first, so that its ranks meet."""
    names = [wanted if i == 1 else wanted.with_name(f"{wanted.name}-{i}") for i in range(1, 100)]
    if launch_id:
        for run in names:
            if not run.exists():
                break
            if _launch_of(run) == launch_id:
                yield run
    yield wanted
    for i in count(2):
        run = wanted.with_name(f"{wanted.name}-{i}")
        try:
            check(run)
        except RunError:
            continue
        yield run


def _launch_of(run: Path) -> str:
    try:
        return str(manifest.read_run(run).get("launch_id", ""))
    except RunError:
        return ""


def _claim_in(run: Path, content: Mapping[str, Any], meta: Mapping[str, Any]) -> Claim | None:
    check(run)
    run.mkdir(parents=True, exist_ok=True)
    if not (run / RUN_FILE).exists():
        opening = {"format": RUN_FORMAT, "schema_version": SCHEMA_VERSION, "name": run.name, **content}
        files.place_exclusive(run / RUN_FILE, manifest.encode(opening))
    rank = run / rank_name(int(meta["rank"]))
    rank.mkdir(exist_ok=True)
    launch_id = str(meta["launch_id"])
    for _ in range(_RACES):
        if _stranger(run, launch_id) or any(_lives(path) for _, path in attempts(rank)):
            return None
        claimed = _create(run, rank, meta)
        if claimed is not None and _stranger(run, launch_id) and _launch_of(run) != launch_id:
            shutil.rmtree(claimed.directory, ignore_errors=True)
            return None
        if claimed is not None:
            return claimed
    raise OSError(errno.EEXIST, f"{rank} holds something that is no attempt under the name of the next one")


def _create(run: Path, rank: Path, meta: Mapping[str, Any]) -> Claim | None:
    """Makes the next attempt's directory, whole with its manifest; None when another process was faster."""
    _sweep(rank)
    earlier = [number for number, _ in attempts(rank)]
    number = max(earlier, default=0) + 1
    complete = {
        "format": ATTEMPT_FORMAT,
        "schema_version": SCHEMA_VERSION,
        **meta,
        "attempt": number,
        "parent_attempt": max(earlier, default=None),
        **process.identity(),
    }
    directory = rank / attempt_name(number)
    prepared = files.temporary_beside(directory)
    shutil.rmtree(prepared, ignore_errors=True)
    try:
        prepared.mkdir()
        files.replace_whole(prepared / META_FILE, manifest.encode(complete))
        try:
            os.rename(prepared, directory)
        except OSError:
            if directory.exists():
                return None
            raise
    finally:
        shutil.rmtree(prepared, ignore_errors=True)
    return Claim(run, directory, complete)


def _stranger(run: Path, launch_id: str) -> bool:
    """Tells whether a living attempt of another launch is in this run."""
    for _, rank in ranks(run):
        for _, directory in attempts(rank):
            meta = read_meta(directory)
            if str(meta.get("launch_id", "")) != launch_id and process.alive(meta, directory / META_FILE):
                return True
    return False


def _lives(directory: Path) -> bool:
    return process.alive(read_meta(directory), directory / META_FILE)


def read_meta(directory: Path) -> dict[str, Any]:
    """Returns an attempt's manifest, empty when it cannot be read."""
    try:
        return manifest.read(directory / META_FILE)
    except (OSError, ValueError):
        return {}


def _sweep(rank: Path) -> None:
    """Removes what dead processes left half-made; young temporaries may be another process's."""
    places = [rank, *(path for _, path in attempts(rank))]
    for path in [found for place in places for found in place.glob(f"*{TEMPORARY}")]:
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
