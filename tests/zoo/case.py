"""One case from its draw to its record: planted, judged by the oracle, shown to every tool."""

from __future__ import annotations

import time
import traceback
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from tests.zoo.draw import Draw, faulty, generator, healthy
from tests.zoo.faults import FAULTS
from tests.zoo.oracle import Ruling, rule, sound
from tests.zoo.program import build
from tests.zoo.recipe import Recipe
from tests.zoo.recording import record
from tests.zoo.rivals import RIVALS
from tests.zoo.tools import TOOLS, Claim, Tool
from tests.zoo.trace import Trace

ATTEMPTS: Final = 8
"""Draws of a slot before it stays empty."""
SEEDS: Final = 4
"""Seeds with which a healthy program runs."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a half that the generator fills.

    Attributes:
        seed: of the half.
        number: its place in the half, from 0.
        kind: the kind to plant, or "" for a healthy case.
        turn: which of the slots of its kind it is; plants and families take turns.
    """

    seed: str
    number: int
    kind: str
    turn: int


def prepare() -> None:
    """Imports both frameworks with all libraries and tools, so that no case is charged for it."""
    for framework in ("torch", "linen", "nnx", "equinox"):
        small = Recipe(framework, "logistic", "wine", 1, 1, steps=2)
        _asked(small, record(small), 0.0)


def run(slot: Slot) -> dict[str, Any]:
    """Draws until the oracle confirms, shows the case to the tools, and returns a record fit for JSON."""
    started = time.process_time()
    rejected: list[dict[str, Any]] = []
    for attempt in range(ATTEMPTS):
        random = generator(slot.seed, slot.number, slot.kind, attempt)
        turn = slot.turn + attempt // 2
        draw = faulty(slot.kind, random, turn) if slot.kind else healthy(random, turn)
        try:
            found = show_faulty(draw) if slot.kind else show_healthy(draw)
        except Exception as error:  # a draw that does not even train is one that is rejected, with its reason
            found = {"id": str(draw), "reason": f"error: {error!r}", "trace": traceback.format_exc()}
        if not found.get("reason"):
            return {"number": slot.number, "kind": slot.kind, "rejected": rejected, **found, "seconds": _since(started)}
        rejected.append({"id": found["id"], "reason": found["reason"], "trace": found.get("trace", "")})
    return {"number": slot.number, "kind": slot.kind, "rejected": rejected, "seconds": _since(started)}


def show_faulty(draw: Draw) -> dict[str, Any]:
    """Plants, judges, and asks the tools."""
    fault = FAULTS[draw.fault]
    planted = fault.plant(draw.base, generator(draw))
    (sick, spent), (twin, spent_on_twin) = _recorded(planted.sick), _recorded(planted.twin)
    ruling = rule(fault.kind, planted, sick, twin)
    if not ruling.confirmed:
        return {"id": str(draw), "reason": ruling.reason}
    # The oracle has found the twin sound: it is one more healthy run.
    runs = {"runs": [_asked(planted.sick, sick, spent)], "twin": _asked(planted.twin, twin, spent_on_twin)}
    truth = {
        "required": sorted({fault.kind} | fault.also),
        "tolerated": sorted(fault.tolerated),
        **_ruled(ruling),
    }
    return {**_described(draw), "truth": truth, **runs}


def show_healthy(draw: Draw) -> dict[str, Any]:
    """Runs a healthy draw with several seeds; one that is not sound rejects the draw."""
    runs = []
    for i in range(SEEDS):
        recipe = replace(draw.base, seed=draw.seed + i)
        trace, spent = _recorded(recipe)
        reason = sound(recipe, trace)
        if reason:
            return {"id": str(draw), "reason": reason}
        runs.append(_asked(recipe, trace, spent))
    return {**_described(draw), "runs": runs}


def _recorded(recipe: Recipe) -> tuple[Trace, float]:
    started = time.process_time()
    return record(recipe), _since(started)


def _asked(recipe: Recipe, trace: Trace, spent: float) -> dict[str, Any]:
    """Asks all tools about a run whose record took so many seconds of one core."""
    started = time.process_time()
    answers = {name: _answer(tool, recipe) for name, tool in TOOLS.items()}
    claims = {name: found for name, (found, _) in answers.items()}
    errors = {name: error for name, (_, error) in answers.items() if error}
    claims |= {name: rival(trace) for name, rival in RIVALS.items()}
    seconds = round(spent + _since(started), 3)
    said = {name: [asdict(claim) for claim in found] for name, found in claims.items()}
    return {"claims": said, "errors": errors, "seconds": seconds}


def _answer(tool: Tool, recipe: Recipe) -> tuple[list[Claim], str]:
    """Asks a tool; one that fails has said nothing, which is no reason to reject the case."""
    try:
        return tool(build(recipe)), ""
    except Exception as error:
        return [], repr(error)


def _described(draw: Draw) -> dict[str, Any]:
    return {"id": str(draw), **{name: getattr(draw, name) for name in ("framework", "family", "fault", "trap")}}


def _ruled(ruling: Ruling) -> dict[str, Any]:
    return {"layers": list(ruling.layers), "onset": ruling.onset}


def _since(started: float) -> float:
    return round(time.process_time() - started, 3)


def claims_of(run_record: dict[str, Any], tool: str) -> list[Claim]:
    """Reads the claims of a tool back from a record."""
    return [Claim(**{**claim, "layers": tuple(claim["layers"])}) for claim in run_record["claims"][tool]]
