"""Comparing runs: which layer is which, what is new, how much larger, and whether one run is worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch import frames, plugins
from gradwatch.analyze import analyze
from gradwatch.comparison import Comparison, compare, reporter_of_comparisons
from gradwatch.comparison.compared import Compared
from gradwatch.comparison.curves import FLOW_STEPS, Loss
from gradwatch.comparison.judgement import Judgement, judge
from gradwatch.comparison.layers import LayerMatch, aligned, common_subsequence, match_layers
from gradwatch.comparison.ratios import BAD_BOTH, BAD_FIRST, BAD_OTHER, FINITE, UNKNOWN, ZERO_FIRST, ZERO_OTHER
from gradwatch.comparison.shared import FindingGroups, group_findings
from gradwatch.errors import GradwatchError
from gradwatch.examples.synthetic import SyntheticRun
from gradwatch.findings import Analysis, Finding
from gradwatch.record import Block, Site, SiteTable, StepRecord
from gradwatch.recording import Recording, from_records
from gradwatch.run import Run
from gradwatch.schedule import Schedule
from gradwatch.statistics import concatenate, measure
from gradwatch.testing import example_run

NO_MATCH = LayerMatch((), (), (), (), ())
JUDGED = Analysis((), ("spike",), {}, 100, 4, "fine")
EMPTY = Recording("empty", SiteTable(), {}, {})

Shapes = Mapping[str, tuple[int, ...]]


def synthetic(*, steps: int = 60, fault: str | None = None, every: int | None = None, layers: int = 6) -> Recording:
    run = SyntheticRun(layers=layers, steps=steps, fault=fault)
    return from_records(run.records(Schedule(every=every)), run.sites, name=f"{fault} {steps}")


def network(shapes: Shapes, kinds: Mapping[str, str] | None = None, framework: str = "one") -> Recording:
    """Returns a run without steps whose layers have one weight each (an empty shape: none), and kinds where given."""
    table = SiteTable()
    for layer, shape in shapes.items():
        if shape:
            table.add(Site("gradient", f"{layer}.weight", layer, "weight", shape, math.prod(shape)))
        if kinds and layer in kinds:
            table.add(Site("activation", layer, layer, kinds[layer]))
    table.set_order(shapes)
    return Recording("network", table, {}, {}, {"framework": framework})


def measured(values: Mapping[str, Sequence[Sequence[float]]], signal: str = "gradient") -> Recording:
    """Returns a run of one parameter a layer, from the elements of its gradient at every step."""
    table = SiteTable()
    ids = [table.add(Site(signal, f"{layer}.weight", layer, "weight", (2,), 2)) for layer in values]
    records = []
    for step in range(len(next(iter(values.values())))):
        statistics = concatenate([measure(np.array(series[step], dtype=np.float32)) for series in values.values()])
        records.append(
            StepRecord(step, blocks=(Block(signal, np.array(ids, dtype=np.uint32), statistics, "unscaled"),))
        )
    return from_records(records, table)


def finding(
    kind: str = "spike", severity: str = "warning", layers: tuple[str, ...] = ("a",), **more: object
) -> Finding:
    usual: dict[str, object] = {"title": f"{kind} in {layers}", "layer": layers[0] if layers else None}
    told = {**usual, "first_step": 3, "last_step": 9, "evidence": (), "cause": "", "advice": (), "check": "", **more}
    return Finding(kind=kind, severity=severity, layers=layers, **told)  # type: ignore[arg-type]


def of(*recordings: Recording) -> Comparison:
    return compare([(recording, analyze(recording)) for recording in recordings])


def judged(
    groups: FindingGroups, *, first: Loss | None = None, other: Loss | None = None, alone: Analysis = JUDGED
) -> Judgement:
    return judge(Compared("A", EMPTY, JUDGED, first), Compared("B", EMPTY, alone, other), groups)


def groups(
    only_first: tuple[Finding, ...] = (),
    only_other: tuple[Finding, ...] = (),
    both: tuple[tuple[Finding, Finding], ...] = (),
) -> FindingGroups:
    return FindingGroups(only_first, only_other, both)


def losses(values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> Loss:
    return Loss(np.arange(len(values)), np.array(values, dtype=np.float64))


# Which layer is which.


def test_layers_of_one_name_are_one_layer() -> None:
    """A name decides over shape and order; other shapes are told."""
    first = network({"a": (2, 2), "b": (2, 3), "c": (4,)})
    match = match_layers(first, network({"c": (4,), "a": (2, 2), "b": (9, 9)}))
    assert match.pairs == (("a", "a"), ("b", "b"), ("c", "c"))
    assert match.renamed == ()
    assert match.resized == ("b",)
    assert match.only_first == match.only_other == ()


def test_renamed_layers_are_matched_by_shape_and_order() -> None:
    """Under other names the layers of the same shapes in the same order are matched, and what is left is listed."""
    first = network({"enc.0": (8, 4), "enc.1": (8, 8), "enc.2": (8, 8), "head": (2, 8)})
    other = network({"net.0": (8, 4), "net.1": (8, 8), "net.x": (5, 5), "net.2": (8, 8), "head": (2, 8)})
    match = match_layers(first, other)
    assert match.renamed == (("enc.0", "net.0"), ("enc.1", "net.1"), ("enc.2", "net.2"))
    assert match.pairs[-1] == ("head", "head")
    assert match.only_other == ("net.x",)


def test_a_layer_is_not_renamed_past_a_layer_that_kept_its_name() -> None:
    """What was before a common layer in one run and is behind it in the other is another layer."""
    match = match_layers(network({"old": (4, 4), "mid": (3,)}), network({"mid": (3,), "new": (4, 4)}))
    assert match.pairs == (("mid", "mid"),)
    assert (match.only_first, match.only_other) == (("old",), ("new",))


def test_kinds_tell_layers_of_one_shape_apart_within_a_framework() -> None:
    """A layer of another kind is another layer, unless the frameworks name kinds in their own ways."""
    shapes: Shapes = {"x": (4, 4)}
    first = network(shapes, {"x": "Linear"})
    assert match_layers(first, network({"y": (4, 4)}, {"y": "Bilinear"})).renamed == ()
    assert match_layers(first, network({"y": (4, 4)}, {"y": "Linear"})).renamed == (("x", "y"),)
    assert match_layers(first, network({"y": (4, 4)}, {"y": "Dense"}, framework="two")).renamed == (("x", "y"),)


def test_a_dense_layer_is_itself_in_another_framework() -> None:
    """Frameworks that keep the axes of a weight in another order are matched by the sizes of the axes."""
    match = match_layers(network({"fc": (8, 4)}), network({"Dense_0": (4, 8)}, framework="two"))
    assert match.renamed == (("fc", "Dense_0"),)


def test_layers_of_which_nothing_is_known_are_matched_by_name_only() -> None:
    """Without parameters and without a kind, two layers are not taken for one."""
    table = SiteTable([Site("activation", "q", "q", "")])
    assert match_layers(Recording("x", table, {}, {}), network({"r": (), "s": (1,)})).renamed == ()


@given(st.lists(st.integers(0, 3), max_size=9), st.lists(st.integers(0, 3), max_size=9))
def test_a_common_subsequence_is_a_longest_one(first: list[int], other: list[int]) -> None:
    """It ascends in both lists, joins equals, and none of all subsequences that is longer is in the other list."""
    found = common_subsequence(first, other)
    assert all(first[i] == other[j] for i, j in found)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in combinations(found, 2))

    def within(part: tuple[int, ...]) -> bool:
        rest = iter(other)
        return all(any(value == wanted for value in rest) for wanted in part)

    assert not any(within(part) for part in combinations(first, len(found) + 1))


@given(st.permutations([f"l{i}" for i in range(7)]), st.sets(st.integers(0, 6)), st.sets(st.integers(0, 6)))
def test_rows_hold_every_layer_of_every_run_once(names: list[str], left: set[int], added: set[int]) -> None:
    """In the rows, each run's layers appear once; the first run's and each inserted one behind its neighbour."""
    first = network({f"l{i}": (i + 1,) for i in range(7)})
    kept = [name for i, name in enumerate(names) if i not in left]
    other = network({name: (int(name[1]) + 1,) for name in kept} | {f"n{i}": (90 + i,) for i in added})
    rows = aligned([first.sites.layers, other.sites.layers], [match_layers(first, other)])
    assert [row[0] for row in rows if row[0] is not None] == list(first.sites.layers)
    assert sorted(row[1] for row in rows if row[1] is not None) == sorted(other.sites.layers)
    assert all(row[0] == row[1] for row in rows if None not in row)


# What two runs share.


def test_findings_are_in_three_groups() -> None:
    """The same kind in common layers is in both; another kind, or the same elsewhere, is in one only."""
    match = replace(NO_MATCH, pairs=(("a", "a"), ("b", "b2")))
    gone, shared, moved = finding("frozen"), finding("spike", layers=("b",)), finding("underflow", layers=("a",))
    again, new = finding("spike", layers=("x", "b2")), finding("underflow", layers=("c",))
    found = group_findings(Analysis((gone, shared, moved)), Analysis((again, new)), match)
    assert found.only_first == (gone, moved)
    assert found.only_other == (new,)
    assert found.both == ((shared, again),)


def test_a_finding_of_the_whole_run_overlaps_any() -> None:
    """Without layers a finding is one of the whole run."""
    whole, placed = finding("clipping", layers=()), finding("clipping", layers=("z",))
    assert group_findings(Analysis((whole,)), Analysis((placed,)), NO_MATCH).both == ((whole, placed),)


def test_a_symptom_that_stays_when_its_cause_is_gone_is_not_new() -> None:
    """What was told under another cause counts as found in the first run, and the cause as gone."""
    match = replace(NO_MATCH, pairs=(("a", "a"),))
    symptom = finding("update-too-small")
    root = finding("vanishing", "critical", symptoms=(symptom,))
    stays = finding("update-too-small")
    found = group_findings(Analysis((root,)), Analysis((stays,)), match)
    assert (found.only_first, found.only_other, found.both) == ((root,), (), ((symptom, stays),))


def test_each_finding_is_in_exactly_one_group() -> None:
    """Two findings of one run over one of the other are both in both."""
    match = replace(NO_MATCH, pairs=(("a", "a"), ("b", "b")))
    one, two, joined = finding(layers=("a",)), finding(layers=("b",)), finding(layers=("a", "b"))
    found = group_findings(Analysis((one, two)), Analysis((joined,)), match)
    assert (found.only_first, found.only_other) == ((), ())
    assert {id(mine) for mine, _ in found.both} == {id(one), id(two)}


# Whether it is worse.


@pytest.mark.parametrize(
    ("found", "worse"),
    [
        (groups(), False),
        (groups(only_other=(finding(severity="notice"),)), False),
        (groups(only_other=(finding(severity="warning"),)), True),
        (groups(only_first=(finding(severity="critical"),)), False),
        (groups(only_first=(finding(severity="critical"),), only_other=(finding(severity="warning"),)), False),
        (groups(only_first=(finding(severity="critical"),), only_other=(finding(severity="critical"),)), True),
        (groups(only_first=(finding(severity="warning"),), only_other=(finding(severity="critical"),)), True),
        (groups(both=((finding(severity="critical"), finding(severity="critical")),)), False),
        (groups(both=((finding(severity="warning"), finding(severity="critical")),)), True),
        (groups(both=((finding(severity="critical"), finding(severity="warning")),)), False),
        (groups(both=((finding(severity="notice"), finding(severity="warning")),)), True),
    ],
)
def test_new_trouble_is_worse_unless_graver_trouble_is_gone(found: FindingGroups, worse: bool) -> None:
    """A finding of warning or above that is new, or graver than it was, makes a run worse."""
    answer = judged(found)
    assert answer.worse is worse
    assert answer.why.startswith("B is worse than A: " if worse else "B is not worse than A: ")


def test_the_reason_names_the_worst_new_finding() -> None:
    """One sentence: its title, kind, severity and first step, and how many more there are."""
    found = groups(
        only_other=(finding("spike"), finding("exploding", "critical", title="It blows up"), finding("frozen"))
    )
    expected = "it has a critical finding that A has not: It blows up (exploding, critical, since step 3), and 2 more"
    assert judged(found).why == f"B is worse than A: {expected}."


def test_a_loss_that_breaks_is_worse() -> None:
    """NaN in the later run alone; not where the first run has it too, or logged no loss."""
    fine, broken = losses([1.0] * 20), replace(losses([1.0] * 10), nonfinite=(10, 11))
    assert judged(groups(), first=fine, other=broken).worse is True
    assert "not finite at step 10" in judged(groups(), first=fine, other=broken).why
    assert judged(groups(), first=broken, other=broken).worse is False
    assert judged(groups(), first=broken, other=fine).worse is False
    assert judged(groups(), other=broken).worse is False


@pytest.mark.parametrize(
    ("ends", "worse"), [(0.5, False), (1.0, False), (1.09, False), (1.11, True), (1.9, True), (9.0, True)]
)
def test_a_loss_that_gives_up_a_tenth_of_the_gain_is_worse(ends: float, worse: bool) -> None:
    """From 2 to 1 the gain is 1: ending at more than 1.1 is worse, and at which step is said."""
    first, other = losses([2.0] * 50 + [1.0] * 50), losses([2.0] * 50 + [ends] * 50)
    answer = judged(groups(), first=first, other=other)
    assert answer.worse is worse
    assert ("up to step 99" in answer.why) is worse


def test_the_scale_of_a_loss_is_its_gain() -> None:
    """A loss below zero, or near it, is judged by what was gained, not by its own size."""
    first = losses([2.0] * 50 + [-5.0] * 50)
    assert judged(groups(), first=first, other=losses([2.0] * 50 + [-4.9] * 50)).worse is False
    assert judged(groups(), first=first, other=losses([2.0] * 50 + [-4.0] * 50)).worse is True
    near = losses([2.0] * 50 + [1e-9] * 50)
    assert judged(groups(), first=near, other=losses([2.0] * 50 + [1e-3] * 50)).worse is False


def test_only_common_steps_of_the_losses_count() -> None:
    """A run that trained for longer is held against the shorter one where both were."""
    short, long = losses(np.linspace(2, 1, 60)), losses(np.linspace(2, 0, 120))
    assert judged(groups(), first=long, other=short).worse is False
    assert judged(groups(), first=losses([2.0] * 9), other=losses([9.0] * 9)).worse is False


@given(st.integers(0, 2**32 - 1))
def test_noise_alone_is_not_worse(seed: int) -> None:
    """Two draws of one noisy loss that gains little: 3 standard errors keep chance out, here in 99 of 100 draws."""
    random = np.random.default_rng(seed)
    runs = [[losses(1 - 1e-3 * np.arange(200) + random.normal(0, 1, 200)) for _ in range(2)] for _ in range(100)]
    worse = sum(judged(groups(), first=first, other=other).worse is True for first, other in runs)
    assert worse <= 8


@pytest.mark.parametrize("steps", [0, 3])
def test_what_cannot_be_judged_cannot_be_compared(steps: int) -> None:
    """Too few steps in either run: neither worse nor not, and the sentence says which run and why."""
    alone = Analysis(steps=steps)
    answer = judged(groups(), alone=alone)
    assert answer.worse is None
    assert answer.why.startswith("Cannot tell whether B is worse than A: B cannot be judged, ")


# Ratios, flow, loss, facts.


def oracle(recording: Recording, signal: str, layer: str, step: int) -> float:
    """Returns a layer's norm from the data frame, one number at a time; infinity where something is not finite."""
    table = frames.frame(recording, signal)
    rows = table[(table["layer"] == layer) & (table["step"] == step)]
    if signal != "gradient":
        rows = rows[rows["parameter"].str.endswith("weight")]
    if rows[["nan", "inf"]].to_numpy().sum() > 0:
        return math.inf
    squares = [value**2 for value in rows["l2"] if not math.isnan(value)]
    return math.sqrt(math.fsum(squares)) if squares else math.nan


