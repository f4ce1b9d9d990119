"""Which trials a search runs."""

from __future__ import annotations

import itertools
import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_bench.errors import UserError
from optimizers import Choice, Decay, Log, Uniform
from sweeps.planning import sampling
from sweeps.planning.search import Search, key, select

LADDER = (125, 250, 500, 1000, 2000, 4000)
SPACE = {
    "lr": Log(1e-3, 1.0),
    "b1": Decay(0.7, 0.97),
    "weight_decay": Log(1e-4, 1e-1),
    "warmup": Uniform(0.0, 0.5),
}
TINY = {"kind": Choice("a", "b", "c"), "k": Choice(1, 2, 3, 4)}


def search(space=SPACE, trials=12, horizons=LADDER[:3], name="mine", **listed):
    left = {name: domain for name, domain in space.items() if name not in listed}
    pairs = tuple((name, tuple(values)) for name, values in listed.items())
    return Search(name, tuple(left.items()), pairs, trials, horizons)


def place(of, hparams):
    """Fractions of the ranges."""
    return np.array(sampling.fractions(dict(of.space), hparams))


def bowl(of, center=0.3, width=1.0):
    """(hyperparameters, horizon) -> loss without noise: exp of a quadratic."""
    return lambda hparams, horizon: float(
        np.exp(np.sum((place(of, hparams) - center) ** 2) / width - 0.3 * math.log(horizon))
    )


def run(of, loss):
    """Runs the whole search: its stages with their points, and all losses."""
    losses = {}
    while True:
        known = list(of.known(losses))
        missing = {
            (stage.horizon, key(point)): loss(point, stage.horizon)
            for stage, points in known
            for point in points
            if (stage.horizon, key(point)) not in losses
        }
        if not missing:
            return known, losses
        losses |= missing


def by_rung(known):
    found = {}
    for stage, points in known:
        found.setdefault(stage.horizon, []).extend(map(key, points))
    return found


# How many trials


def test_each_rung_has_about_the_same_number_of_steps():
    assert search(trials=48, horizons=LADDER).counts() == {
        125: 48,
        250: 24,
        500: 12,
        1000: 6,
        2000: 3,
        4000: 3,
    }
    assert list(search(trials=96, horizons=LADDER).counts().values()) == [96, 48, 24, 12, 6, 3]
    assert search(trials=96, horizons=(125, 1000)).counts() == {125: 96, 1000: 12}


@given(trials=st.integers(1, 200), rungs=st.integers(1, 6))
def test_no_rung_has_less_than_three_trials_unless_asked(trials, rungs):
    of = search(trials=trials, horizons=LADDER[:rungs])
    for horizon, count in of.counts().items():
        assert count == max(min(3, trials), round(trials * 125 / horizon))
    assert all(stage.count > 0 for stage in of.stages)
    assert [stage.horizon for stage in of.stages] == sorted(stage.horizon for stage in of.stages)


def test_listed_values_are_a_grid_at_every_rung():
    of = search({"lr": SPACE["lr"]}, trials=2, lr=[0.1, 0.2, 0.3], b=["x", "y"])
    grid = [{"lr": lr, "b": b} for lr in (0.1, 0.2, 0.3) for b in "xy"]
    known, _ = run(of, lambda hparams, horizon: hparams["lr"])
    assert of.counts() == {125: 6, 250: 6, 500: 6}
    assert [list(points) for _, points in known] == [grid] * 3


@settings(max_examples=20)
@given(trials=st.integers(3, 40))
def test_listed_values_share_the_points_of_what_is_searched(trials):
    of = search(trials=trials, lr=[0.1, 0.2, 0.3])
    of.check()
    ((stage, points),) = of.known({})
    counts = [sum(point["lr"] == lr for point in points) for lr in (0.1, 0.2, 0.3)]
    assert stage.count == len(points) == sum(counts) == trials
    assert max(counts) - min(counts) <= 1
    assert len({point["b1"] for point in points}) == trials


