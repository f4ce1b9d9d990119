"""Noise and ranks against scipy, and against simulations with a known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sweeps.results import noise, ranks


def ranked(values, covariance, freedom):
    return ranks.ranks(ranks.significantly_better(values, covariance, freedom))


def test_ranks_agree_with_scipys_tukey_test():
    rng = np.random.default_rng(0)
    for _ in range(20):
        groups = [rng.normal(mean, 1, 6) for mean in (0.0, 0.5, 1.5, 3.0)]
        means = [group.mean() for group in groups]
        pooled = float(np.mean([group.var(ddof=1) for group in groups]))
        found = ranked(means, np.eye(4) * pooled / 6, freedom=4 * 5)
        significant = stats.tukey_hsd(*groups).pvalue < 0.05
        expected = [
            1 + sum(significant[i, j] and means[i] > means[j] for i in range(4)) for j in range(4)
        ]
        assert found == expected


def test_among_equal_entries_a_pair_differs_in_five_percent():
    rng = np.random.default_rng(1)
    differ = []
    for _ in range(2000):
        values = rng.normal(size=12)
        variance = rng.chisquare(30) / 30
        differ.append(len(set(ranked(values, np.eye(12) * variance, 30))) > 1)
    assert 0.035 < np.mean(differ) < 0.065


def test_a_significantly_better_entry_never_has_the_worse_rank():
    rng = np.random.default_rng(2)
    for _ in range(300):
        values = rng.normal(size=6)
        deviations = rng.uniform(0.05, 1.0, 6)
        found = ranked(values, np.diag(deviations**2), 20)
        margin = ranks.critical(6, 20)
        for i in range(6):
            for j in range(6):
                if values[i] - values[j] > margin * math.hypot(deviations[i], deviations[j]):
                    assert found[i] < found[j]


def test_one_entry_alone_ranks_first():
    assert ranked([1.3], np.eye(1), 20) == [1]


def test_the_variance_of_seeds_is_found_and_shrunk_to_that_of_all():
    rng = np.random.default_rng(3)
    quiet = {f"q{i}": rng.normal(0, 0.02, (6, 5)).tolist() for i in range(8)}
    found = noise.estimate(quiet | {"loud": rng.normal(0, 0.06, (6, 5)).tolist()})
    assert math.sqrt(found.of_seeds("q0")) == pytest.approx(0.022, abs=0.005)
    assert 0.04 < math.sqrt(found.of_seeds("loud")) < 0.06
    assert found.of_seeds("never seen") == found.pooled


EXPLAINED = 0.02**2 / 5  # by five seeds with a standard deviation of 2 %


def scatter(rng, luck, ladders=12):
    """Ladders whose rungs stray by seeds and by independent luck of this standard deviation."""
    deviation = math.sqrt(EXPLAINED + luck**2 * (1 - noise.TUNING_COMMON))
    strays = (rng.normal(0, deviation, (ladders, 4)) ** 2).sum(1)
    return {f"o{i}": noise.Scatter(float(x), 4, EXPLAINED, 96) for i, x in enumerate(strays)}


def test_luck_in_tuning_is_what_seeds_do_not_explain():
    """Ladders that stray from their curves by more than seeds explain show more luck."""
    rng = np.random.default_rng(4)
    calm, wild = (noise.estimate({}, scatter(rng, luck)) for luck in (0.003, 0.05))
    assert calm.of_tuning("o0", 96) < 0.01**2
    assert wild.of_tuning("o0", 96) > 0.02**2
    assert wild.of_tuning("o0", 0) == 0.0
    assert wild.of_tuning("o0", 48) > wild.of_tuning("o0", 96) > wild.of_tuning("o0", 384)


@pytest.mark.parametrize("luck", [noise.TUNING_SD, 0.03])
def test_with_many_ladders_the_typical_luck_is_the_true_one(luck):
    found = noise.estimate({}, scatter(np.random.default_rng(5), luck, ladders=4000))
    assert math.sqrt(found.typical) == pytest.approx(luck, rel=0.03)
    own = np.mean([found.of_tuning(f"o{i}", 96) for i in range(4000)])
    assert math.sqrt(own) == pytest.approx(luck, rel=0.03)


def test_an_odd_ladder_widens_its_own_interval_and_hardly_those_of_others():
    ratios = []
    for i in range(200):
        ladders = scatter(np.random.default_rng([6, i]), noise.TUNING_SD)
        odd, odder = (
            noise.estimate({}, ladders | {"odd": noise.Scatter(4 * stray**2, 4, EXPLAINED, 96)})
            for stray in (0.3, 3.0)
        )
        assert odder.typical == odd.typical
        assert odder.of_tuning("odd", 96) > 50 * odd.of_tuning("odd", 96) > 1000 * odd.typical
        assert odd.of_tuning("never seen", 96) == odd.typical
        ratios.append(odd.of_tuning("o0", 96) / noise.estimate({}, ladders).of_tuning("o0", 96))
    assert np.mean(ratios) < 1.15


def test_a_covariance_has_seeds_on_its_diagonal_and_common_luck_beside_it():
    found = noise.Noise({"x": 4e-4}, 1e-4, {"x": 1e-4}, 2e-4)
    covariance = found.covariance("x", noise.TUNING_TRIALS, [5, 4])
    assert covariance[0, 0] == pytest.approx(1e-4 + 4e-4 / 5)
    assert covariance[1, 1] == pytest.approx(1e-4 + 4e-4 / 4)
    assert covariance[0, 1] == pytest.approx(noise.TUNING_COMMON * 1e-4)
    assert found.covariance("y", noise.TUNING_TRIALS, [5])[0, 0] == pytest.approx(2e-4 + 1e-4 / 5)


def test_required_seeds_reach_the_margin_exactly():
    needed = noise.required_seeds(0.05, 1e-4, 1e-3, 2.0)
    assert 2.0 * math.sqrt(1e-4 + 1e-3 / needed) <= 0.05
    assert 2.0 * math.sqrt(1e-4 + 1e-3 / (needed - 1)) > 0.05
    assert noise.required_seeds(0.01, 1e-4, 1e-3, 2.0) is None
