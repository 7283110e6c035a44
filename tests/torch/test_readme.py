"""The README tells the truth: its Python runs, and its two commands are those that CI runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gradwatch import cli
from tests.readme import NEEDS_README, ROOT, blocks

pytestmark = NEEDS_README


def training() -> dict[str, Any]:
    """Returns what the README's first lines take for granted: a model, an optimizer, data and a loss."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    x = torch.randn(30, 32, 8)
    loader = [(batch, (batch.sum(dim=1) > 0).long()) for batch in x]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return {"model": model, "optimizer": optimizer, "loader": loader, "loss_fn": nn.CrossEntropyLoss()}


def test_every_python_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, as a reader would paste them, and the recipes print numbers for every parameter."""
    monkeypatch.chdir(tmp_path)
    names = training()
    code = [block for block in blocks("python") if block not in blocks("python", "In JAX")]
    assert len(code) >= 6
    for block in code:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "mlp.html").exists()
    for run in ("mlp", "decorated"):
        assert (tmp_path / "runs" / run / "report.html").exists()
    printed = capsys.readouterr().out
    assert "Gradients look healthy" in printed
    for parameter in ("0.weight", "0.bias", "2.weight", "2.bias"):
        assert printed.count(parameter) == 2
    assert "NaN" not in printed


def test_the_two_commands_are_those_that_ci_runs() -> None:
    """Exactly two shell blocks of one line: the demonstration, and the tests; .ci/run extracts the second one."""
    demonstration, tests = blocks("sh")
    setup = "python3 -m venv .venv && .venv/bin/pip install -c .ci/constraints.txt -e '.[{}]' && .venv/bin/{}\n"
    assert demonstration == setup.format("demo", "gradwatch demo")
    assert tests == setup.format("dev", "python -m pytest")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    extraction = next(line for line in script.splitlines() if line.startswith("test_command=$("))
    done = subprocess.run(
        ["bash", "-c", f'{extraction}; echo "$test_command"'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == tests
    assert 'eval "$test_command"' in script


def test_every_command_of_the_table_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """The commands that the README lists are those of the command line, with their options."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed: dict[str, str] = {}
    for command, options in re.findall(r"^\| `gradwatch (\w+)(.*?)` \|", text, re.MULTILINE):
        listed[command] = listed.get(command, "") + options
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert set(listed) == set(re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE))
    for command, options in listed.items():
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        usage = capsys.readouterr().out
        for option in re.findall(r"--?[a-z][a-z-]*", options):
            assert option in usage


def test_links_lead_to_files() -> None:
    """Every relative link and picture of the README, and of the pages it links to, is a file of the repository."""
    for page in (ROOT / "README.md", ROOT / "adapters" / "README.md", ROOT / ".github" / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page} links to {target}"
