"""Two processes under torchrun: one run, the averaged gradient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gradwatch

SCRIPT = Path(__file__).with_name("ddp_script.py")


@pytest.mark.slow
@pytest.mark.parametrize(("order", "clip"), [("wrapped", "plain"), ("wrapped later", "clipped")])
def test_ddp_records_the_averaged_gradient_in_one_run(order: str, clip: str, tmp_path: Path) -> None:
    """Both ranks write their own tree of one run; merged, it holds the gradient that the optimizers applied."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRADWATCH_STRICT": "1"}
    done = subprocess.run(
        [*command, str(tmp_path), order, clip],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    truth = [json.loads((tmp_path / f"truth{rank}.json").read_text()) for rank in (0, 1)]
    assert truth[0] == pytest.approx(truth[1])

    run = gradwatch.load(tmp_path / "run")
    rows = run.frame()
    weight = rows[rows["parameter"] == "0.weight"]
    assert weight["step"].tolist() == list(range(12))
    assert weight["l2"].tolist() == pytest.approx(truth[0], rel=1e-6)
    assert set(weight["stage"]) == {"reduced, after clipping" if clip == "clipped" else "reduced"}
    ranks = run.frame(per_rank=True)
    assert sorted(ranks["rank"].unique()) == [0, 1]
    both = ranks[ranks["parameter"] == "0.weight"].pivot_table(index="step", columns="rank", values="l2")
    assert both[0].tolist() == pytest.approx(both[1].tolist(), rel=1e-6)
    assert run.recording.quality == ()
    assert [path.name for path in sorted((tmp_path / "run").glob("rank*"))] == ["rank0000", "rank0001"]
    assert (tmp_path / "run" / "report.html").exists()
    assert done.stderr.count("gradwatch: Gradients look healthy") <= 1
