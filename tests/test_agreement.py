"""The tests by which an entry's reruns are judged, simulated: what they let pass, what they find.

Each simulated entry has five or six rungs with five seeds, whose log losses have a standard
deviation of 1.87 %, as measured on digits, and as many tuning trials as promotion up the ladder
leaves. Reruns on another platform are draws of their own.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from sweeps.board import agreement
from sweeps.board.agreement import Noise
from sweeps.board.reruns import Run

SD, TRIALS = 0.0187, (48, 24, 12, 6, 3, 3)


def found_in(rng, rungs=5, seeds=5, shade=1.0, one=1.0, tuning_shade=1.0, drawn=4):
    """What finds fault with a simulated entry: any of joint, rung, tuning, outlying.

    shade, one, tuning_shade: factors of the recorded losses: of all finals, of those of the first
    rung, and of all tuning trials.
    seeds: how many of five are rerun.
    """
    runs, recorded, tuned = [], [], {}
    others = [list(np.exp(rng.normal(-0.4 * h, SD, 5))) for h in range(rungs) for _ in range(2)]
    for h in range(rungs):
        losses = np.exp(rng.normal(-0.4 * h, SD, (2, 5)))
        losses[0] *= shade * (one if h == 0 else 1)
        recorded.append(list(losses[0]))
        runs += [Run("final", h, s + 1, None, *losses[:, s]) for s in range(seeds)]
        trials = np.abs(rng.normal(0, 0.1, TRIALS[h])) + rng.normal(0, SD, (2, TRIALS[h]))
        trials = np.exp(trials - 0.4 * h) * np.array([[tuning_shade], [1]])
        tuned[h] = agreement.tuned(list(trials[0]))
        if h < drawn:
            i = tuned[h].winner if rng.random() < 1 / 3 else rng.integers(TRIALS[h])
            runs.append(Run("tuning", h, 0, int(i), *trials[:, i]))
    noise = agreement.noise_of(runs, others, recorded)
    tuning = agreement.tuning(runs, tuned, noise)
    faults = {
        "joint": not agreement.joint(runs, noise).inside,
        "rung": not all(mean.inside for mean in agreement.by_rung(runs, noise).values()),
        "tuning": tuning.mean is not None and not tuning.mean.inside,
        "outlying": bool(tuning.outlying),
    }
    return {name for name, is_so in faults.items() if is_so}


def share(n, find=None, **settings):
    """The share of n simulated entries in which fault is found: by `find`, or by anything."""
    rng = np.random.default_rng(0)
    found = [found_in(rng, **settings) for _ in range(n)]
    return sum(bool(one if find is None else find in one) for one in found) / n


@pytest.mark.parametrize("settings", [{}, {"rungs": 6}, {"seeds": 1}, {"seeds": 2}])
def test_honest_entries_pass(settings):
    assert share(1500, **settings) <= 0.06


@pytest.mark.parametrize(("rungs", "passing"), [(5, 0.06), (6, 0.03)])
def test_losses_shaded_by_2_percent_are_found(rungs, passing):
    """When all seeds are rerun, 4.1 % pass with five rungs and 1.6 % with six (of 2,000)."""
    assert 1 - share(1000, rungs=rungs, shade=0.98) <= passing


def test_one_forged_rung_and_forged_tuning_are_found():
    assert share(300, "rung", one=0.92) > 0.97
    assert share(300, "tuning", tuning_shade=0.92) > 0.95


def test_the_winners_luck_is_no_fault():
    """Of ten equal trials the one recorded lowest wins, and its rerun is 1.5 deviations higher."""
    rng = np.random.default_rng(0)
    outside = 0
    for _ in range(1000):
        runs, tuned = [], {}
        for h in range(5):
            trials = np.exp(rng.normal(0, SD, (2, 10)))
            tuned[h] = agreement.tuned(list(trials[0]))
            runs.append(Run("tuning", h, 0, tuned[h].winner, *trials[:, tuned[h].winner]))
        found = agreement.tuning(runs, tuned, Noise(SD, 40))
        outside += not found.mean.inside or bool(found.outlying)
    assert outside <= 10


def test_a_recorded_spread_counts_only_if_nothing_else_is_known():
    logs = np.random.default_rng(1).normal(0, 1, (5, 5))
    again = [
        Run("final", h, s, None, 1.0, math.exp(SD * logs[h, s])) for h in range(5) for s in range(5)
    ]
    widened = [list(np.exp(3 * SD * row)) for row in logs]
    honest = [list(np.exp(SD * row)) for row in logs]
    alone, reruns = agreement.noise_of([], [], widened), agreement.noise_of(again, [], widened)
    assert (alone.freedom, reruns.freedom) == (20, 20)
    assert reruns.sd == pytest.approx(alone.sd / 3)
    both = agreement.noise_of(again, honest, widened)
    assert (both.freedom, both.sd) == (40, pytest.approx(reruns.sd))
    assert agreement.noise_of([], honest[:2], widened).freedom == 28  # 8 are too few
    assert agreement.noise_of([], [], [[1.0]]).reach(0.05, 1) == math.inf


def test_other_metrics_are_compared_by_their_means():
    def runs(factor):
        return [
            Run("final", h, s, None, 1.0, 1.01, metrics={"test_kl": (0.2, 0.2 * factor)})
            for h in range(5)
            for s in range(5)
        ]

    noises = {"test_kl": Noise(0.05, 40), "accuracy": Noise(0.004, 40)}
    (fair,) = agreement.columns(runs(1.02), noises).values()
    assert fair.inside
    (shaded,) = agreement.columns(runs(1.1), noises).values()
    assert not shaded.inside
    assert agreement.columns(runs(1.1), {"test_kl": Noise(0.05, 3)}) == {}  # too little is known


def test_a_trial_far_from_the_best_is_not_compared_unless_its_rerun_is_near():
    rungs = {8: agreement.Tuned(1.0, 0, 5)}
    bad = Run("tuning", 8, 0, 1, 3.0, 2.0)
    assert agreement.tuning([bad], rungs, Noise(SD, 40)) == agreement.Tuning(None, (), (), 1)
    hidden = Run("tuning", 8, 0, 1, 3.0, 1.1)
    assert agreement.tuning([hidden], rungs, Noise(SD, 40)).outlying == (hidden,)


def test_a_run_counts_once_however_often_it_is_rerun():
    once = [Run("final", 4, s, None, 1.0, math.exp(0.1), 0) for s in (1, 2)]
    twice = [*once, Run("final", 4, 1, None, 1.0, math.exp(-0.1), 1)]
    mean = agreement.joint(twice, Noise(0.1, 20))
    assert (mean.runs, mean.value) == (2, pytest.approx(0.05))
    assert mean.high == pytest.approx(Noise(0.1, 20).reach(0.05, (1.5 + 2) / 4))
    proved = Run("final", 4, 1, None, 1.0, 1.0, 2)
    assert agreement.joint([*twice, proved], Noise(0.1, 20)).runs == 1
