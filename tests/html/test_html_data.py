"""The data of the page against slow, obvious second computations."""

from __future__ import annotations

import base64
import gzip
import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.record import ABSENT
from gradwatch.recording import Recording
from gradwatch_html.buckets import bucket, joins
from gradwatch_html.encode import NON_FINITE_CODE, ZERO_CODE, encode, json_island, pack_codes
from gradwatch_html.flow import flow, slopes
from gradwatch_html.histograms import encode_shares, histogram_pack
from gradwatch_html.metrics import FINITE, NO_GRADIENT, NON_FINITE, NOTHING, Matrix, matrices
from gradwatch_html.script_data import start_of_rows, stretches
from gradwatch_html.series import series_pack
from tests.html.building import dense, synthetic


def built(recording: Recording) -> dict[str, Matrix]:
    depth = {name: i for i, name in enumerate(recording.sites.layers)}
    return {matrix.metric.key: matrix for matrix in matrices(recording, depth)}


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=200), st.integers(1, 50))
def test_buckets_lose_no_spike(values: list[float], columns: int) -> None:
    """The maximum and minimum of every bucket are those of its captured steps, and every step is in one bucket."""
    array, steps = np.array(values)[:, None], np.arange(len(values), dtype=np.int64) * 3
    buckets = bucket(steps, columns)
    assert len(buckets) == min(columns, len(values))
    covered: list[int] = []
    for i, start in enumerate(buckets.starts.tolist()):
        end = buckets.starts.tolist()[i + 1] if i + 1 < len(buckets) else len(values)
        assert buckets.maximum(array)[i, 0] == max(values[start:end])
        assert buckets.minimum(array)[i, 0] == min(values[start:end])
        assert (buckets.first[i], buckets.last[i]) == (steps[start], steps[end - 1])
        covered.extend(range(start, end))
    assert covered == list(range(len(values)))


def test_a_bucket_of_nulls_is_null_and_other_nulls_are_ignored() -> None:
    """Null never hides a value of its bucket, and never becomes one."""
    values = np.array([np.nan, 1.0, np.nan, np.nan, 5.0, 3.0])[:, None]
    buckets = bucket(np.arange(6, dtype=np.int64), 3)
    np.testing.assert_array_equal(buckets.maximum(values)[:, 0], [1, np.nan, 5])
    np.testing.assert_array_equal(buckets.mean(values)[:, 0], [1, np.nan, 4])


def test_steps_around_a_kept_one_have_buckets_of_their_own() -> None:
    """Full resolution is kept around the steps at which findings begin."""
    buckets = bucket(np.arange(10_000, dtype=np.int64), 100, keep=[5_000], around=64)
    alone = buckets.first[buckets.first == buckets.last]
    assert set(range(4_936, 5_065)) <= set(alone.tolist())
    assert len(buckets) < 240


def test_only_samples_without_a_hole_between_them_are_joined() -> None:
    """Steps 0 to 3 follow one another; 32 and 64 stand apart."""
    steps = np.array([0, 1, 2, 3, 32, 64])
    assert joins(steps, steps).tolist() == [False, True, True, True, False, False]
    every_tenth = np.arange(0, 50, 10)
    assert joins(every_tenth, every_tenth).tolist() == [False, True, True, True, True]


@pytest.mark.parametrize("fault", [None, "nonfinite", "disconnected"])
def test_the_gradient_metric_is_the_largest_rms_of_a_layers_parameters(fault: str | None) -> None:
    """Every cell equals a loop over the step records."""
    recording = synthetic(5, 60, fault)
    matrix = built(recording)["gradient"]
    for row, record in enumerate(recording.records(0)):
        expected: dict[str, float] = {}
        states: dict[str, int] = {}
        for block in record.blocks:
            if block.signal != "gradient":
                continue
            for i, site in enumerate(block.sites.tolist()):
                layer, count = recording.sites[site].layer, block.statistics
                bad = int(count.nan[i] + count.inf[i])
                finite = int(count.n[i]) - bad
                if finite:
                    rms = float(count.l2[i]) / math.sqrt(finite)
                    expected[layer] = max(rms, expected.get(layer, 0.0))
                state = NO_GRADIENT if block.stage == ABSENT else NON_FINITE if bad else FINITE
                states[layer] = max(state, states.get(layer, NOTHING))
        for column, index in enumerate(matrix.layers.tolist()):
            layer = recording.sites.layers[index]
            assert matrix.state[row, column] == states[layer]
            np.testing.assert_allclose(matrix.values[row, column], expected.get(layer, math.nan), rtol=1e-12)


