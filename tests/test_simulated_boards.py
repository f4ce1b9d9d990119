"""Boards of simulated searches, with known truths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweeps.simulation import boards
from sweeps.simulation.tuning import Noise, Procedure

QUIET = Noise(best=0.001, growth=0.0, common=0.0)


def field(regret, noise=QUIET):
    """Entrants of this regret, and a baseline without any."""
    ladder = Procedure(96, 8).horizons
    return boards.Field([np.zeros((4, 8))], [np.full((14, 6), regret)], ladder, (96, 384), noise, 5)


def test_boards_without_noise_measure_the_true_speedups():
    tally = boards.play(field(0.0), 2, seed=0)
    for gain in boards.SPEEDUPS:
        assert boards.errors(tally.scores, gain) == pytest.approx([0, 0], abs=0.01)
        assert boards.holds(tally.scores, gain) == [True, True]
    assert not any(tally.separated + tally.separated_beside + tally.winners + tally.winners_beside)


def test_regret_biases_the_speedup_but_a_repetition_has_the_same():
    tally = boards.play(field(0.2), 2, seed=0)
    assert np.mean(boards.errors(tally.scores, 1.1)) < -0.2  # 1 % of loss is about 2 % of speed-up
    assert boards.holds(tally.scores, 1.1) == [False, False]
    assert boards.holds(tally.scores, 1.1, of_repetition=True) == [True, True]
    assert not any(tally.separated)


def test_a_better_tuned_baseline_does_not_part_equal_entrants():
    regrets = np.repeat(np.linspace(0.008, 0.02, 14), 6).reshape(14, 6)
    tally = boards.play(replace(field(0.0), entrants=[regrets]), 4, seed=0)
    assert not any(tally.separated + tally.separated_beside)


def test_the_speedup_of_an_uneven_ladder_lies_between_those_of_its_rungs():
    ladder = Procedure(96, 8).horizons
    assert boards.even([1.3] * 6, ladder) == pytest.approx(1.3, rel=0.01)
    even = boards.even(boards.UNEVEN, ladder)
    assert 1.1 < even < 1.25
    tally = boards.play(field(0.0), 2, seed=0)
    assert boards.errors(tally.uneven, even) == pytest.approx([0] * 4, abs=0.01)
    assert boards.holds(tally.uneven, even) == [True] * 4


def test_an_uneven_ladder_widens_its_own_interval_only():
    tally = boards.play(field(0.0), 3, seed=0)
    alone, beside, uneven = (
        np.mean([one.width for one in scores])
        for scores in (tally.scores, tally.beside, tally.uneven)
    )
    assert beside < 1.25 * alone
    assert uneven > 1.5 * beside


def test_luck_in_tuning_beyond_what_is_assumed_separates_equal_entrants():
    entrants = np.abs(np.random.default_rng(0).normal(size=(14, 1))) * np.full((14, 6), 0.2)
    tally = boards.play(replace(field(0.0), entrants=[entrants]), 2, seed=0)
    assert all(tally.separated)
