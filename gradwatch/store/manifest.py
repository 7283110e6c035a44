"""JSON manifests that carry their own checksum, and user values made plain for them."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gradwatch.errors import RunError
from gradwatch.store import files
from gradwatch.store.layout import MAX_JSON_BYTES, RUN_FILE, RUN_FORMAT, SCHEMA_VERSION

_CHECKSUM: Final = "crc32"
_DEPTH: Final = 8
_TEXT: Final = 4096


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """Returns a value as JSON can hold it: non-finite numbers as text, unknown objects by their ``str``."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, str):
        return clean(value)
    if depth > 0 and isinstance(value, Mapping):
        return {clean(str(key)): plain(item, depth - 1) for key, item in value.items()}
    if depth > 0 and isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth - 1) for item in value]
    return clean(str(value))[:_TEXT]


def clean(text: str) -> str:
    """Returns text that UTF-8 can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def encode(content: Mapping[str, Any]) -> bytes:
    """Returns a manifest's bytes, with the checksum of its content."""
    body = plain(content)
    return _dump({**body, _CHECKSUM: _checksum(body)}, indent=1)


def decode(data: bytes) -> dict[str, Any]:
    """Returns a manifest's content.

    Raises:
        ValueError: when it is not JSON, not an object, or does not match its checksum.
    """
    try:
        content = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    checksum = content.pop(_CHECKSUM, None)
    if checksum != _checksum(content):
        raise ValueError("checksum does not match")
    return content


def read(path: Path) -> dict[str, Any]:
    """Reads a manifest. Raises OSError or ValueError."""
    return decode(files.read_plain(path, MAX_JSON_BYTES))


def read_run(path: Path) -> dict[str, Any]:
    """Reads the manifest of a run directory.

    Raises:
        RunError: when the path is missing, a file, not a run, damaged, or of a newer schema.
    """
    if not path.exists():
        raise RunError(f"{path} does not exist; give the directory of a run.")
    if not path.is_dir():
        raise RunError(f"{path} is a file; give the directory of a run, which holds {RUN_FILE}.")
    try:
        content = read(path / RUN_FILE)
    except FileNotFoundError:
        raise RunError(f"{path} is not a run: it holds no {RUN_FILE}; give the directory of a run.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path / RUN_FILE} is damaged ({error}); restore it from a copy.") from error
    return _checked(path, content)


def _checked(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    version = content.get("schema_version")
    if content.get("format") != RUN_FORMAT or not isinstance(version, int):
        raise RunError(f"{path} is not a run of gradwatch; give the directory of a run.")
    if version > SCHEMA_VERSION:
        raise RunError(
            f"{path} was written by gradwatch schema {version}; this release reads {SCHEMA_VERSION}; "
            "install a newer gradwatch."
        )
    return content


def _checksum(content: Any) -> str:
    return f"{zlib.crc32(_dump(content, sort_keys=True)):08x}"


def _dump(content: Any, **options: Any) -> bytes:
    return json.dumps(content, ensure_ascii=True, allow_nan=False, **options).encode()


def line(content: Mapping[str, Any]) -> bytes:
    """Returns an event as one line of JSON."""
    return _dump(plain(content)) + b"\n"