def test_too_few_trials_for_the_combinations_are_refused():
    with pytest.raises(UserError, match=r"cannot try all 3 .* use --trials=3"):
        search(trials=2, lr=[0.1, 0.2, 0.3]).check()
    search({}, trials=2, lr=[0.1, 0.2, 0.3]).check()  # a grid has as many trials as it needs


def test_nothing_to_choose_needs_no_trials():
    for of in (search({}), search({}, lr=[0.1])):
        assert not of.needs_tuning
        assert of.stages == ()
        assert list(of.known({})) == []
    assert search({}).combinations == [{}]
    assert search({}, lr=[0.1]).combinations == [{"lr": 0.1}]
    assert search({}, lr=[0.1, 0.2]).needs_tuning


def test_a_fixed_value_is_in_every_trial():
    of = search(lr=[0.1], trials=16)
    known, _ = run(of, bowl(of))
    points = [point for _, stage in known for point in stage]
    assert {point["lr"] for point in points} == {0.1}
    assert {frozenset(point) for point in points} == {frozenset(SPACE)}


# Which trials


def test_half_of_a_rung_comes_from_the_rung_below():
    of = search(trials=48, horizons=LADDER)
    rungs = by_rung(run(of, bowl(of))[0])
    assert {horizon: len(set(keys)) for horizon, keys in rungs.items()} == of.counts()
    for low, high in itertools.pairwise(LADDER):
        up = [one for one in rungs[high] if one in rungs[low]]
        assert len(up) == math.ceil(len(rungs[high]) / 2)
        worth = bowl(of)
        losses = sorted(worth(json.loads(one), low) for one in rungs[low])
        assert max(worth(json.loads(one), low) for one in up) <= losses[len(losses) * 2 // 3]


def test_without_a_surface_the_best_of_the_rung_below_go_on():
    for of in (
        search(trials=6, horizons=(10, 20)),  # too few results for four dimensions
        search(trials=24, horizons=(10, 20), lr=[0.1, 0.2]),
    ):
        known, losses = run(of, bowl(of))
        rungs = by_rung(known)
        order = sorted(rungs[10], key=lambda one: losses[10, one])
        assert rungs[20] == order[: len(rungs[20])]


def test_each_optimizer_has_points_of_its_own():
    mine, yours = search(name="mine"), search(name="yours")
    points = [{key(p) for _, stage in run(of, bowl(of))[0] for p in stage} for of in (mine, yours)]
    assert not points[0] & points[1]
    assert list(mine.known({})) == list(search(name="mine").known({}))


@settings(max_examples=8)
@given(rng=st.randoms(use_true_random=False))
def test_the_next_trials_are_a_function_of_the_results(rng):
    of = search(horizons=LADDER[:3])
    known, losses = run(of, bowl(of))
    others = {
        (horizon, key(sampling.at(SPACE, [rng.random() for _ in SPACE]))): rng.random()
        for horizon in (125, 250, 8000)
    }
    mixed = [*losses.items(), *others.items()]
    rng.shuffle(mixed)
    assert list(search(horizons=LADDER[:3]).known(dict(mixed))) == known


@settings(max_examples=10)
@given(data=st.data())
def test_an_unfinished_trial_stops_the_search_behind_its_stage(data):
    of = search(horizons=LADDER[:3])
    known, losses = run(of, bowl(of))
    i = data.draw(st.integers(0, len(known) - 1))
    stage, points = known[i]
    point = data.draw(st.sampled_from(points))
    del losses[stage.horizon, key(point)]
    assert list(of.known(losses)) == known[: i + 1]


@settings(max_examples=8)
@given(seed=st.integers(0, 999), share=st.floats(0.1, 0.9))
def test_failed_trials_go_on_only_when_no_good_ones_are_left(seed, share):
    of = search(trials=12, horizons=LADDER[:2])
    rng = random.Random(seed)
    known, losses = run(
        of, lambda hparams, horizon: math.inf if rng.random() < share else rng.uniform(1, 2)
    )
    rungs = by_rung(known)
    up = [one for one in rungs[250] if one in rungs[125]]
    failed = [one for one in up if math.isinf(losses[125, one])]
    good = [one for one in rungs[125] if math.isfinite(losses[125, one])]
    if failed:
        assert set(good) <= set(up)


def test_a_search_whose_trials_all_fail_ends():
    of = search(trials=12)
    known, losses = run(of, lambda hparams, horizon: math.inf)
    assert {horizon: len(keys) for horizon, keys in by_rung(known).items()} == of.counts()
    tried = [(*one, loss) for one, loss in losses.items()]
    assert all(select(SPACE, tried, horizon) is None for horizon in of.horizons)


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    trials=st.integers(2, 40),
    seed=st.integers(0, 99),
)
def test_a_small_space_is_tried_without_repeats(sizes, trials, seed):
    space = {f"k{i}": Choice(*range(n)) for i, n in enumerate(sizes)}
    of = search(space, trials=trials, horizons=(10, 20, 40))
    rng = random.Random(seed)
    known, _ = run(of, lambda hparams, horizon: rng.uniform(1, 1.2))
    size = math.prod(sizes)
    for horizon, keys in by_rung(known).items():
        assert len(set(keys)) == len(keys) <= min(of.counts()[horizon], size)
    assert len(by_rung(known)[40]) >= min(of.counts()[40], len(by_rung(known)[10]))


