"""What a winner would have gained by another value of one hyperparameter; pure statistics.

The losses are final probe losses of the winner and of its neighbours, on the same seeds. A run's
noise is as large as the gains looked for, so the best of many neighbours gains by luck alone. What
is done against that, from the raw figures to those that are reported:

- Noise is estimated from all runs of a horizon together: log loss = setting + seed + noise.
- A parabola through a hyperparameter's two neighbours and the winner says where between them the
  loss is lowest and what that gains. It takes all three points, so it is less noisy than the best
  neighbour.
- The lower end of an interval holds for all hyperparameters and all points of their parabolas at
  once (Scheffé's band, with Bonferroni over hyperparameters and horizons). The upper end needs no
  correction: the truly best point is a fixed one, and the largest upper end is at least its own.
- The largest gain of all is estimated by leaving one seed out: the other seeds choose the point,
  the seed left out says what it gains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.planning.neighbours import Neighbour

MIN_SEEDS = 3  # fewer do not show how far seeds spread
FAR = math.log(1.25)  # a neighbour above the winner by more is worse, and too far for the noise
CURVED = math.log(1.05)  # above this a parabola does not fit: the step to instability is a cliff
_GRID = 40


@dataclass(frozen=True)
class Arm:
    """A neighbour of the winner, trained.

    Attributes:
      neighbour: the value tried.
      losses: seed -> final probe loss; inf for a run that failed.
    """

    neighbour: Neighbour
    losses: Mapping[int, float]


@dataclass(frozen=True)
class Factor:
    """One hyperparameter of the winner of one horizon, with its neighbours.

    Attributes:
      horizon: the winner's horizon.
      name: the hyperparameter.
      continuous: whether there are values between the neighbours.
      winner: seed -> the winner's final probe loss.
      arms: its neighbours.
    """

    horizon: int
    name: str
    continuous: bool
    winner: Mapping[int, float]
    arms: tuple[Arm, ...]


@dataclass(frozen=True)
class Gain:
    """A gain as a fraction of the loss: 0.01 means a loss 1 % lower.

    Attributes:
      value: the estimate.
      low, high: its 95 % interval.
    """

    value: float
    low: float
    high: float

    @property
    def percent(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Finding:
    """What one hyperparameter would have gained.

    Attributes:
      factor: the hyperparameter and its runs.
      neighbours: gain of each neighbour, each with an interval of its own; None for one that failed
        or is far worse.
      best: the largest gain at the neighbours or on the parabola between them, 0 for the winner's
        own value; None if no neighbour can be compared.
      offset: where that is, as a fraction of the range from the winner's value.
    """

    factor: Factor
    neighbours: tuple[Gain | None, ...]
    best: Gain | None
    offset: float = 0.0


@dataclass(frozen=True)
class _Model:
    """A factor whose neighbours can be compared, and the points at which its gain is computed.

    Attributes:
      finding: index of the factor.
      logs_AS: log loss of the winner, then of each neighbour that counts, by seed.
      offsets_P: the points.
      weights_PA: the gain at each point is the sum of these weights times the mean log losses.
    """

    finding: int
    logs_AS: np.ndarray
    offsets_P: np.ndarray
    weights_PA: np.ndarray

    @property
    def gains_PS(self) -> np.ndarray:
        return self.weights_PA @ self.logs_AS


def analyse(factors: Sequence[Factor]) -> tuple[list[Finding], Gain | None]:
    """What each factor would have gained, and the largest gain of all; None without any.

    All factors of a horizon have the winner's runs in common, and all horizons the seeds.

    Raises:
      ValueError: if there are fewer than MIN_SEEDS seeds.
    """
    if any(len(factor.winner) < MIN_SEEDS for factor in factors):
        raise ValueError(f"fewer than {MIN_SEEDS} seeds show no noise")
    models = [model for i, factor in enumerate(factors) if (model := _model(i, factor))]
    noise = {
        h: _noise([m for m in models if factors[m.finding].horizon == h])
        for h in {factors[m.finding].horizon for m in models}
    }
    findings = [Finding(factor, (None,) * len(factor.arms), None) for factor in factors]
    for model in models:
        factor = factors[model.finding]
        findings[model.finding] = _finding(factor, model, noise[factor.horizon], len(models))
    best = [finding.best for finding in findings if finding.best]
    if not best:
        return findings, None
    value = max(0.0, _as_fraction(_left_out(models)))
    low, high = max(gain.low for gain in best), max(gain.high for gain in best)
    return findings, Gain(min(max(value, low), high), low, high)


def _counts(factor: Factor, arm: Arm) -> bool:
    """Whether the neighbour's losses are comparable with the winner's."""
    excess = np.mean(np.log([arm.losses[s] / factor.winner[s] for s in factor.winner]))
    return bool(excess <= FAR)


def _model(index: int, factor: Factor) -> _Model | None:
    arms = [arm for arm in factor.arms if _counts(factor, arm)]
    if not arms:
        return None
    seeds = sorted(factor.winner)
    logs_AS = np.log(
        [[losses[s] for s in seeds] for losses in (factor.winner, *(a.losses for a in arms))]
    )
    at_A = np.array([0.0, *(arm.neighbour.offset for arm in arms)])
    excess = logs_AS[1:].mean(1) - logs_AS[0].mean()
    points = at_A
    if factor.continuous and len(arms) == 2 and excess.max() <= CURVED:
        points = np.concatenate([at_A, np.linspace(at_A.min(), at_A.max(), _GRID + 1)])
    # Lagrange's polynomial through the trained points; at a trained point it is that point.
    polynomial_PA = np.stack(
        [
            np.prod([(points - other) / (at - other) for other in at_A if other != at], axis=0)
            if len(at_A) > 1
            else np.ones_like(points)
            for at in at_A
        ],
        axis=1,
    )
    winner_A = np.eye(len(at_A))[0]
    return _Model(index, logs_AS, points, winner_A - polynomial_PA)


def _noise(models: Sequence[_Model]) -> tuple[float, int]:
    """Standard deviation of a run's log loss at one horizon, without what a seed does to all
    settings alike, and its degrees of freedom."""
    settings_AS = np.concatenate([models[0].logs_AS[:1], *(m.logs_AS[1:] for m in models)])
    rest = settings_AS - settings_AS.mean(1, keepdims=True)
    rest = rest - rest.mean(0)
    freedom = (settings_AS.shape[0] - 1) * (settings_AS.shape[1] - 1)
    return math.sqrt(float((rest**2).sum()) / freedom), freedom


def _finding(factor: Factor, model: _Model, noise: tuple[float, int], looks: int) -> Finding:
    from scipy.stats import f, t

    sigma, freedom = noise
    arms, seeds = model.logs_AS.shape[0] - 1, model.logs_AS.shape[1]
    gains_P = model.gains_PS.mean(1)
    errors_P = sigma * np.sqrt((model.weights_PA**2).sum(1) / seeds)
    alone = float(t.ppf(0.975, freedom))
    band = math.sqrt(arms * float(f.ppf(1 - 0.05 / looks, arms, freedom)))
    own_A = iter(
        _gain(*(gain + sign * alone * error for sign in (0, -1, 1)))
        for gain, error in zip(gains_P[1 : arms + 1], errors_P[1 : arms + 1], strict=True)
    )
    neighbours = tuple(next(own_A) if _counts(factor, arm) else None for arm in factor.arms)
    top = int(np.argmax(gains_P))
    best = _gain(
        gains_P[top], (gains_P - band * errors_P).max(), (gains_P + alone * errors_P).max()
    )
    return Finding(factor, neighbours, best, float(model.offsets_P[top]))


def _gain(value: float, low: float, high: float) -> Gain:
    return Gain(*map(_as_fraction, (value, low, high)))


def _as_fraction(log_gain: float) -> float:
    return -math.expm1(-float(log_gain))


def _left_out(models: Sequence[_Model]) -> float:
    """The log gain of the point that all seeds but one choose, on that seed; the mean over seeds.

    It is the winner's own value, which gains nothing, where the others see no gain.
    """
    gains_NS = np.concatenate([model.gains_PS for model in models])
    n = gains_NS.shape[1]
    chosen_S = ((gains_NS.sum(1, keepdims=True) - gains_NS) / (n - 1)).argmax(0)
    return float(gains_NS[chosen_S, np.arange(n)].mean())