@pytest.mark.parametrize("fault", ["vanishing", "exploding", "nonfinite", "disconnected"])
def test_ratios_are_those_of_the_data_frames(fault: str) -> None:
    """Every cell equals a second computation over the frames: log10 of the norms, or what kept it from being one."""
    first, other = synthetic(steps=48), synthetic(steps=60, fault=fault)
    for ratio in of(first, other).pairs[0].ratios:
        assert (ratio.first == ratio.last).all()
        for column in (0, 3, 5):
            layer = ratio.layers[column][0]
            for row in range(0, len(ratio.first), 7):
                step = int(ratio.first[row])
                below, above = (norm(run, ratio.key, layer, step) for run in (first, other))
                value, state = ratio.values[row, column], ratio.state[row, column]
                if math.isnan(below) or math.isnan(above):
                    assert state == UNKNOWN
                elif math.isinf(above):
                    assert state == BAD_OTHER
                else:
                    assert state == FINITE
                    assert value == pytest.approx(math.log10(above / below), abs=1e-5)


def norm(recording: Recording, key: str, layer: str, step: int) -> float:
    if key == "gradient":
        return oracle(recording, "gradient", layer, step)
    parts = [oracle(recording, signal, layer, step) for signal in ("update", "weight")]
    return math.inf if math.inf in parts else parts[0] / parts[1]


