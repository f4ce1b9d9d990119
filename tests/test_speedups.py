"""The curve of the baseline and speed-ups on it: by hand, by differences, by the first board."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from sweeps.board.folder import FOLDER
from sweeps.results import curve, rescaling
from sweeps.results.comparison import Comparison
from sweeps.results.summary import Row

LADDER = [125 * 2**i for i in range(8)]


def law(steps: float) -> float:
    return 0.03 + 0.06 * (steps / 1000) ** -0.7


CURVE = curve.fit({h: math.log(law(h)) for h in LADDER})


def row(opt: str, horizon: int, losses: list[float], trials: int = 3) -> Row:
    mean = {"probe_loss": float(np.mean(losses))}
    by_seed = dict(enumerate(losses, 1))
    return Row(opt, "t", horizon, "ok", mean, None, len(losses), trials, 0, 0, {}, by_seed=by_seed)


def ladder(opt: str, speed: float, horizons: list[int], seeds: int = 5, sd: float = 0.0, seed=0):
    """Rows of an optimizer that is exactly the baseline's law at `speed` times the steps."""
    rng = np.random.default_rng(seed)
    return [
        row(opt, h, (law(speed * h) * np.exp(sd * rng.normal(size=seeds))).tolist(), 12000 // h)
        for h in horizons
    ]


def first_board() -> Comparison:
    """The final losses of the first digits board, from its archive."""
    rows = []
    for path in sorted((FOLDER / "archive/revision1/digits").glob("*.json")):
        entry = json.loads(path.read_text())
        for rung in entry["rungs"]:
            ran = [run for run in rung["finals"] if run["status"] == "ok"]
            if len(ran) == len(rung["finals"]):
                losses = [run["points"][-1]["probe_loss"] for run in ran]
                rows.append(row(entry["study"]["optimizer"], rung["horizon"], losses, 8))
    return Comparison("adamw", rows)


def test_the_law_is_found_as_a_general_least_squares_finds_it():
    rng = np.random.default_rng(0)
    losses = [math.log(law(h)) + 0.01 * rng.normal() for h in LADDER]
    found = curve.fit(dict(zip(LADDER, losses, strict=True))).law
    expected, _ = curve_fit(
        lambda h, floor, scale, exponent: np.log(floor + scale * (h / 1000) ** -exponent),
        np.array(LADDER, float),
        losses,
        p0=(0.02, 0.05, 0.5),
    )
    assert (found.floor, found.scale, found.exponent) == pytest.approx(expected, rel=1e-4)


def test_the_first_boards_law_and_speedups_are_those_of_its_audit():
    """The audit fitted both by other code: AdamW's law is 0.0294 + 0.063 (h / 1000)^-0.69; Muon has
    1.386 [1.33, 1.44], SOAP 1.358 [1.31, 1.41], Shampoo 1.296 [1.25, 1.35]."""
    found = first_board()
    assert found.curve.law.floor == pytest.approx(0.0294, abs=5e-5)
    assert found.curve.law.scale == pytest.approx(0.063, abs=5e-5)
    assert found.curve.law.exponent == pytest.approx(0.69, abs=5e-3)
    for name, low, high in (("muon", 1.33, 1.44), ("soap", 1.31, 1.41), ("shampoo", 1.25, 1.35)):
        assert low <= found.overall(name).value <= high
    trend = found.trend("schedule_free_adamw").value  # -0.078 +- 0.047 in the audit
    assert -0.125 < trend < -0.031


@given(st.floats(math.log(90), math.log(22000)))
def test_a_curve_is_inverted_where_it_is_believed(log_steps):
    assert CURVE.log_steps(CURVE.log_loss(log_steps)) == pytest.approx(log_steps, abs=1e-6)


def test_beyond_the_curve_there_are_bounds():
    comparison = Comparison("base", [*ladder("base", 1.0, LADDER[:6]), *ladder("x", 8.0, [4000])])
    gain = comparison.overall("x")
    assert (gain.bound, gain.value, gain.interval) == (">", pytest.approx(math.sqrt(2)), None)
    slow = Comparison("base", [*ladder("base", 1.0, LADDER[:6]), *ladder("x", 0.1, [125])])
    assert slow.overall("x").bound == "<"


def test_two_rungs_make_a_straight_line():
    found = curve.fit({100: math.log(1.0), 400: math.log(0.25)})  # the loss halves with doubling
    assert found.law is None
    assert found.log_steps(math.log(0.5)) == pytest.approx(math.log(200), abs=1e-6)
    assert found.slope(math.log(150)) == pytest.approx(-1.0, abs=1e-3)
    assert curve.fit({}) is None


@pytest.mark.parametrize("speed", [0.5, 1.0, 1.37, 3.9])
def test_a_rescaled_ladder_has_exactly_its_speedup_and_no_trend(speed):
    horizons = [h for h in LADDER[:6] if speed * h > 100]
    comparison = Comparison("base", [*ladder("base", 1, LADDER), *ladder("x", speed, horizons)])
    assert comparison.overall("x").value == pytest.approx(speed, rel=1e-5)
    assert comparison.trend("x").value == pytest.approx(0.0, abs=1e-5)
    for h in horizons:
        assert comparison.speedup(comparison.by_name["x", h]).value == pytest.approx(speed, 1e-4)


def test_a_gain_that_grows_with_patience_is_a_trend():
    rows = [row("x", h, [law(h * 1.1 ** math.log2(h / 125))] * 5) for h in LADDER[:6]]
    found = Comparison("base", [*ladder("base", 1, LADDER), *rows]).trend("x")
    assert found.value == pytest.approx(0.1, abs=0.005)
    assert found.interval[0] < found.value < found.interval[1]


def test_derivatives_are_those_of_finite_differences():
    losses = np.array([math.log(law(1.3 * h)) for h in LADDER[:6]])
    horizons = np.array(LADDER[:6], float)
    base = {h: math.log(law(h)) for h in LADDER}
    shift = rescaling.over_ladder(losses, horizons, curve.fit(base))
    step = 1e-4
    for i in range(len(losses)):
        moved = losses + step * (np.arange(len(losses)) == i)
        slope = (rescaling.over_ladder(moved, horizons, curve.fit(base)).value - shift.value) / step
        assert slope == pytest.approx(shift.own[i], abs=2e-3)
    for i, h in enumerate(LADDER):
        moved = curve.fit(base | {h: base[h] + step})
        slope = (rescaling.over_ladder(losses, horizons, moved).value - shift.value) / step
        assert slope == pytest.approx(shift.baseline[i], abs=5e-3)


def test_a_rung_beyond_the_curve_does_not_delete_the_interval():
    """Rungs on the curve still say how fast the rest of the ladder is."""
    short = Comparison("base", [*ladder("base", 1, LADDER), *ladder("x", 0.4, LADDER[:6], sd=0.02)])
    assert short.speedup(short.by_name["x", 125]).bound == "<"
    gain = short.overall("x")
    assert gain.bound == "="
    assert gain.interval[0] < 0.4 < gain.interval[1]


def test_an_equal_optimizer_is_measured_at_the_shortest_rung():
    found = []
    for seed in range(40):
        rows = [*ladder("base", 1, LADDER, sd=0.02), *ladder("x", 1, [125], sd=0.02, seed=seed + 1)]
        comparison = Comparison("base", rows)
        found.append(comparison.speedup(comparison.by_name["x", 125]).bound)
    assert set(found) == {"="}


def test_more_seeds_narrow_the_interval_of_their_own_rung():
    def width(seeds: int) -> float:
        rows = [*ladder("base", 1, LADDER, sd=0.02), *ladder("x", 1, [500], seeds=seeds, sd=0.02)]
        low, high = Comparison("base", rows).overall("x").interval
        return math.log(high / low)

    assert width(12) < width(5) < width(3)


def test_an_entry_with_few_rungs_changes_nobody_elses_score():
    rows = [*ladder("base", 1, LADDER, sd=0.02), *ladder("x", 1.2, LADDER[:6], sd=0.02, seed=1)]
    alone = Comparison("base", rows)
    joined = Comparison("base", [*rows, *ladder("short", 1.3, LADDER[:3], sd=0.02, seed=2)])
    assert joined.overall("x").value == alone.overall("x").value
    assert joined.overall("short").value == pytest.approx(1.3, rel=0.1)


def test_the_board_is_ordered_by_what_it_shows():
    speeds = {"a": 1.5, "b": 1.0001, "c": 1.2, "d": 0.7}
    rows = ladder("base", 1, LADDER, sd=0.02)
    for i, (name, speed) in enumerate(speeds.items()):
        rows += ladder(name, speed, LADDER[:6], sd=0.02, seed=i + 1)
    comparison = Comparison("base", rows)
    ranks = comparison.ranks()
    values = [comparison.overall(name).value for name in ranks]
    assert list(ranks.values()) == sorted(ranks.values())
    assert values == sorted(values, reverse=True)
    assert ranks["a"] == 1 < ranks["d"]


def test_the_baseline_needs_no_interval_over_itself():
    comparison = Comparison("base", ladder("base", 1, LADDER, sd=0.02))
    assert comparison.overall("base").value == 1.0
    assert comparison.overall("base").interval is None
    assert comparison.trend("base") is None


def test_without_a_baseline_there_is_no_speedup():
    comparison = Comparison("base", ladder("x", 1, LADDER[:3]))
    assert comparison.overall("x") is None
    assert comparison.speedup(comparison.by_name["x", 125]) is None
    assert comparison.ranks() == {}


def test_a_warning_says_what_would_separate_an_entry_from_the_baseline():
    base = ladder("base", 1, LADDER, sd=0.02)
    near = Comparison("base", [*base, *ladder("x", 1.005, [500], sd=0.02, seed=3)])
    assert "do not separate it from base" in near.seeds_warning(near.by_name["x", 500])
    far = Comparison("base", [*base, *ladder("x", 2.0, [500], sd=0.02, seed=3)])
    assert far.seeds_warning(far.by_name["x", 500]) is None
    assert far.seeds_warning(far.by_name["base", 500]) is None


@given(st.floats(0.7, 1.4), st.integers(2, 8))
def test_the_seeds_that_would_separate_are_more_than_those_that_do_not(speed, seeds):
    base = [
        dataclasses.replace(one, trials=4 * one.trials)
        for one in ladder("base", 1, LADDER, seeds=5, sd=0.02)
    ]
    found = Comparison("base", [*base, *ladder("x", speed, [500], seeds=seeds, sd=0.02, seed=3)])
    warning = found.seeds_warning(found.by_name["x", 500]) or ""
    if needed := re.search(r"about (\d+) would be needed", warning):
        assert int(needed[1]) > seeds