def test_the_ratio_is_the_updates_norm_over_the_weights() -> None:
    """Update / weight is taken where both were captured, of the matrices alone."""
    recording = synthetic(3, 80)
    matrix = built(recording)["ratio"]
    update, weight = recording.panels["update", 0], recording.panels["weight", 0]
    np.testing.assert_array_equal(matrix.steps, update.steps)
    for column, index in enumerate(matrix.layers.tolist()):
        name = f"{recording.sites.layers[index]}.weight"
        u = [recording.sites[int(site)].name for site in update.sites].index(name)
        w = [recording.sites[int(site)].name for site in weight.sites].index(name)
        np.testing.assert_allclose(matrix.values[:, column], update.l2[:, u] / weight.l2[:, w], rtol=1e-12)


def test_layers_of_several_optimizers_share_one_matrix() -> None:
    """Each layer keeps the values of its own optimizer."""
    names = ["a.0", "b.0", "a.1"]
    recording = dense(names, 12, optimizers={"a.0": 0, "b.0": 1, "a.1": 0})
    matrix = built(recording)["gradient"]
    assert matrix.values.shape == (12, 3)
    panel = recording.panels["gradient", 1]
    column = matrix.layers.tolist().index(recording.sites.layers.index("b.0"))
    np.testing.assert_array_equal(matrix.values[:, column], panel.rms()[:, 0])


values_of_cells = st.one_of(st.just(0.0), st.floats(1e-18, 1e3), st.just(math.nan))


@given(st.lists(values_of_cells, min_size=1, max_size=60))
def test_a_code_stands_for_its_value_within_half_a_level(values: list[float]) -> None:
    """Decoding gives each value to half a level, and zero and null are exact."""
    array = np.array(values)[:, None]
    state = np.where(np.isnan(array), NOTHING, FINITE).astype(np.uint8)
    encoded = encode(array, state, share=False)
    assert encoded.clipped == 0
    for value, code in zip(values, encoded.codes[:, 0].tolist(), strict=True):
        if math.isnan(value) or value == 0:
            assert code == (0 if math.isnan(value) else ZERO_CODE)
        else:
            decoded = encoded.low + (code - 3) * encoded.step
            assert abs(decoded - math.log10(value)) <= encoded.step / 2 + 1e-5


def test_values_far_below_the_rest_are_clipped_and_counted() -> None:
    """A span beyond 25 decades keeps its upper end; what lies below is counted."""
    values = np.array([[1e-60], [1e-3], [1.0], [math.nan]])
    state = np.array([[FINITE], [FINITE], [FINITE], [NON_FINITE]], dtype=np.uint8)
    encoded = encode(values, state, share=False)
    assert encoded.clipped == 1
    assert encoded.codes[0, 0] == 3
    assert encoded.codes[3, 0] == NON_FINITE_CODE


def test_a_single_element_of_a_million_shows_as_a_share() -> None:
    """Shares are rounded up, so that none above zero looks like zero."""
    encoded = encode(np.array([[0.0, 1e-6, 1.0]]), np.full((1, 3), FINITE, dtype=np.uint8), share=True)
    assert encoded.codes.tolist() == [[ZERO_CODE, 4, 254]]


@given(st.integers(1, 12), st.integers(1, 12))
def test_packed_codes_can_be_unpacked(rows: int, columns: int) -> None:
    """Undoing base64, gzip and the differences over time gives the codes back."""
    codes = np.random.default_rng(rows * 13 + columns).integers(0, 256, (rows, columns)).astype(np.uint8)
    data = np.frombuffer(gzip.decompress(base64.b64decode(pack_codes(codes))), dtype=np.uint8)
    undone = np.cumsum(data.reshape(columns, rows), axis=1, dtype=np.uint8).T
    np.testing.assert_array_equal(undone, codes)


@given(st.text(), st.text(alphabet="<>&/script \u2028\u2029\"'"))
def test_json_is_safe_inside_a_script_element(one: str, other: str) -> None:
    """No character that could end the element stays, and the data are unchanged."""
    text = json_island({"a": one, "b": [other]})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": one, "b": [other]}


