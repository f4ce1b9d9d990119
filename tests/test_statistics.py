"""Statistics against cases worked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.results import statistics
from sweeps.results.statistics import Speedup


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
