"""Which of its trials a search chooses."""

from __future__ import annotations

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers import Uniform
from sweeps.planning.search import CLOSE, key, select


def tried_at(values, horizon=125):
    """Trials of one hyperparameter in [0, 1], given as (value, loss)."""
    return [(horizon, key({"x": x}), loss) for x, loss in values]


LINE = {"x": Uniform(0.0, 1.0)}


def test_a_lucky_run_does_not_win_against_its_neighbours():
    """A valley at 0.3; a run far up its side is the lowest by a stroke of luck."""
    valley = [(x / 20, math.exp(0.5 * (x / 20 - 0.3) ** 2)) for x in range(20)]
    lucky = [(x, 0.98 if x == 0.7 else loss) for x, loss in valley]
    assert min(lucky, key=lambda one: one[1])[0] == 0.7
    chosen = json.loads(select(LINE, tried_at(lucky), 125))["x"]
    assert abs(chosen - 0.3) <= 0.15


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([125, 250]), st.floats(0, 1), st.floats(0.5, 1.5) | st.just(math.inf)
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda one: one[:2],
    )
)
def test_the_choice_is_never_far_above_the_lowest_loss(runs):
    tried = [(horizon, key({"x": x}), loss) for horizon, x, loss in runs]
    for horizon in (125, 250):
        here = {place: loss for h, place, loss in tried if h == horizon and math.isfinite(loss)}
        chosen = select(LINE, tried, horizon)
        if not here:
            assert chosen is None
        else:
            assert here[chosen] <= min(here.values()) * math.exp(CLOSE) * (1 + 1e-12)


def test_without_a_surface_the_lowest_loss_decides_and_the_first_of_equal_ones():
    few = tried_at([(0.1, 0.5), (0.2, 0.3), (0.9, 0.3)])
    assert select(LINE, few, 125) == key({"x": 0.2})
    many = tried_at([(x / 10, 1.0 - 0.001 * (x == 7)) for x in range(10)])
    assert select({}, many, 125) == key({"x": 0.7})


def test_a_key_does_not_depend_on_the_order_of_hyperparameters():
    assert key({"a": 1, "b": 0.1}) == key({"b": 0.1, "a": 1})
    assert json.loads(key({"a": 1, "b": 0.1})) == {"a": 1, "b": 0.1}
    assert key({"a": 1}) != key({"a": 2})
