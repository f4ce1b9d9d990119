"""A smooth surface through the losses of tuning trials: what a search expects of untried points.

A Gaussian process over the hyperparameters and the horizon (Rasmussen & Williams 2006, chapter 2).
Its length scales are chosen from a short list, one coordinate at a time, by the likelihood of the
losses. A finite list gives the same choice on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

LENGTHS = (0.25, 0.5, 1.0, 3.0)  # in fractions of a hyperparameter's range
OCTAVES = 8.0  # length scale over horizons: good settings move slowly as runs get longer
AMPLITUDE = 0.2  # of the log loss
CAP = 0.3  # log loss above the best at which a trial is simply bad
NOISE = 0.02  # standard deviation of a good run's log loss; worse runs spread more
NOISE_GROWTH = 0.15  # growth of that standard deviation with the log loss


@dataclass(frozen=True)
class Surface:
    """Expected log losses, relative to the best at each horizon."""

    _process: GaussianProcessRegressor
    _center: float

    def mean(self, points: np.ndarray, horizon: int) -> np.ndarray:
        """Expected log loss [n] of the points [n, d] in [0, 1]^d."""
        found = self._process.predict(_coordinates(points, np.full(len(points), horizon)))
        return self._center + np.asarray(found)

    def bounds(self, points: np.ndarray, horizon: int) -> np.ndarray:
        """The expected log loss [n] minus one standard deviation: low where little is known."""
        mean, deviation = self._process.predict(
            _coordinates(points, np.full(len(points), horizon)), return_std=True
        )
        return self._center + np.asarray(mean) - np.asarray(deviation)


def fit(points: np.ndarray, horizons: np.ndarray, losses: np.ndarray) -> Surface:
    """The surface through the final losses of trials.

    Args:
      points: [n, d], each hyperparameter as a fraction of its range.
      horizons: [n], steps of each trial.
      losses: [n], final losses; inf for a trial that failed.
    """
    heights = relative(horizons, losses)
    center = float(heights.mean())
    inputs, outputs = _coordinates(points, horizons), heights - center
    noise = (NOISE + NOISE_GROWTH * np.maximum(heights, 0)) ** 2
    lengths = [LENGTHS[1]] * points.shape[1]
    best = _process(inputs, outputs, noise, lengths)
    for i in range(len(lengths)):
        for length in LENGTHS:
            if length == LENGTHS[1]:
                continue
            tried = [*lengths[:i], length, *lengths[i + 1 :]]
            process = _process(inputs, outputs, noise, tried)
            if process.log_marginal_likelihood_value_ > best.log_marginal_likelihood_value_:
                best, lengths = process, tried
    return Surface(best, center)


def relative(horizons: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Log losses above the level of each horizon's good trials, at most CAP.

    The level is the mean of the best sixth, which moves less from search to search than the best.
    """
    heights = np.full(len(losses), CAP)
    for horizon in np.unique(horizons):
        here = (horizons == horizon) & np.isfinite(losses)
        if here.any():
            logs = np.log(losses[here])
            level = np.sort(logs)[: max(2, len(logs) // 6)].mean()
            heights[here] = np.minimum(logs - level, CAP)
    return heights


def _coordinates(points: np.ndarray, horizons: np.ndarray) -> np.ndarray:
    return np.column_stack([points, np.log2(np.asarray(horizons, float)) / OCTAVES])


def _process(
    inputs: np.ndarray, outputs: np.ndarray, noise: np.ndarray, lengths: list[float]
) -> GaussianProcessRegressor:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    kernel = ConstantKernel(AMPLITUDE**2) * RBF([*lengths, 1.0])
    return GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(inputs, outputs)
