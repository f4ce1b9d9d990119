"""The surface through tuning trials, against the Gaussian process of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from sweeps.planning import surface
from sweeps.planning.surface import fit, relative


def data(seed=0, n=20, dimensions=3, failed=2, rungs=(125, 250)):
    """Trials of a bowl with noise at several horizons, some of them failed."""
    rng = np.random.default_rng(seed)
    points, horizons = rng.random((n, dimensions)), rng.choice(rungs, n)
    horizons[: len(rungs)] = rungs
    scales = 0.5 ** np.arange(dimensions)
    losses = np.exp(
        ((points - 0.4) ** 2 @ scales) + 0.02 * rng.normal(size=n) - 0.4 * np.log(horizons / 125)
    )
    losses[len(rungs) : len(rungs) + failed] = np.inf
    return points, horizons, losses


def coordinates(points, horizons):
    return np.column_stack([points, np.log2(horizons) / surface.OCTAVES])


def reference(points, horizons, losses, lengths):
    """scikit-learn's process with these length scales, the last of which is that of horizons."""
    heights = relative(horizons, losses)
    deviations = surface.NOISE + surface.NOISE_GROWTH * np.maximum(heights, 0)
    kernel = ConstantKernel(surface.AMPLITUDE**2, "fixed") * RBF([*lengths, 1.0], "fixed")
    process = GaussianProcessRegressor(kernel, alpha=deviations**2, optimizer=None)
    return process.fit(coordinates(points, horizons), heights - heights.mean()), heights.mean()


def chosen_lengths(points, horizons, losses):
    """The most likely length scales, found one coordinate at a time."""

    def likelihood(lengths):
        process, _ = reference(points, horizons, losses, lengths)
        return process.log_marginal_likelihood_value_

    lengths = [0.5] * points.shape[1]
    for i in range(len(lengths)):
        others = [[*lengths[:i], x, *lengths[i + 1 :]] for x in surface.LENGTHS]
        lengths = max([lengths, *others], key=likelihood)
    return lengths


@pytest.mark.parametrize(
    "trials",
    [
        data(),
        data(1, n=12, dimensions=1, failed=0, rungs=(125,)),
        data(2, n=60, dimensions=5, failed=7, rungs=(125, 250, 500, 1000)),
    ],
    ids=["two rungs", "one rung", "four rungs"],
)
def test_mean_and_deviation_are_those_of_scikit_learn(trials):
    points = trials[0]
    lengths = chosen_lengths(*trials)
    process, center = reference(*trials, lengths)
    made = fit(*trials)
    asked = np.random.default_rng(9).random((50, points.shape[1]))
    for horizon in (125, 250, 8000):
        mean, deviation = process.predict(coordinates(asked, np.full(50, horizon)), return_std=True)
        np.testing.assert_allclose(made.mean(asked, horizon), center + mean, atol=1e-9)
        np.testing.assert_allclose(
            made.mean(asked, horizon) - made.bounds(asked, horizon), deviation, atol=1e-7
        )


def test_the_likelihood_is_that_of_scikit_learn():
    trials = data(3)
    heights = relative(*trials[1:])
    noise = (surface.NOISE + surface.NOISE_GROWTH * np.maximum(heights, 0)) ** 2
    for lengths in ([0.25, 1.0, 3.0], [0.5, 0.5, 0.5], [3.0, 0.25, 1.0]):
        process, center = reference(*trials, lengths)
        _, likelihood = surface._process(
            coordinates(*trials[:2]), heights - center, noise, lengths, center
        )
        assert likelihood == pytest.approx(process.log_marginal_likelihood_value_, abs=1e-9)


def test_losses_are_relative_to_the_good_trials_of_their_horizon():
    horizons = np.array([125] * 3 + [250] * 3)
    losses = np.array([1.0, 1.1, 100.0, 0.5, 0.55, np.inf])
    level = np.log(1.1) / 2
    expected = [-level, level, surface.CAP]
    np.testing.assert_allclose(relative(horizons, losses), expected * 2, atol=1e-12)
    assert relative(horizons, np.full(6, np.inf)).tolist() == [surface.CAP] * 6


@settings(max_examples=10)
@given(seed=st.integers(0, 99), factor=st.floats(1e-3, 1e3))
def test_the_unit_of_the_losses_does_not_matter(seed, factor):
    points, horizons, losses = data(seed)
    scaled = fit(points, horizons, losses * np.where(horizons == 250, factor, 1))
    np.testing.assert_allclose(
        scaled.mean(points, 250), fit(points, horizons, losses).mean(points, 250), atol=1e-6
    )


def test_failed_trials_raise_the_surface_where_they_are():
    points = np.random.default_rng(0).random((30, 2))
    horizons, losses = np.full(30, 125), np.ones(30)
    losses[points[:, 0] > 0.7] = np.inf
    made = fit(points, horizons, losses)
    bad, good = made.mean(np.array([[0.9, 0.5], [0.3, 0.5]]), 125)
    assert bad > 0.2
    assert abs(good) < 0.05
    everywhere = fit(points, horizons, np.full(30, np.inf)).mean(points, 125)
    np.testing.assert_allclose(everywhere, surface.CAP, atol=1e-6)


def test_trials_of_other_rungs_tell_where_the_best_is():
    """One run at the longer rung says nothing about the shape; those below do."""
    points, horizons, losses = data(4, n=40, dimensions=2, failed=0, rungs=(125,))
    points = np.vstack([points, [[0.9, 0.9]]])
    horizons, losses = np.append(horizons, 250), np.append(losses, 1.3)
    best, worst = fit(points, horizons, losses).mean(np.array([[0.4, 0.4], [1.0, 0.0]]), 250)
    assert worst - best > 0.15


def test_little_is_known_far_from_the_trials():
    points = np.array([[0.1], [0.12], [0.15], [0.2]])
    made = fit(points, np.full(4, 125), np.array([1.0, 1.01, 1.05, 1.1]))
    near, far = (made.mean(at, 125) - made.bounds(at, 125) for at in (points[:1], [[1.0]]))
    assert near < 0.03 < far
