"""The hyperparameters of tuning trials."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_bench.errors import UserError
from optimizers import Choice, Log, Uniform
from sweeps.planning.sampling import sample

SPACE = {"lr": Log(1e-3, 1.0), "b2": Choice(0.9, 0.99), "decay": Uniform(0.0, 1.0)}


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 40), more=st.integers(0, 40))
def test_more_trials_start_with_the_same_trials(n, more):
    assert sample(SPACE, {}, n + more)[:n] == sample(SPACE, {}, n)


def test_trials_fill_the_space_evenly():
    trials = sample(SPACE, {}, 16)
    every_sixteenth = list(range(16))
    assert sorted(int(16 * (1 + math.log10(t["lr"]) / 3)) for t in trials) == every_sixteenth
    assert sorted(int(16 * t["decay"]) for t in trials) == every_sixteenth
    assert [t["b2"] for t in trials].count(0.9) == 8


def test_listed_values_are_all_tried():
    assert sample({"lr": Log(1, 2)}, {"lr": [0.1, 0.2]}, 8) == [{"lr": 0.1}, {"lr": 0.2}]
    grid = sample(SPACE, {"lr": [0.1, 0.2], "b2": [0.5]}, 4)
    assert [t["lr"] for t in grid] == [0.1, 0.2, 0.1, 0.2]
    assert len({t["decay"] for t in grid}) == 4
    assert sample({}, {}, 8) == [{}]


@pytest.mark.parametrize(
    ("listed", "n", "message"),
    [({}, 0, "--trials=0"), ({"lr": [1.0, 2.0, 3.0]}, 2, "cannot try all 3")],
)
def test_too_few_trials_are_refused(listed, n, message):
    with pytest.raises(UserError, match=message):
        sample(SPACE, listed, n)
