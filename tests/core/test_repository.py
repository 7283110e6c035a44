"""The repository keeps to its plan: what stands at the top, which way imports point, what importing costs."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists(), reason="these tests read the repository, and only its tests are here"
)

TOP = {"pyproject.toml", "gradwatch", "adapters", "tests", "reports", "README.md", "LICENSE"}
SHELVES = ("adapters", "reports")
FRAMEWORKS = {"torch", "jax", "flax", "optax", "equinox", "haiku", "tensorflow", "keras", "mlx"}
HEAVY = ("torch", "jax", "pandas", "pyarrow", "plotly", "jinja2")
CATCH_ALL = {"util", "utils", "helper", "helpers", "manager", "managers", "misc", "common", "stuff"}

ROOMS = (
    *(
        "__main__",
        "cli",
        "commands",
        "live",
        "testing",
        "__init__",
        "watch",
        "options",
        "conclusion",
        "run",
        "frames",
        "analyze",
        "told",
        "causes",
        "silences",
        "explain",
        "rules",
        "comparison",
        "plugins",
    ),
    *("examples", "findings", "notebook", "recording", "store", "launch", "scalars"),
    *("recorder", "guard", "schedule", "record", "native", "statistics", "errors"),
)
"""The rooms of the core from left to right: a module may import only from rooms to the right of its own."""

ADAPTERS_MAY = {"plugins", "scalars", "recorder", "guard", "schedule", "record", "native", "statistics", "errors"}
DEMONSTRATIONS_MAY = {"__init__", "examples"}
REPORTERS_MAY = {"comparison", "explain", "plugins", "findings", "recording", "record", "statistics", "errors"}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    """Yields the dotted names that a module imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages() -> dict[str, list[Path]]:
    """Returns the packages on the shelves that hold any module."""
    found = {folder.name: sorted(folder.rglob("*.py")) for shelf in SHELVES for folder in (ROOT / shelf).iterdir()}
    return {name: files for name, files in found.items() if files}


def rooms(path: Path) -> set[str]:
    """Returns the rooms of the core that a module imports; the public face is the room ``__init__``."""
    parts = [name.split(".") for name in imports(path) if name.split(".")[0] == "gradwatch"]
    return {part[1] if len(part) > 1 and part[1] in ROOMS else "__init__" for part in parts}


def foreign_packages(path: Path) -> set[str]:
    """Returns the packages on the shelves that a module imports, beside the one that it is part of."""
    return {name.split(".")[0] for name in imports(path)} & (set(packages()) - set(path.parts))


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [name for name in listed.stdout.split("\0") if name]


def test_the_top_level_holds_what_the_plan_names() -> None:
    """Beside names that begin with a dot, exactly the seven of the plan are kept in the repository."""
    top = {name.split("/")[0] for name in tracked()}
    assert {name for name in top if not name.startswith(".")} == TOP


def test_the_shelves_are_no_packages() -> None:
    """A folder called adapters must lose to a real package of that name, so it has no __init__.py."""
    for shelf in SHELVES:
        assert not (ROOT / shelf / "__init__.py").exists()


def test_what_lies_on_the_shelves_is_shipped_typed_and_found() -> None:
    """Every package on a shelf is in the wheel, carries py.typed, and has an entry point; nothing else is listed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(Path(entry).name for entry in shipped) == sorted(["gradwatch", *packages()])
    entries = project["project"]["entry-points"]
    targets = [*entries["gradwatch.adapters"].values(), *entries["gradwatch.reporters"].values()]
    assert {target.split(":")[0] for target in targets} == set(packages())
    for entry in shipped:
        assert (ROOT / entry / "py.typed").exists()


def test_arrows_of_the_core_point_right() -> None:
    """A module of the core imports only from rooms to the right of its own, and never from a shelf."""
    wrong = {}
    for path in sources("gradwatch"):
        own = path.relative_to(ROOT / "gradwatch").with_suffix("").parts[0]
        wrong[path] = rooms(path) - {own, *ROOMS[ROOMS.index(own) + 1 :]} | foreign_packages(path)
    assert not {path: names for path, names in wrong.items() if names}


def test_adapters_see_only_what_the_core_offers_them() -> None:
    """An adapter knows no rule, no file and no other package; a demonstration uses the public face and examples."""
    wrong = {}
    for path in sources("adapters"):
        allowed = DEMONSTRATIONS_MAY if path.stem == "demo" else ADAPTERS_MAY
        wrong[path] = rooms(path) - allowed | foreign_packages(path)
    assert not {path: names for path, names in wrong.items() if names}


def test_reporters_see_only_a_recording_and_findings() -> None:
    """A reporter knows no rule, no file and no other package of the shelves."""
    wrong = {path: rooms(path) - REPORTERS_MAY | foreign_packages(path) for path in sources("reports")}
    assert not {path: names for path, names in wrong.items() if names}


def test_no_framework_is_named_outside_the_adapters() -> None:
    """Neither an import nor a name nor a text in the code of core and reporters is that of a framework."""
    wrong = {}
    for path in sources("gradwatch", "reports"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {part for name in imports(path) for part in name.split(".")}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        wrong[path] = names & FRAMEWORKS
    assert not {path: names for path, names in wrong.items() if names}


def test_every_module_opens_with_a_sentence_and_has_a_name() -> None:
    """Each module begins with a docstring, and none is called by a word that could hold anything."""
    modules = sources("gradwatch", *SHELVES)
    assert not [path for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not [path for path in modules if not CATCH_ALL.isdisjoint(path.stem.strip("_").split("_"))]


def test_importing_gradwatch_is_cheap() -> None:
    """It adds less than 50 ms to what numpy costs, and loads no framework, no data frames, no plots.

    Processor time, and the limit grows with numpy's own time over the 56 ms it takes on the machine where the limit
    was set, so that a slow or busy machine does not decide.
    """
    program = (
        "import time, sys; a = time.process_time(); import numpy; b = time.process_time(); import gradwatch; "
        f"c = time.process_time(); print(b - a, c - b, *[name for name in {HEAVY} if name in sys.modules])"
    )
    costs = []
    for _ in range(7):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
        numpy_seconds, own_seconds, *loaded = done.stdout.split()
        assert loaded == []
        costs.append(float(own_seconds) / max(1.0, float(numpy_seconds) / 0.056))
    assert statistics.median(costs) < 0.05