def test_the_state_of_a_cell_says_in_which_run_a_number_fails() -> None:
    """Zero and non-finite are told apart from a ratio, and in which run they are; two zeros are equal."""
    bad, zero, one = [math.nan, 1.0], [0.0, 0.0], [3.0, 4.0]
    first = measured({"l": [one, zero, one, bad, one, bad, zero]})
    other = measured({"l": [[30.0, 40.0], one, zero, one, bad, bad, zero]})
    (ratio,) = of(first, other).pairs[0].ratios
    assert ratio.state[:, 0].tolist() == [FINITE, ZERO_FIRST, ZERO_OTHER, BAD_FIRST, BAD_OTHER, BAD_BOTH, FINITE]
    assert ratio.values[[0, 6], 0].tolist() == pytest.approx([1.0, 0.0])
    assert np.isnan(ratio.values[1:6, 0]).all()


def test_no_spike_and_no_nan_is_lost_between_many_steps() -> None:
    """Of 3,000 steps in 256 buckets, one spike and one NaN each show in the bucket of their step."""
    calm = [[1.0, 0.0]] * 3000
    sick = [*calm[:1234], [1000.0, 0.0], *calm[1235:2000], [math.nan, 1.0], *calm[2001:]]
    (ratio,) = of(measured({"l": calm}), measured({"l": sick})).pairs[0].ratios
    assert len(ratio.first) == 256
    holds = [(ratio.first <= step) & (step <= ratio.last) for step in (1234, 2000)]
    assert [int(mask.sum()) for mask in holds] == [1, 1]
    assert ratio.values[holds[0], 0] == pytest.approx(3.0)
    assert ratio.state[holds[1], 0] == BAD_OTHER
    assert (ratio.values[~holds[0] & ~holds[1], 0] == 0).all()


