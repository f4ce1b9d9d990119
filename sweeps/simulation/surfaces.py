"""Loss surfaces like those of real optimizers: what tuning would see, with a known optimum.

A surface is fitted to the tuning trials of one study: the log final loss over the hyperparameters,
as fractions of their ranges, and over the logarithm of the horizon. There are two kinds:

- smooth: the posterior of a Gaussian process with a squared-exponential kernel, whose noise is
  estimated too. It is as simple as the trials allow: the mean, plus a standard deviation. Without
  that, the surface of one optimizer's trials was lowest in a corner half a range away from all of
  them, 5 % below the best; trained there, losses were 19 to 36 % above the best (docs/protocol.md).
- rough: a draw from the posterior of a Matern-3/2 process, whose noise is that of a run. It has all
  the structure that the trials allow, and each draw has another one.

Draws are made of random features and conditioned pathwise (Wilson et al. 2020, arXiv:2002.09309),
so that they can be evaluated anywhere.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from optimizers.contract.domains import Choice, Domain
from sweeps.planning import sampling
from sweeps.planning.study import TUNING_SEED, Result, Study

Kind = Literal["smooth", "rough"]
Space = tuple[tuple[str, Domain], ...]

CAP = 0.7  # log loss above the best of a horizon at which a trial is simply bad
BEST = 5  # number of lowest losses of a horizon whose mean is its level
EACH = 5  # least number of trials for each length scale
MOST = 1000  # trials to which length scales are fitted; all trials shape the surface
LENGTHS, OCTAVES = (0.1, 20.0), (1.0, 40.0)  # bounds of length scales: of a range, of doublings
ROUGH_NOISE = 0.02  # standard deviation of a run's log loss, for rough surfaces
FEATURES = 1024  # of a draw
POOL, KEPT, WIDTHS = 8192, 32, (0.1, 0.05, 0.02, 0.01)  # of the search for the lowest point


@dataclass(frozen=True, eq=False)
class Trials:
    """The tuning trials of one study that ended well.

    Attributes:
      optimizer: its name.
      space: (name, domain) of each searched hyperparameter.
      points: [n, d] hyperparameters as fractions of their ranges.
      horizons: [n] steps of each trial.
      heights: [n] log final losses above the level of the horizon, at most CAP.
    """

    optimizer: str
    space: Space
    points: np.ndarray
    horizons: np.ndarray
    heights: np.ndarray

    @functools.cached_property
    def digest(self) -> str:
        """Identifies the trials."""
        found = hashlib.sha256(repr((self.optimizer, self.space)).encode())
        for values in (self.points, self.horizons, self.heights):
            found.update(np.ascontiguousarray(values, float).tobytes())
        return found.hexdigest()[:12]


@dataclass(frozen=True)
class Fit:
    """The kernel that fits some trials best.

    Attributes:
      lengths: length scale of each hyperparameter, in fractions of its range, and of the horizon,
        in doublings.
      amplitude: standard deviation of the process, in log loss.
      noise: standard deviation of a trial's log loss around it.
    """

    lengths: tuple[float, ...]
    amplitude: float
    noise: float


@dataclass(frozen=True, eq=False)
class Surface:
    """A log loss over hyperparameters and horizons.

    Attributes:
      name: identifies it.
      kind: how it was made.
      space: (name, domain) of each hyperparameter.
      fit: its kernel.
    """

    name: str
    kind: Kind
    space: Space
    fit: Fit
    _center: float
    _inputs: np.ndarray  # [n, d + 1] of the trials
    _weights: np.ndarray  # [n]
    _factor: np.ndarray  # [n, n], lower triangle: Cholesky factor of the trials' covariance
    _frequencies: np.ndarray  # [d + 1, features]; none for a smooth surface
    _phases: np.ndarray  # [features]
    _factors: np.ndarray  # [features]

    def excess(self, points: np.ndarray, horizon: int) -> np.ndarray:
        """Log loss [n] above the lowest at this horizon.

        Beyond the horizons of its trials, the surface is that of the nearest one.

        Args:
          points: [n, d] hyperparameters as fractions of their ranges.
          horizon: steps of a run.
        """
        octaves = self._inputs[:, -1]
        octave = float(np.clip(np.log2(horizon), octaves.min(), octaves.max()))
        return np.maximum(self.height(points, octave) - _lowest(self, octave), 0)

    def height(self, points: np.ndarray, octave: float) -> np.ndarray:
        """Log loss [n] above the level of a horizon, given by its binary logarithm."""
        inputs = np.column_stack([points, np.full(len(points), octave)])
        covariances = _kernel(self.kind, self.fit, inputs, self._inputs)
        found = self._center + covariances @ self._weights
        if self.kind == "smooth":
            return found + self._doubt(covariances)
        return found + self._prior(inputs)

    def _doubt(self, covariances: np.ndarray) -> np.ndarray:
        """Standard deviation [m] of the process at points with these covariances [m, n]."""
        from scipy.linalg import solve_triangular

        known = solve_triangular(self._factor, covariances.T, lower=True)
        return np.sqrt(np.maximum(self.fit.amplitude**2 - (known**2).sum(0), 0))

    def _prior(self, inputs: np.ndarray) -> np.ndarray:
        return np.cos(inputs @ self._frequencies + self._phases) @ self._factors


def trials_of(study: Study, results: Sequence[Result]) -> Trials | None:
    """The trials of a study; None if they are too few for a surface."""
    space = {name: sampling.parse_domain(domain) for name, domain in study.space.items()}
    good = [r for r in results if r.trial.seed == TUNING_SEED and r.final]
    if not space or len(good) < EACH * (len(space) + 1):
        return None
    horizons = np.array([r.trial.horizon for r in good])
    heights = np.log([r.final["probe_loss"] for r in good if r.final])
    for horizon in np.unique(horizons):
        here = horizons == horizon
        lowest = np.sort(heights[here])[: max(1, min(BEST, here.sum() // 3))]
        heights[here] = np.minimum(heights[here] - lowest.mean(), CAP)
    points = np.array([sampling.fractions(space, r.trial.hparams) for r in good])
    return Trials(study.optimizer, tuple(space.items()), points, horizons, heights)


def fit(trials: Trials, kind: Kind, most: int = MOST) -> Fit:
    """The kernel of the highest likelihood, by at most `most` trials, evenly chosen."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel

    order = np.lexsort((*trials.points.T, trials.horizons))
    some = order[np.unique(np.linspace(0, len(order) - 1, most).round().astype(int))]
    dimensions = trials.points.shape[1]
    start = [0.5] * dimensions + [4.0]
    bounds = [LENGTHS] * dimensions + [OCTAVES]
    if kind == "smooth":
        kernel = RBF(start, bounds)
        noise = WhiteKernel(0.03**2, (1e-5, 1e-1))
    else:
        kernel = Matern(start, bounds, nu=1.5)
        noise = WhiteKernel(ROUGH_NOISE**2, "fixed")
    process = GaussianProcessRegressor(ConstantKernel(0.1, (1e-3, 1e1)) * kernel + noise)
    heights = trials.heights[some]
    with warnings.catch_warnings():
        # A length scale at its bound is an answer: the hyperparameter does not matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(_inputs(trials)[some], heights - heights.mean())
    best: Any = process.kernel_
    found = np.exp(best.theta)
    level = found[-1] if kind == "smooth" else ROUGH_NOISE**2
    lengths = tuple(map(float, found[1 : dimensions + 2]))
    return Fit(lengths, float(np.sqrt(found[0])), float(np.sqrt(level)))