def test_series_are_the_captured_values_to_the_last_bit() -> None:
    """A short run's layer pages carry every value as float32."""
    recording = synthetic(4, 50)
    pack = series_pack(recording, range(len(recording.sites.layers)), keep=[])
    blob = np.frombuffer(pack.blob, dtype="<f4")
    panel = recording.panels["gradient", 0]
    names = [recording.sites[int(site)].name for site in panel.sites]
    checked = 0
    for lines in pack.lines.values():
        for line in (line for line in lines if line["chart"] == "gradient"):
            time = pack.times[line["time"]]
            assert time["first"] == panel.steps.tolist()
            values = blob[line["at"] : line["at"] + len(panel.steps)]
            np.testing.assert_array_equal(values, panel.rms()[:, names.index(line["site"])].astype(np.float32))
            checked += 1
    assert checked == 8


def test_a_long_series_carries_mean_and_range_of_its_buckets() -> None:
    """Beyond 1024 captured steps a line has three curves, and the range holds every value."""
    recording = dense(["a", "b"], 1500)
    pack = series_pack(recording, [0, 1], keep=[700])
    blob = np.frombuffer(pack.blob, dtype="<f4")
    line = next(line for line in pack.lines[0] if line["chart"] == "gradient")
    time = pack.times[line["time"]]
    n = len(time["first"])
    mean, low, high = (blob[line["at"] + k * n : line["at"] + (k + 1) * n] for k in range(3))
    values = recording.panels["gradient", 0].rms()[:, 0].astype(np.float32)
    assert line["band"]
    for i in range(n):
        inside = values[time["first"][i] : time["last"][i] + 1]
        assert (low[i], high[i]) == (inside.min(), inside.max())
        np.testing.assert_allclose(mean[i], inside.mean(), rtol=1e-5)
    assert any(time["first"][i] == time["last"][i] == 700 for i in range(n))


def test_histograms_are_the_layers_counts_as_shares() -> None:
    """A layer's histogram sums its parameters and keeps every share to an eighth of an octave."""
    recording = synthetic(3, 20)
    depth = {name: i for i, name in enumerate(recording.sites.layers)}
    pack = histogram_pack(recording, depth)
    panel = recording.panels["gradient", 0]
    at = [i for i, site in enumerate(panel.sites) if recording.sites[int(site)].layer == recording.sites.layers[0]]
    counts = panel.histogram[:, at].sum(axis=1)
    where = pack.layers[0]
    codes = np.frombuffer(pack.blob, dtype=np.uint8)[where["at"] :][: len(counts) * where["bins"]]
    codes = codes.reshape(len(counts), where["bins"])
    for row in range(len(counts)):
        for b in range(64):
            inside = where["low"] <= b < where["low"] + where["bins"]
            code = int(codes[row, b - where["low"]]) if inside else 0
            assert (code == 0) == (counts[row, b] == 0)
            if code:
                assert abs((code - 255) / 4 - math.log2(counts[row, b] / counts[row].sum())) <= 0.125 + 1e-9


def test_an_empty_histogram_bin_is_blank() -> None:
    """No element is never drawn as a few."""
    assert encode_shares(np.array([[0, 1, 10**12], [0, 0, 0]])).tolist()[0][0] == 0
    assert encode_shares(np.array([[0, 0, 0]])).tolist() == [[0, 0, 0]]