def test_runs_of_other_cadences_meet_at_common_steps() -> None:
    """Every 4th and every 6th step have every 12th in common."""
    comparison = of(synthetic(every=4), synthetic(every=6))
    assert comparison.pairs[0].ratios[0].first.tolist() == [0, 12, 24, 36, 48]
    assert comparison.flow is not None
    assert comparison.flow.steps.tolist() == [0, 12, 24, 36, 48]


def test_the_flow_is_the_median_of_each_layers_parameters() -> None:
    """At every shown step the curve of each run is that of a slow second computation over its data frame."""
    recordings = [synthetic(steps=200), synthetic(steps=150, fault="vanishing"), synthetic(steps=180, layers=3)]
    flow = of(*recordings).flow
    assert flow is not None
    assert len(flow.steps) == FLOW_STEPS
    assert flow.steps[[0, -1]].tolist() == [0, 149]
    for run, recording in enumerate(recordings):
        table = frames.frame(recording, "gradient")
        for place, row in enumerate(flow.rows):
            for c in (0, 31, 63):
                rows = table[(table["layer"] == row[run]) & (table["step"] == flow.steps[c])]
                rms = sorted(rows["l2"] / np.sqrt(rows["numel"]))
                value = flow.values[run, c, place]
                assert math.isnan(value) if row[run] is None else value == pytest.approx(rms[0], rel=1e-5)


