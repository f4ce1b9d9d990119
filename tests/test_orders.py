"""Agreement of orders against scipy, and against simulations with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.results import orders
from sweeps.results.orders import Order

NAMES = [f"rule{i:02d}" for i in range(12)]
scores = st.lists(st.integers(-5, 5).map(float), min_size=12, max_size=12)


def order(values, deviations=(), separated=()):
    return Order(
        dict(zip(NAMES, values, strict=False)),
        dict(zip(NAMES, deviations, strict=False)),
        frozenset(separated),
    )


@given(scores, scores, st.integers(2, 12))
def test_tau_is_scipys(a, b, n):
    found = orders.tau(order(a[:n]), order(b[:n]))
    expected = stats.kendalltau(a[:n], b[:n]).statistic
    assert (found is None) == bool(np.isnan(expected))
    if found is not None:
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 4, 5, 9])
def test_chance_is_that_of_scipys_exact_test(n):
    rng = np.random.default_rng(n)
    for _ in range(5):
        a, b = rng.standard_normal((2, n))
        expected = stats.kendalltau(a, b, method="exact", alternative="greater").pvalue
        assert orders.compare(order(a), order(b)).chance == pytest.approx(expected, abs=0.03)


def test_few_optimizers_have_no_interval():
    few, enough = ([float(i) for i in range(n)] for n in (5, 6))
    assert orders.compare(order(few), order(few)).interval is None
    assert orders.compare(order(enough), order(enough)).interval == (1.0, 1.0)


def test_the_interval_holds_the_tau_of_the_population():
    """Of two scores with a correlation of 0.8, tau is 2 / pi * asin(0.8) = 0.59 (Greiner 1909)."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(30):
        a, c = rng.standard_normal((2, 12))
        low, high = orders.compare(order(a), order(0.8 * a + 0.6 * c)).interval
        hits += low <= 2 / np.pi * np.arcsin(0.8) <= high
    assert hits >= 26


def test_reliability_is_the_tau_of_repetitions():
    rng, found, true = np.random.default_rng(1), [], []
    for _ in range(40):
        levels = rng.standard_normal(12)
        noise = np.full(12, 0.5)
        once, again = (levels + noise * rng.standard_normal(12) for _ in range(2))
        found.append(orders.reliability(once.tolist(), noise.tolist()))
        true.append(stats.kendalltau(once, again).statistic)
    assert np.mean(found) == pytest.approx(np.mean(true), abs=0.05)
    assert orders.reliability([1.0, 1.01, 1.02], [1.0, 1.0, 1.0]) is None


def test_pairs_that_are_separated_are_counted_and_contradictions_named():
    first = order([3.0, 2.0, 1.0, 0.0], separated=[("rule00", "rule02"), ("rule01", "rule03")])
    second = order([1.0, 0.5, 1.5])  # lacks the fourth
    agreement = orders.compare(first, second)
    assert agreement.optimizers == ("rule00", "rule01", "rule02")
    assert (agreement.separated, agreement.kept) == (1, 0)
    (one,) = agreement.contradictions
    assert (one.better, one.worse, one.first, one.second) == ("rule00", "rule02", 2.0, -0.5)
    assert agreement.ceiling is None


def test_orders_that_share_nothing_agree_in_nothing():
    agreement = orders.compare(order([1.0]), Order({"other": 1.0}))
    assert agreement.optimizers == ()
    assert (agreement.tau, agreement.chance, agreement.interval) == (None, None, None)
