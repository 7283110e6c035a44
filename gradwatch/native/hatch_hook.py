"""Lets hatchling compile the C sources into the wheel; without a compiler the wheel works with plain operations."""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface[Any]):
    """Builds the libraries before the files of a wheel, or of an editable installation, are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface
        """Compiles, and marks the wheel as made for this platform."""
        found = runpy.run_path(str(Path(self.root, "gradwatch/native/build.py")))
        failed = found["build"](Path(self.root))
        if failed:
            self.app.display_warning(f"gradwatch is built without its C library, which makes it slower: {failed}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