def test_the_loss_of_a_run_is_what_it_logged() -> None:
    """Finite values by step, and the steps at which it was not finite."""
    run = of(synthetic(), synthetic(fault="nonfinite")).runs[1]
    assert run.loss is not None
    assert run.loss.values.tolist() == pytest.approx([2.3 / (1 + step / 50) for step in range(30)])
    assert run.loss.nonfinite == tuple(range(30, 60))


def test_only_facts_that_differ_are_listed() -> None:
    """Sizes and manifest facts, nested ones by their path; a fact that one run lacks is not given."""
    first = replace(synthetic(), facts={"framework": "x", "schedule": {"every": 1}, "seed": 3})
    other = replace(synthetic(), facts={"framework": "x", "schedule": {"every": 2}})
    assert dict(of(first, other).facts) == {"schedule every": ("1", "2"), "seed": ("3", "not given")}


# The whole.


def test_a_healthy_run_is_not_worse_than_itself_and_a_sick_one_is() -> None:
    """A run against itself is equal everywhere; against a vanishing one the finding is new, and the other way gone."""
    well, sick = synthetic(steps=120, layers=12), synthetic(steps=120, layers=12, fault="vanishing")
    same = of(well, well)
    assert same.worse is False
    assert all((ratio.values[ratio.state == FINITE] == 0).all() for ratio in same.pairs[0].ratios)
    assert same.facts == ()
    worse = of(well, sick)
    assert (worse.worse, worse.verdict) == (True, "B is worse than A.")
    assert [f.kind for f in worse.pairs[0].findings.only_other] == ["vanishing"]
    better = of(sick, well)
    assert better.worse is False
    assert [f.kind for f in better.pairs[0].findings.only_first] == ["vanishing"]