def surface(trials: Trials, kind: Kind, kernel: Fit, draw: int = 0) -> Surface:
    """The smooth surface of the trials, or a rough one.

    Args:
      trials: what it goes through.
      kind: smooth or rough.
      kernel: from `fit` of the same trials and kind.
      draw: which of the rough surfaces.
    """
    from scipy.linalg import cho_solve

    inputs, center = _inputs(trials), float(trials.heights.mean())
    rng = np.random.default_rng([int(trials.digest, 16), draw])
    features = FEATURES if kind == "rough" else 0
    # The spectrum of a Matern-3/2 kernel is Student's t with three degrees of freedom.
    tails = np.sqrt(rng.gamma(1.5, 1 / 1.5, features))
    frequencies = rng.normal(size=(inputs.shape[1], features)) / tails
    found = Surface(
        f"{trials.optimizer} {trials.digest} {kind} {draw}",
        kind,
        trials.space,
        kernel,
        center,
        inputs,
        np.zeros(len(inputs)),
        np.zeros((0, 0)),
        frequencies / np.array(kernel.lengths)[:, None],
        rng.uniform(0, 2 * np.pi, features),
        rng.normal(size=features) * kernel.amplitude * np.sqrt(2 / max(features, 1)),
    )
    noise = kernel.noise * rng.normal(size=len(inputs)) if features else 0
    gaps = trials.heights - center - found._prior(inputs) - noise
    covariance = _kernel(kind, kernel, inputs, inputs) + kernel.noise**2 * np.eye(len(inputs))
    factor = np.linalg.cholesky(covariance)
    return replace(found, _weights=cho_solve((factor, True), gaps), _factor=factor)


def _inputs(trials: Trials) -> np.ndarray:
    return np.column_stack([trials.points, np.log2(trials.horizons)])


def _kernel(kind: Kind, kernel: Fit, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Covariances [n, m] of the process at inputs [n, d + 1] and [m, d + 1]."""
    from scipy.spatial.distance import cdist

    squares = cdist(some / kernel.lengths, others / kernel.lengths, "sqeuclidean")
    if kind == "smooth":
        return kernel.amplitude**2 * np.exp(-0.5 * squares)
    scaled = np.sqrt(3 * squares)
    return kernel.amplitude**2 * (1 + scaled) * np.exp(-scaled)


@functools.lru_cache(maxsize=4096)
def _lowest(surface: Surface, octave: float) -> float:
    """The lowest height at a horizon, found by a search that narrows around the best points."""
    rng = np.random.default_rng(0)
    points = sampling.spread(len(surface.space), POOL, "the lowest point of a surface")
    best = np.inf
    for width in (*WIDTHS, 0.0):
        points = _snapped(surface.space, points)
        heights = surface.height(points, octave)
        best = min(best, float(heights.min()))
        near = np.repeat(points[np.argsort(heights)[:KEPT]], POOL // KEPT // 4, 0)
        points = np.clip(near + width * rng.normal(size=near.shape), 0, 1)
    return best


def _snapped(space: Space, points: np.ndarray) -> np.ndarray:
    """The points with each choice moved to the nearest that a search can try."""
    moved = points.copy()
    for i, (_, domain) in enumerate(space):
        if isinstance(domain, Choice):
            moved[:, i] = [domain.fraction(domain.at(u)) for u in points[:, i]]
    return moved