def test_flow_is_the_median_of_each_layers_parameters() -> None:
    """The curve of a layer is the geometric median of its parameters' rms, between the smallest and the largest."""
    recording = synthetic(6, 40, "vanishing")
    depth = {name: i for i, name in enumerate(recording.sites.layers)}
    curves = flow(recording, depth, keep=[])
    assert curves is not None
    panel = recording.panels["gradient", 0]
    for column, step in enumerate(curves.steps.tolist()):
        row = panel.steps.tolist().index(step)
        for group, (first, last) in enumerate(curves.groups.tolist()):
            assert first == last
            name = recording.sites.layers[first]
            of_layer = [i for i, site in enumerate(panel.sites) if recording.sites[int(site)].layer == name]
            values = [float(panel.rms()[row, i]) for i in of_layer]
            expected = 10 ** statistics.median(math.log10(v) for v in values)
            np.testing.assert_allclose(curves.median[column, group], expected, rtol=1e-9)
            assert (curves.low[column, group], curves.high[column, group]) == (min(values), max(values))


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (
            [f"block.{i}.{part}" for i in range(20) for part in "abc"],
            [f"block.{i}.{p}" for i in range(20) for p in "abc"],
        ),
        (
            ["stem", *(f"block.{i}.{part}" for i in range(20) for part in "abc")],
            ["stem", *(f"block.{i}" for i in range(20))],
        ),
        ([f"layer{i}" for i in range(300)], [f"layer{i} … layer{i + 1}" for i in range(0, 120, 2)]),
    ],
    ids=["few layers", "modules", "neither"],
)
def test_flow_of_many_layers_goes_by_module(names: list[str], groups: list[str]) -> None:
    """Up to 60 layers each is a point; of more a module is, and without modules neighbours of equal number."""
    recording = dense(names, 3)
    curves = flow(recording, {name: i for i, name in enumerate(recording.sites.layers)}, keep=[])
    assert curves is not None
    assert list(curves.names[: len(groups)]) == groups
    panel = recording.panels["gradient", 0]
    owner = [names.index(recording.sites[int(site)].layer) for site in panel.sites]
    for group, (first, last) in enumerate(curves.groups.tolist()):
        inside = [value for value, layer in zip(panel.rms()[0], owner, strict=True) if first <= layer <= last]
        assert (curves.low[0, group], curves.high[0, group]) == (min(inside), max(inside))
    assert curves.groups[1:, 0].tolist() == (curves.groups[:-1, 1] + 1).tolist()


def test_the_slope_is_the_decades_a_layer() -> None:
    """A network whose gradients shrink tenfold a layer towards the input has the slope 1."""
    recording = dense([f"block.{i}" for i in range(8)], 12, scale=lambda _signal, layer, _step: 10.0 ** (layer - 8))
    curves = flow(recording, {name: i for i, name in enumerate(recording.sites.layers)}, keep=[])
    assert curves is not None
    assert all(slope is not None and abs(slope - 1) < 0.05 for slope in slopes(curves))


def test_a_nonfinite_parameter_has_no_finite_flow() -> None:
    """A layer with NaN is infinite in the flow, not small."""
    recording = dense(["a", "b", "c", "d"], 12, bad_from=6)
    curves = flow(recording, {name: i for i, name in enumerate(recording.sites.layers)}, keep=[])
    assert curves is not None
    late = curves.median[curves.steps >= 6]
    assert np.isinf(late[:, 2:]).all()
    assert np.isfinite(late[:, :2]).all()


@settings(max_examples=50)
@given(st.lists(st.one_of(st.floats(1e-12, 1e3), st.just(math.nan), st.just(0.0)), min_size=1, max_size=120))
def test_a_layers_own_start_is_the_median_of_its_early_values(values: list[float]) -> None:
    """The baseline takes 8 to 18 % of the positive values, three at least."""
    recording = dense(["a"], 12)
    matrix = built(recording)["gradient"]
    series = np.array(values)[:, None]
    steps = np.arange(len(values))
    shaped = Matrix(matrix.metric, matrix.layers, steps, steps, series, np.full(series.shape, FINITE))
    positive = [v for v in values if v > 0]
    if not positive:
        assert np.isnan(start_of_rows(shaped)[0])
        return
    low, high = int(len(positive) * 0.08), int(len(positive) * 0.18)
    expected = statistics.median(math.log10(v) for v in positive[low : max(high, low + 3)])
    assert abs(start_of_rows(shaped)[0] - expected) < 1e-9


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.lists(st.booleans(), min_size=30, max_size=30))
def test_a_stretch_ends_only_at_a_healthy_layer_with_parameters(hit: list[bool], owns: list[bool]) -> None:
    """Outlines hold every affected row and no healthy layer that has parameters."""
    names = [f"n{i}" for i in range(len(hit))]
    matrix = built(dense(names, 1))["gradient"]
    affected = {i for i, flag in enumerate(hit) if flag}
    owners = {i for i in range(len(hit)) if owns[i]} | affected
    found = stretches(matrix, affected, owners)
    rows = {row for first, last in found for row in range(first, last + 1)}
    if len(found) < 12:
        assert affected <= rows
    assert not rows & (owners - affected)
