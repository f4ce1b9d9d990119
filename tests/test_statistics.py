"""Against cases worked by hand, and simulations with a known truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.results import statistics
from sweeps.results.statistics import Speedup, speedup

# A baseline that halves its loss with each doubling: loss = 100 / horizon.
BASELINE = {h: 100 / h for h in (250, 500, 1000, 2000)}


@pytest.mark.parametrize(
    ("loss", "horizon", "expected"),
    [
        (100 / 500, 250, Speedup(2.0)),
        (100 / 500, 500, Speedup(1.0)),
        (100 / 500, 1000, Speedup(0.5)),
        (100 / 250, 250, Speedup(1.0)),
        (100 / 2000, 1000, Speedup(2.0)),
        (100 / 2001, 1000, Speedup(2.0, ">")),
        (100 / 249, 1000, Speedup(0.25, "<")),
    ],
)
def test_speedups_by_hand(loss, horizon, expected):
    found = speedup(loss, horizon, BASELINE)
    assert found.bound == expected.bound
    assert found.value == pytest.approx(expected.value)


@given(loss=st.floats(100 / 2000, 100 / 250), horizon=st.integers(1, 4000))
def test_a_power_law_is_interpolated_exactly(loss, horizon):
    assert speedup(loss, horizon, BASELINE).value == pytest.approx(100 / loss / horizon, rel=1e-6)


@given(a=st.floats(0.01, 1.0), b=st.floats(0.01, 1.0), seed=st.integers(0, 100))
def test_a_lower_loss_is_never_slower_even_on_a_bumpy_baseline(a, b, seed):
    bumpy = dict(
        zip((250, 500, 1000, 2000), np.random.default_rng(seed).uniform(0.02, 0.9, 4), strict=True)
    )
    low, high = sorted((a, b))
    assert speedup(low, 500, bumpy).value >= speedup(high, 500, bumpy).value - 1e-12


def test_without_a_baseline_or_a_loss_there_is_no_speedup():
    assert speedup(0.1, 250, {}) is None
    assert speedup(float("nan"), 250, BASELINE) is None


@pytest.fixture(scope="module")
def simulated():
    """400 boards of five seeds: a baseline of loss 100 / horizon, an candidate 1.4 times as fast, noise that both share and noise of their own."""
    boards = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        shared = rng.normal(0, 0.03, 5)
        curves = {
            k: {
                h: 100 / h * np.exp(shared[k] + rng.normal(0, 0.02)) for h in (250, 500, 1000, 2000)
            }
            for k in range(5)
        }
        losses = {
            h: {k: 100 / (h * 1.4) * np.exp(shared[k] + rng.normal(0, 0.02)) for k in range(5)}
            for h in (250, 500, 1000)
        }
        boards.append((curves, losses))
    return boards


def test_the_paired_interval_covers_the_truth_95_times_in_100(simulated):
    found = [statistics.paired_interval(losses[500], 500, curves) for curves, losses in simulated]
    assert 0.92 <= np.mean([low <= 1.4 <= high for low, high in found]) <= 0.98


def test_so_does_the_interval_of_the_geometric_mean(simulated):
    hits = []
    for curves, losses in simulated:
        gains = [Speedup(1.0)] * 2  # their values do not matter to the interval
        low, high = statistics.geometric_mean(
            gains, [statistics.paired_logs(losses[h], h, curves) for h in (500, 1000)]
        ).interval
        hits.append(low <= 1.4 <= high)
    assert 0.92 <= np.mean(hits) <= 0.98


def test_there_is_no_interval_without_three_seeds_or_beyond_the_ladder():
    curves = dict.fromkeys(range(5), BASELINE)
    assert statistics.paired_interval({0: 0.15, 1: 0.14}, 500, curves) is None
    assert statistics.paired_interval({0: 0.15, 1: 0.14, 2: 0.01}, 500, curves) is None
    low, high = statistics.paired_interval({0: 0.1, 1: 0.1, 2: 0.1}, 500, curves)
    assert (low, high) == (pytest.approx(2.0), pytest.approx(2.0))


def test_geometric_means_by_hand():
    assert statistics.geometric_mean([Speedup(2.0), Speedup(0.5), Speedup(8.0)]) == Speedup(
        pytest.approx(2.0)
    )
    assert statistics.geometric_mean([Speedup(2.0), Speedup(8.0, ">")]) == Speedup(
        pytest.approx(4.0), ">"
    )
    assert statistics.geometric_mean([Speedup(2.0, "<"), Speedup(8.0, ">")]) is None
    assert statistics.geometric_mean([]) is None
    some_seeds_missing = [{1: 0.1, 2: 0.1, 3: 0.1}, {1: 0.1, 2: 0.1}]
    assert (
        statistics.geometric_mean([Speedup(2.0), Speedup(2.0)], some_seeds_missing).interval is None
    )


def at(value, spread=0.0):
    """Log losses of five seeds about a value."""
    return {seed: value + spread * offset for seed, offset in enumerate((-2, -1, 0, 1, 2))}


def test_ties_share_a_rank_and_the_next_is_counted_past_them():
    sharp = [at(0.0), at(1.0), at(2.0)]
    assert statistics.tie_groups(sharp) == [1, 2, 3]
    wide = {
        seed: 0.01 + noise for seed, noise in enumerate((0.3, -0.3, 0.2, -0.2, 0.0))
    }  # its noise is its own
    assert statistics.tie_groups([at(0.0), wide, at(1.0)]) == [1, 1, 3]
    assert statistics.tie_groups([at(0.0, 0.5), at(0.1, 0.5)]) == [
        1,
        2,
    ]  # noise that both share tells nothing apart
    assert statistics.tie_groups([at(0.0), {7: 1.0, 8: 1.0}]) == [
        1,
        1,
    ]  # no seeds in common: cannot be told apart
    assert statistics.tie_groups([]) == []


def test_equal_entries_tie_19_times_in_20():
    rng = np.random.default_rng(0)
    tied = [
        statistics.tie_groups([dict(enumerate(rng.normal(0, 1, 5))) for _ in range(2)]) == [1, 1]
        for _ in range(2000)
    ]
    assert 0.93 <= np.mean(tied) <= 0.97


@given(st.lists(st.floats(0.01, 10.0), min_size=1, max_size=7))
def test_best_after_k_is_the_mean_over_all_choices_of_k(losses):
    for k, found in enumerate(statistics.best_after(losses), 1):
        assert found == pytest.approx(
            np.mean([min(chosen) for chosen in itertools.combinations(losses, k)])
        )


def test_best_after_k_with_divergences():
    assert statistics.best_after([0.2, math.inf]) == [math.inf, 0.2]
    assert statistics.best_after([0.1, 0.3, math.inf]) == [
        math.inf,
        pytest.approx((0.1 + 0.1 + 0.3) / 3),
        0.1,
    ]
    assert statistics.best_after([]) == []


def test_sensitivity_by_hand():
    found = statistics.sensitivity([1.0, 1.1, 1.2, 2.0])
    assert (found.within, found.typical) == (0.5, pytest.approx(1.15))
    assert statistics.sensitivity([1.0, math.inf, math.inf, math.inf]).typical == math.inf
    assert statistics.sensitivity([math.inf] * 8) is None
    assert statistics.sensitivity([1.0] * 3) is None


@pytest.mark.parametrize(("effect", "spread"), [(0.05, 0.05), (0.1, 0.05), (-0.03, 0.05)])
def test_the_required_seeds_reach_their_power(effect, spread):
    n = statistics.required_seeds(effect, spread)
    rng = np.random.default_rng(1)

    def power(seeds):
        found = [statistics.t_interval(rng.normal(effect, spread, seeds)) for _ in range(3000)]
        return np.mean([not low <= 0 <= high for low, high in found])

    assert power(n) >= 0.77
    assert power(n - 1) <= 0.83


def test_required_seeds_at_the_ends():
    assert statistics.required_seeds(1.0, 1e-9) == statistics.MIN_SEEDS
    assert statistics.required_seeds(1.0, 0.0) == statistics.MIN_SEEDS
    assert statistics.required_seeds(0.0, 1.0) is None
    assert statistics.required_seeds(0.0, 0.0) is None


def test_more_seeds_are_wanted_only_where_those_at_hand_do_not_tell():
    curves = dict.fromkeys(range(5), BASELINE)
    clear = {seed: 100 / 500 / 1.5 * (1 + 0.01 * seed) for seed in range(5)}
    assert statistics.seeds_wanted(clear, 500, curves) is None
    unclear = {
        seed: 100 / 500 / 1.01 * factor for seed, factor in enumerate((0.9, 1.1, 0.95, 1.05, 0.98))
    }
    assert 5 < int(statistics.seeds_wanted(unclear, 500, curves).removeprefix("about ")) <= 1000
    exactly_equal = {
        seed: 100 / 500 * factor for seed, factor in enumerate((0.9, 1 / 0.9, 0.95, 1 / 0.95, 1.0))
    }
    assert statistics.seeds_wanted(exactly_equal, 500, curves) == "more than 1000"
    assert statistics.seeds_wanted({}, 500, curves) is None


def test_performance_profiles_by_hand():
    ratios = statistics.profile_ratios(
        {
            "a": [Speedup(2.0), Speedup(1.0)],
            "b": [Speedup(1.0), Speedup(1.5)],
            "c": [Speedup(0.9, "<"), None],
        }
    )
    assert ratios == {"a": [1.0, 1.5], "b": [2.0, 1.0], "c": [math.inf, math.inf]}
    assert statistics.profile_score(ratios["a"]) == pytest.approx((3 + 2.5) / 6)
    assert statistics.profile_score([1.0, 1.0]) == 1.0
    assert statistics.profile_score(ratios["c"]) == 0.0
    with pytest.raises(ValueError, match="list None"):
        statistics.profile_ratios({"a": [Speedup(2.0)], "b": []})
