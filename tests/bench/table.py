"""The bench's outcome as Markdown tables, and as plain data."""

from __future__ import annotations

from statistics import mean
from typing import Any

from tests.bench import summary
from tests.bench.rounds import Measured
from tests.bench.rows import Row
from tests.bench.summary import Ratios

HEAD = "| whole step, watched / bare | steady state | first 128 steps | once | memory | |\n|---|---|---|---|---|---|"


def table(measured: Measured) -> str:
    """Returns the table of one network: mean [smallest..largest] over the pairs of processes."""
    data = as_data(measured)
    size = f"{data['parameters']:,} parameters in {data['tensors']:,} tensors, {measured.network.batch} a step"
    lines = [f"### {measured.network.name}: {size}, bare step {data['bare_step_ms']:.2f} ms", "", HEAD]
    lines += [_line(measured, row) for row in measured.rows if row.key != "bare"]
    lines += [f"| {row.label} | not installed: `pip install {row.install}` | | | | |" for row in measured.missing]
    return "\n".join([*lines, *_reads(measured)])


def as_data(measured: Measured) -> dict[str, Any]:
    """Returns everything of one network for ``--json``: sizes, each row's ratios and verdict, the raw outcomes."""
    rounds = measured.rounds
    bare = rounds[0]["bare"]
    return {
        "network": measured.network.name,
        "batch": measured.network.batch,
        "parameters": bare["parameters"],
        "tensors": bare["tensors"],
        "bare_step_ms": 1000 * mean(map(summary.bare_step, rounds)),
        "rows": {row.key: _row_data(measured, row) for row in measured.rows if row.key != "bare"},
        "not_installed": {row.key: f"pip install {row.install}" for row in measured.missing},
        "reads": measured.reads,
        "rounds": rounds,
    }


def _row_data(measured: Measured, row: Row) -> dict[str, Any]:
    noise = summary.ratios(measured.rounds, "noise")
    found = summary.ratios(measured.rounds, row.key)
    first = summary.ratios(measured.rounds, row.key, "first")
    assert noise is not None
    assert found is not None
    return {
        "label": row.label,
        "steady": _numbers(found),
        "first": None if first is None else _numbers(first),
        "is_noise": summary.is_noise(found, noise),
        "start_ms": 1000 * summary.start_seconds(measured.rounds, row.key),
        "memory_mb": summary.added_bytes(measured.rounds, row.key) / 1e6,
        "steps": measured.rounds[0][row.key]["steps"],
        "findings": measured.rounds[0][row.key]["findings"],
    }


def _numbers(ratios: Ratios) -> dict[str, Any]:
    return {"mean": ratios.mean, "min": ratios.low, "max": ratios.high, "pairs": ratios.pairs}


def _line(measured: Measured, row: Row) -> str:
    data = _row_data(measured, row)
    first = "" if data["first"] is None else _shown(data["first"])
    once, memory = (f"{data['start_ms']:+.0f} ms", f"{data['memory_mb']:+.0f} MB") if row.key != "noise" else ("", "")
    return f"| {row.label} | {_shown(data['steady'])} | {first} | {once} | {memory} | {_remark(measured, row, data)} |"


def _shown(numbers: dict[str, Any]) -> str:
    return f"{numbers['mean']:.3f} [{numbers['min']:.3f}..{numbers['max']:.3f}]"


def _remark(measured: Measured, row: Row, data: dict[str, Any]) -> str:
    if row.key == "noise":
        noise = summary.ratios(measured.rounds, "noise")
        assert noise is not None
        return f"differences below {summary.spread(noise):.3f} are noise"
    remarks = ["noise"] if data["is_noise"] else []
    if row.period > data["steps"][1]:
        remarks.append(f"{data['steps'][1]} steps of {row.period}: without the one that logs")
    if data["findings"]:
        remarks.append(f"found: {', '.join(data['findings'])}")
    return "; ".join(remarks)


def _reads(measured: Measured) -> list[str]:
    reads = measured.reads
    if not reads:
        return []
    step, one = mean(read["step"] for read in reads), mean(read["read"] for read in reads)
    lines = ["", f"One read of the gradients: {one:.0f} us, {one / step:.2%} of a step. Capture of the gradients:"]
    for part, what in (("lean", "lean"), ("full", "with histogram")):
        shares = Ratios(tuple(read[part] / read["read"] for read in reads))
        lines.append(f"* {what}: {shares.mean:.2f} reads [{shares.low:.2f}..{shares.high:.2f}]")
    end, writer = mean(read["end"] for read in reads), mean(read["writer"] for read in reads)
    lines.append(f"* the step's end: {end:.0f} us; the writer's thread: {writer:.0f} us a step")
    if reads[0]["tensors"] >= 500:
        fixed = mean(read["per_tensor"] for read in reads)
        lines.append(f"* for each tensor, warm, beyond `.grad` itself: {fixed:.2f} us")
    return lines
