"""Compiles the C sources beside the Python ones; run as a script after changing them.

Runs before anything of gradwatch is installed, so it imports nothing of it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

LIBRARIES: Final = {
    "gradwatch/native/_reduce.so": ("gradwatch/native/reduce.c", "gradwatch/native/units.c"),
    "adapters/gradwatch_jax/_xla.so": ("adapters/gradwatch_jax/xla.c", "gradwatch/native/reduce.c"),
}
"""Each library with its sources, by paths in the repository."""

# Sums become vector instructions only where their order is free; NaN and infinity keep their meaning.
_OPTIONS: Final = (
    *("-O3", "-std=gnu11", "-fPIC", "-shared"),
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"),
)


def build(root: Path) -> str | None:
    """Compiles all libraries; returns None, or one sentence that says why there are none."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if sys.platform == "win32" or shutil.which(compiler[0]) is None:
        return f"no C compiler ({compiler[0]}) was found"
    for library, sources in LIBRARIES.items():
        include = ("-I", str(root / "gradwatch/native"), "-I", str(root / "adapters/gradwatch_jax/vendor"))
        command = [*compiler, *_OPTIONS, *include, *(str(root / s) for s in sources)]
        done = subprocess.run(  # noqa: S603 - the compiler that the user names
            [*command, "-o", str(root / library), "-lm"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return f"{compiler[0]} could not compile {library}: {done.stderr.strip()[-500:]}"
    return None


if __name__ == "__main__":
    sys.exit(build(Path(__file__).parents[2]))
