"""One hyperparameter changed at a time: neighbours of a value, and gains with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optimizers import Choice, Log
from optimizers.contract.domains import Uniform
from sweeps.planning.neighbours import STEP, Neighbour, neighbours
from sweeps.results.one_factor import Arm, Factor, analyse


@pytest.mark.parametrize(
    "domain", [Log(1e-3, 1e-1), Uniform(-1, 3), Choice(0.9, 0.95, 0.99), Choice("a", "b")]
)
def test_the_fraction_of_a_value_leads_back_to_it(domain):
    for u in (0.05, 0.3, 0.7, 0.95):
        assert domain.at(domain.fraction(domain.at(u))) == pytest.approx(domain.at(u))


def test_neighbours_are_one_step_away_and_end_with_the_range():
    low, high = neighbours(Log(1e-4, 1.0), 1e-2)
    assert (low.side, low.offset, high.side, high.offset) == ("down", -STEP, "up", STEP)
    assert (low.value, high.value) == (pytest.approx(10**-2.5), pytest.approx(10**-1.5))
    near_the_end = neighbours(Uniform(0, 1), 0.95)
    assert [(n.side, n.value) for n in near_the_end] == [
        ("down", pytest.approx(0.825)),
        ("up", pytest.approx(1.0)),
    ]
    assert [n.side for n in neighbours(Uniform(0, 1), 0.99)] == ["down"]
    assert [n.side for n in neighbours(Uniform(0, 1), 0.0)] == ["up"]
    beyond = neighbours(Log(1.0, 2.0), 2.0 + 1e-9)  # written with fewer digits than it had
    assert [(n.side, n.value) for n in beyond] == [("down", pytest.approx(2 ** (1 - STEP)))]


def test_neighbours_in_a_choice_are_the_values_before_and_after():
    domain = Choice(0.9, 0.95, 0.99)
    assert [n.value for n in neighbours(domain, 0.95)] == [0.9, 0.99]
    assert [(n.side, n.value) for n in neighbours(domain, 0.9)] == [("up", 0.95)]
    assert [(n.side, n.value) for n in neighbours(domain, 0.99)] == [("down", 0.95)]
    assert neighbours(Choice(True), True) == []


def factors(
    rng, curves, seeds=5, horizons=1, sd=0.019, continuous=True, offsets=(-STEP, STEP)
) -> list[Factor]:
    """Factors whose log losses at an offset are those of `curves`, with noise and paired seeds."""
    made = []
    for horizon in range(horizons):
        paired = rng.normal(0, 0.005, seeds)

        def losses(level, paired=paired):
            return dict(enumerate(np.exp(level + paired + rng.normal(0, sd, seeds)).tolist()))

        winner = losses(-2.0)
        for i, curve in enumerate(curves):
            arms = tuple(
                Arm(Neighbour("down" if x < 0 else "up", x, x), losses(-2.0 + curve(x)))
                for x in offsets
            )
            made.append(Factor(horizon, f"p{i}", continuous, winner, arms))
    return made


def parabola(at, rise=0.02):
    """Log loss over that of offset 0, with the lowest at `at` and `rise` for a step."""
    return lambda x: rise * (((x - at) / STEP) ** 2 - (at / STEP) ** 2)


def test_the_vertex_of_a_parabola_is_found_without_noise():
    rng = np.random.default_rng(0)
    made = factors(rng, [parabola(0.5 * STEP), parabola(0)], sd=1e-6)
    (moved, there), largest = analyse(made)
    gain = 1 - math.exp(-0.02 * 0.25)
    assert moved.best.value == pytest.approx(gain, abs=1e-4)
    assert moved.offset == pytest.approx(0.5 * STEP, rel=0.06)
    assert moved.best.low == pytest.approx(gain, abs=1e-4)
    assert there.best.value == pytest.approx(0, abs=1e-4)
    assert largest.value == pytest.approx(gain, abs=1e-4)
    down, up = moved.neighbours
    assert down.value == pytest.approx(1 - math.exp(0.04), abs=1e-4)
    assert up.value == pytest.approx(0, abs=1e-4)


def test_a_cliff_is_no_parabola_and_a_choice_has_nothing_between_its_values():
    """A parabola through (-1, 0.01), (0, 0), (1, 0.2) would promise a gain of 2 % in between."""

    def cliff(x):
        return 0.2 if x > 0 else 0.01 if x < 0 else 0.0

    rng = np.random.default_rng(0)
    (found,), _ = analyse(factors(rng, [cliff], sd=1e-6))
    assert (found.best.value, found.offset) == (0, 0)
    chosen = factors(rng, [parabola(0.5 * STEP)], sd=1e-6, continuous=False)
    (found,), _ = analyse(chosen)
    assert found.best.value == pytest.approx(0, abs=1e-4)


def test_failed_and_far_neighbours_do_not_count():
    rng = np.random.default_rng(0)
    made = factors(rng, [parabola(STEP), lambda x: 0.5])
    lost = {**made[0].arms[0].losses, 2: math.inf}
    first = Factor(
        0, "p0", True, made[0].winner, (Arm(made[0].arms[0].neighbour, lost), made[0].arms[1])
    )
    (found, far), largest = analyse([first, made[1]])
    assert found.neighbours[0] is None
    assert found.neighbours[1]
    assert largest == found.best
    assert (far.neighbours, far.best) == ((None, None), None)
    assert analyse([made[1]]) == ([far], None)
    with pytest.raises(ValueError, match="fewer than 3 seeds"):
        analyse(factors(rng, [parabola(0)], seeds=2))


@pytest.mark.parametrize(
    ("moved", "horizons"), [((0, 0, 0, 0), 1), ((0.7, -0.4, 0, 0), 1), ((0.5, -0.5, 0, 0), 3)]
)
def test_intervals_hold_the_largest_gain_and_its_estimate_is_not_that_of_luck(moved, horizons):
    rng, worlds = np.random.default_rng(1), 150
    truth = 1 - math.exp(-0.01 * max(abs(x) for x in moved) ** 2)
    curves = [parabola(x * STEP, rise=0.01) for x in moved]
    below = above = significant = 0
    values, lucky = [], []
    for _ in range(worlds):
        findings, largest = analyse(factors(rng, curves, horizons=horizons))
        assert largest
        below += largest.high < truth
        above += largest.low > truth + 1e-9
        significant += largest.low > 0
        values.append(largest.value)
        lucky.append(max(f.best.value for f in findings if f.best))
    assert below / worlds <= 0.05
    assert above / worlds <= 0.05
    assert significant / worlds <= 0.05 or any(moved)
    # The largest fitted gain is too high by 0.5 % of loss and more, the estimate by less than half.
    assert np.mean(lucky) - truth > 0.004
    assert abs(np.mean(values) - truth) < 0.5 * (np.mean(lucky) - truth)


def test_more_seeds_find_a_small_gain():
    rng = np.random.default_rng(2)
    findings, largest = analyse(factors(rng, [parabola(STEP)], seeds=40))
    assert largest
    assert 0.005 < largest.low < 1 - math.exp(-0.02) < largest.high < 0.04
    assert findings[0].offset > 0
