"""A smooth surface through the losses of tuning trials: what a search expects of untried points.

A Gaussian process over the hyperparameters and the horizon (Rasmussen & Williams 2006, chapter 2).
Its length scales are chosen from a short list, one coordinate at a time, by the likelihood of the
losses. A finite list gives the same choice on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LENGTHS = (0.25, 0.5, 1.0, 3.0)  # in fractions of a hyperparameter's range
OCTAVES = 8.0  # length scale over horizons: good settings move slowly as runs get longer
AMPLITUDE = 0.2  # of the log loss
CAP = 0.3  # log loss above the best at which a trial is simply bad
NOISE = 0.02  # standard deviation of a good run's log loss; worse runs spread more
NOISE_GROWTH = 0.15  # growth of that standard deviation with the log loss


@dataclass(frozen=True, eq=False)
class Surface:
    """Expected log losses, relative to the best at each horizon."""

    _lengths: np.ndarray  # length scale of each coordinate
    _inputs: np.ndarray  # [n, coordinates] of the trials
    _factor: np.ndarray  # [n, n] Cholesky factor of their covariance
    _weights: np.ndarray  # [n]
    _center: float

    def mean(self, points: np.ndarray, horizon: int) -> np.ndarray:
        """Expected log loss [n] of the points [n, d] in [0, 1]^d."""
        return self._center + self._covariances(points, horizon) @ self._weights

    def bounds(self, points: np.ndarray, horizon: int) -> np.ndarray:
        """The expected log loss [n] minus one standard deviation: low where little is known."""
        from scipy.linalg import solve_triangular

        covariances = self._covariances(points, horizon)
        explained = solve_triangular(self._factor, covariances.T, lower=True, check_finite=False)
        variance = AMPLITUDE**2 - np.einsum("ij,ji->i", explained.T, explained)
        mean = self._center + covariances @ self._weights
        return mean - np.sqrt(np.maximum(variance, 0))

    def _covariances(self, points: np.ndarray, horizon: int) -> np.ndarray:
        """Those of points [n, d] at a horizon with the trials."""
        from scipy.spatial.distance import cdist

        inputs = _coordinates(points, np.full(len(points), horizon))
        squares = cdist(inputs / self._lengths, self._inputs / self._lengths, "sqeuclidean")
        return AMPLITUDE**2 * np.exp(-0.5 * squares)


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
    best, likelihood = _process(inputs, outputs, noise, lengths, center)
    for i in range(len(lengths)):
        for length in LENGTHS:
            if length == LENGTHS[1]:
                continue
            tried = [*lengths[:i], length, *lengths[i + 1 :]]
            process, likely = _process(inputs, outputs, noise, tried, center)
            if likely > likelihood:
                best, likelihood, lengths = process, likely, tried
    return best


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
    inputs: np.ndarray,
    outputs: np.ndarray,
    noise: np.ndarray,
    lengths: Sequence[float],
    center: float,
) -> tuple[Surface, float]:
    """A process with these length scales, and its log likelihood.

    The arithmetic is that of scikit-learn to the last bit, without its overhead.
    """
    from scipy.linalg import cho_solve, cholesky
    from scipy.spatial.distance import pdist, squareform

    scales = np.exp(np.log([*lengths, 1.0]))  # scikit-learn keeps the logarithms
    covariance = squareform(np.exp(-0.5 * pdist(inputs / scales, "sqeuclidean")))
    np.fill_diagonal(covariance, 1)
    covariance *= AMPLITUDE**2
    covariance[np.diag_indices_from(covariance)] += noise
    factor = cholesky(covariance, lower=True, check_finite=False, overwrite_a=True)
    weights = cho_solve((factor, True), outputs, check_finite=False)
    fit = -0.5 * np.einsum("ik,ik->", outputs[:, None], weights[:, None])
    likelihood = fit - np.log(np.diag(factor)).sum() - len(outputs) / 2 * np.log(2 * np.pi)
    return Surface(scales, inputs, factor, weights, center), float(likelihood)
