"""How much final losses vary when everything is done again: seeds, and luck in tuning.

A rung's mean log loss differs from what endless tuning and seeds would give by two errors. Seeds:
each final run has its own, with the variance measured over the seeds of all rungs. Tuning: the
chosen setting is not the best one. That luck differs from rung to rung, and is partly common to all
rungs of one search. How far a ladder strays from a smooth curve shows the first part of it; its
size and its common share for the searches of this benchmark were measured by simulation
(sweeps/simulate.py, docs/protocol.md) and count like TUNING_FREEDOM degrees of freedom.

A ladder also strays if the speed-up depends on the length of the run, which a repetition would show
again. One search cannot separate the two, so a ladder that strays far gets a wide interval. It does
not widen those of others: what is typical is the median over ladders, which one hardly moves.

On average a search ends above the best loss too, the more so the fewer trials it has. The baseline
has more of them. That handicap is not credited to anybody, but an interval allows for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

TUNING_SD = 0.0095  # of a rung's log loss, for TUNING_TRIALS at the shortest rung
TUNING_TRIALS = 96
TUNING_POWER = 0.4  # the variance falls with this power of the number of trials
TUNING_COMMON = 0.38  # correlation of the luck of two rungs of one search
TUNING_FREEDOM = 20.0
LEAST_TUNING = 0.25 * TUNING_SD**2  # a variance below this is not believed
MEDIAN_EFFICIENCY = 0.55  # of the median over ladders of four degrees of freedom; the mean has 1
REGRET = 0.0203  # mean log loss above the best setting's, for TUNING_TRIALS
REGRET_POWER = 0.38  # it falls with this power of the number of trials
SEED_FREEDOM = 10.0  # weight of all optimizers' variance in that of one
SEED_SD = 0.019  # of one run's log loss, if nothing is measured


@dataclass(frozen=True)
class Noise:
    """Variances of log losses on one task.

    Attributes:
      seeds: optimizer -> variance of one final run.
      pooled: variance of one final run, over all optimizers.
      tuning: optimizer -> variance of a rung's luck in tuning, with TUNING_TRIALS trials.
      typical: that variance for an optimizer of which nothing is known.
    """

    seeds: Mapping[str, float]
    pooled: float
    tuning: Mapping[str, float]
    typical: float

    def of_seeds(self, name: str) -> float:
        return self.seeds.get(name, self.pooled)

    def of_tuning(self, name: str, trials: int) -> float:
        """The variance of tuning luck with this many trials at the shortest rung; 0 for none."""
        return self.tuning.get(name, self.typical) * _luck(trials) if trials else 0.0

    def covariance(self, name: str, trials: int, seeds: Sequence[float] | np.ndarray) -> np.ndarray:
        """Covariance [r, r] of an optimizer's mean log losses at its rungs.

        trials: its tuning trials at the shortest rung; seeds: number of final runs at each rung.
        """
        luck = self.of_tuning(name, trials)
        own = luck * (1 - TUNING_COMMON) + self.of_seeds(name) / np.array(seeds, float)
        return np.diag(own) + luck * TUNING_COMMON


@dataclass(frozen=True)
class Scatter:
    """How far the rungs of one ladder stray from a smooth curve.

    Attributes:
      squares: sum of the squared distances of their log losses.
      freedom: degrees of freedom of that sum.
      explained: variance of a rung's mean log loss that seeds explain, averaged over the rungs.
      trials: tuning trials at the shortest rung.
    """

    squares: float
    freedom: int
    explained: float
    trials: int

    def luck(self, variance: float) -> float:
        """The variance of a rung's luck, with TUNING_TRIALS, if rungs stray with this variance."""
        return (variance - self.explained) / _luck(self.trials) / (1 - TUNING_COMMON)


def _luck(trials: int) -> float:
    """The variance of luck in tuning, relative to that of TUNING_TRIALS."""
    return (TUNING_TRIALS / trials) ** TUNING_POWER


def handicap(trials: int, baseline_trials: int) -> float:
    """How much higher the mean log loss of a search is than that of the baseline's longer one.

    Searches shorter than TUNING_TRIALS get no more than one of that length: few trials are the
    user's choice. 0 if there is nothing to tune.
    """
    if not trials or not baseline_trials:
        return 0.0
    own, theirs = (
        REGRET * (TUNING_TRIALS / max(n, TUNING_TRIALS)) ** REGRET_POWER
        for n in (trials, baseline_trials)
    )
    return max(own - theirs, 0.0)


def estimate(
    log_losses: Mapping[str, Sequence[Sequence[float]]],
    scatter: Mapping[str, Scatter] | None = None,
) -> Noise:
    """The noise shown by a set of results.

    Args:
      log_losses: optimizer -> for each rung, the log losses of its final runs.
      scatter: optimizer -> that of its ladder; what is not tuned has no luck and does not count.
    """
    squares: dict[str, tuple[float, int]] = {}
    for name, rungs in log_losses.items():
        spread = [np.asarray(rung) - np.mean(rung) for rung in rungs if len(rung) > 1]
        freedom = sum(len(rung) - 1 for rung in spread)
        squares[name] = (float(sum((rung**2).sum() for rung in spread)), freedom)
    total, freedom = (sum(values) for values in zip((0.0, 0), *squares.values(), strict=True))
    pooled = (SEED_FREEDOM * SEED_SD**2 + total) / (SEED_FREEDOM + freedom)
    seeds = {
        name: (SEED_FREEDOM * pooled + own) / (SEED_FREEDOM + free)
        for name, (own, free) in squares.items()
    }
    tuned = {name: one for name, one in (scatter or {}).items() if one.trials and one.freedom}
    typical = _typical(list(tuned.values()))
    tuning = {
        name: max(
            (TUNING_FREEDOM * typical + one.freedom * one.luck(one.squares / one.freedom))
            / (TUNING_FREEDOM + one.freedom),
            LEAST_TUNING,
        )
        for name, one in tuned.items()
    }
    return Noise(seeds, pooled, tuning, typical)


def _typical(scatter: Sequence[Scatter]) -> float:
    """The variance of luck in tuning, from simulation and the median over ladders."""
    from scipy.stats import chi2

    if not scatter:
        return TUNING_SD**2
    # Half of all ladders stray by less than this multiple of their variance.
    found = [one.luck(one.squares / float(chi2.median(one.freedom))) for one in scatter]
    weight = MEDIAN_EFFICIENCY * sum(one.freedom for one in scatter)
    total = TUNING_FREEDOM * TUNING_SD**2 + weight * float(np.median(found))
    return max(total / (TUNING_FREEDOM + weight), LEAST_TUNING)


def required_seeds(effect: float, fixed: float, by_seed: float, quantile: float) -> int | None:
    """The least number of final runs with which an effect exceeds its margin of error.

    None if no number of seeds is enough, because luck in tuning is too large.

    Args:
      effect: log speed-up.
      fixed: part of its variance that more seeds do not reduce.
      by_seed: the other part, times the number of seeds.
      quantile: the margin over the standard deviation.
    """
    left = (effect / quantile) ** 2 - fixed
    return math.ceil(by_seed / left) if left > 0 else None
