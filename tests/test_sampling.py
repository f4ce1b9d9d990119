"""Points of a search space: spread over it, and turned into hyperparameters and back."""

from __future__ import annotations

import json
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers import Choice, Decay, Log, Uniform
from sweeps.planning.sampling import (
    at,
    combinations,
    describe_domain,
    fractions,
    parse_domain,
    spread,
)

SPACE = {"lr": Log(1e-3, 1.0), "b1": Decay(0.5, 0.99), "decay": Uniform(-1.0, 1.0)}
DOMAINS = [*SPACE.values(), Choice(0.9, 0.99), Choice("a", "b", "c"), Choice(True, False)]
WORDS = st.text(string.printable, max_size=8)


@settings(max_examples=20)
@given(dimensions=st.integers(1, 6), n=st.integers(1, 70), more=st.integers(0, 70), word=WORDS)
def test_a_longer_spread_continues_a_shorter_one(dimensions, n, more, word):
    short, long = spread(dimensions, n, word), spread(dimensions, n + more, word)
    assert short.shape == (n, dimensions)
    assert long.shape == (n + more, dimensions)
    np.testing.assert_array_equal(long[:n], short)
    assert 0 <= long.min() <= long.max() <= 1


@settings(max_examples=20)
@given(one=WORDS, other=WORDS)
def test_each_scramble_has_points_of_its_own(one, other):
    same = (spread(3, 8, one)[:, None] == spread(3, 8, other)).all(-1)
    assert same.any() == (one == other)


def test_points_fill_every_dimension_evenly():
    points = spread(4, 16, "any")
    for values in points.T:
        assert sorted((16 * values).astype(int)) == list(range(16))


@given(point=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_fractions_invert_at(point):
    hparams = at(SPACE, point)
    assert list(hparams) == list(SPACE)
    assert fractions(SPACE, hparams) == pytest.approx(point, abs=1e-9)
    for name, domain in SPACE.items():
        assert domain.low - 1e-9 <= hparams[name] <= domain.high + 1e-9
    # Results keep hyperparameters as JSON.
    assert fractions(SPACE, json.loads(json.dumps(hparams))) == fractions(SPACE, hparams)


@given(u=st.floats(0, 1), n=st.integers(1, 12))
def test_a_choice_is_known_by_the_middle_of_its_part(u, n):
    space = {"k": Choice(*range(n))}
    (middle,) = fractions(space, at(space, [u]))
    assert at(space, [middle]) == at(space, [u])
    assert middle == pytest.approx((at(space, [u])["k"] + 0.5) / n)
    assert abs(middle - u) <= 0.5 / n + 1e-9


def test_a_point_has_a_coordinate_for_each_hyperparameter():
    with pytest.raises(ValueError, match="shorter"):
        at(SPACE, [0.5, 0.5])


@given(
    st.dictionaries(
        st.text(string.ascii_letters, min_size=1),
        st.lists(st.integers(), min_size=1, max_size=4, unique=True),
        max_size=4,
    )
)
def test_every_combination_of_listed_values_comes_once(listed):
    found = combinations(listed)
    assert len(found) == np.prod([len(values) for values in listed.values()])
    assert len({json.dumps(one) for one in found}) == len(found)
    for name, values in listed.items():
        assert {one[name] for one in found} == set(values)


def test_the_last_listed_hyperparameter_changes_first():
    assert combinations({}) == [{}]
    assert combinations({"lr": [1, 2], "b": [3, 4]}) == [
        {"lr": 1, "b": 3},
        {"lr": 1, "b": 4},
        {"lr": 2, "b": 3},
        {"lr": 2, "b": 4},
    ]


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_a_described_domain_survives_json(domain):
    described = json.loads(json.dumps(describe_domain(domain)))
    assert parse_domain(described) == domain
    assert type(parse_domain(described)) is type(domain)
    assert described["kind"] == type(domain).__name__