def test_a_large_budget_tries_every_point_of_a_small_space():
    of = search(TINY, trials=48)
    rungs = by_rung(run(of, bowl(of))[0])
    assert [len(keys) for keys in rungs.values()] == [12, 12, 12]


def test_proposals_are_untried_points_while_there_are_some():
    """The best of 100 points are known early; the rest of the budget goes to others."""
    of = search({"a": Choice(*range(10)), "b": Choice(*range(10))}, trials=48)
    rungs = by_rung(run(of, bowl(of, width=0.2))[0])
    assert [len(set(keys)) for keys in rungs.values()] == [48, 24, 12]


# How well


def regrets(of, known, loss):
    """Log loss of the choice above the optimum, at each horizon."""
    tried = [
        (stage.horizon, key(point), loss(point, stage.horizon))
        for stage, points in known
        for point in points
    ]
    optimum = sampling.at(dict(of.space), [0.3] * len(of.space))
    return np.array(
        [
            math.log(loss(json.loads(select(dict(of.space), tried, h)), h) / loss(optimum, h))
            for h in of.horizons
        ]
    )


def test_a_search_finds_the_optimum_of_a_bowl_and_random_points_do_not():
    found, blind = [], []
    for seed in range(3):
        of = search(trials=48, horizons=LADDER[:5], name=f"mine{seed}")
        loss = bowl(of)
        found.append(regrets(of, run(of, loss)[0], loss))
        rng = np.random.default_rng(seed)
        blind.append(
            [
                min(np.sum((rng.random((count, 4)) - 0.3) ** 2, axis=1))
                for count in of.counts().values()
            ]
        )
    assert np.max(found) < 0.03
    assert np.mean(found) < 0.2 * np.mean(blind)


def test_proposals_avoid_what_is_known_to_be_bad():
    of = search(trials=24, horizons=(125,))
    known, _ = run(of, bowl(of, width=0.5))
    (_, spread), (_, second), (_, third) = known
    loss = bowl(of, width=0.5)

    def mean(points):
        return np.mean([math.log(loss(point, 125) * 125**0.3) for point in points])

    assert mean(second) < 0.6 * mean(spread)
    assert mean(third) < 0.6 * mean(spread)


def test_a_region_that_fails_is_left():
    of = search(trials=24, horizons=(125, 250))
    smooth = bowl(of, width=5)

    def loss(hparams, horizon):
        return math.inf if place(of, hparams)[0] > 0.5 else smooth(hparams, horizon)

    known, losses = run(of, loss)
    failed = {one for one, found in losses.items() if math.isinf(found)}
    assert len(known[0][1]) // 2 - 1 <= len(failed) <= 12
    assert {horizon for horizon, _ in failed} == {125}


# The choice