def test_any_later_run_can_be_worse() -> None:
    """Of several runs one that is worse decides; one that cannot be judged only when none is."""
    well, sick, short = synthetic(layers=12), synthetic(layers=12, fault="vanishing"), synthetic(steps=2, layers=12)
    three = of(well, well, sick, short)
    assert three.worse is True
    assert three.verdict == "C is worse than A; B is not worse than A; D cannot be compared with A."
    assert three.why.startswith("C is worse than A: ")
    assert of(well, well, short).worse is None
    assert of(well, well, well).verdict == "B and C are not worse than A."


DEGENERATE = {
    "no step": synthetic(steps=0),
    "one step": synthetic(steps=1),
    "nothing": EMPTY,
    "no common layer": network({"somewhere.else": (3, 5)}),
    "all NaN": measured({"l": [[math.nan, math.nan]] * 30}),
    "all zero": measured({"l": [[0.0, 0.0]] * 30}),
    "one layer": synthetic(layers=1),
    "activations only": measured({"l": [[1.0, 2.0]] * 30}, "activation"),
}


@pytest.mark.parametrize("first", DEGENERATE)
@pytest.mark.parametrize("other", [*DEGENERATE, "healthy"])
def test_degenerate_runs_are_compared(first: str, other: str) -> None:
    """Whatever the runs lack, there is an answer in one sentence, and every reporter that can renders it."""
    comparison = of(DEGENERATE[first], DEGENERATE.get(other, synthetic()))
    assert comparison.worse in (True, False, None)
    assert comparison.why.endswith(".")
    assert comparison.why in " ".join(reporter_of_comparisons("text").render_comparison(comparison).split())


def test_a_run_compares_itself_and_writes_the_page(tmp_path: Path) -> None:
    """``run.compare`` answers, takes several runs, and its report is a file where it is asked for."""
    first = example_run(tmp_path / "first", layers=4, steps=40)
    other = example_run(tmp_path / "other", layers=4, steps=40, fault="exploding")
    comparison = first.compare(other)
    assert comparison.worse is True
    assert repr(comparison) == "Comparison(first, other: B is worse than A.)"
    assert [run.recording.name for run in comparison.runs] == ["first", "other"]
    assert len(first.compare(other, first).pairs) == 2
    page = comparison.report(tmp_path / "deep" / "page.html")
    assert "<html" in page.read_text(encoding="utf-8")
    assert comparison.report(tmp_path / "page.txt", reporter="text").read_text(encoding="utf-8").startswith("gradwatch")


def test_what_cannot_be_compared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other run, too many, a reporter that renders none, a place that cannot be written: one sentence each."""
    run = Run(tmp_path, EMPTY)
    with pytest.raises(GradwatchError, match=r"^1 run given; a comparison takes 2 to 8\.$"):
        run.compare()
    with pytest.raises(GradwatchError, match="9 runs given"):
        run.compare(*[run] * 8)
    with pytest.raises(GradwatchError, match="cannot write the comparison to"):
        run.compare(run).report(tmp_path)
    monkeypatch.setattr(plugins, "reporter", lambda *_, **__: object())
    with pytest.raises(GradwatchError, match="'mine' renders no comparisons"):
        run.compare(run).report(tmp_path / "x", reporter="mine")
