"""Reduces tensors with the Triton kernel under Triton's interpreter, which must be chosen before Triton is imported.

Reads lists of tensors from one file, and writes their statistics to another: lean, with counts, and in full.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from gradwatch_torch import fused
from gradwatch_torch.device import OnDevice


def main(inputs: Path, outputs: Path) -> None:
    assert os.environ["TRITON_INTERPRET"] == "1"
    fused.takes = lambda tensor: tensor.dtype in fused.KINDS
    calls = []
    launch = fused.Fused.launch
    fused.Fused.launch = lambda self: calls.append(self) or launch(self)  # type: ignore[method-assign, func-returns-value]
    found = {}
    for name, tensors in torch.load(inputs).items():
        for kind, flags in {"lean": (False, False), "counts": (True, False), "full": (True, True)}.items():
            calls.clear()
            reduced = OnDevice(tensors, counts=flags[0], histogram=flags[1]).resolve()
            found[name, kind] = {**dataclasses.asdict(reduced), "launches": len(calls)}
    torch.save({"found": found, "fault": fused.fault_of(torch.device("cpu"))}, outputs)


if __name__ == "__main__":
    began = time.perf_counter()
    with np.errstate(all="ignore"):  # numpy, in place of the device, speaks of squares that overflow
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"{time.perf_counter() - began:.1f} s")
