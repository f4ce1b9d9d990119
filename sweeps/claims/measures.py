"""Ratios of final metrics with intervals, from the final runs of a study; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.planning.study import TUNING_SEED, Result


def at_end(results: Iterable[Result], horizon: int, metric: str) -> list[float]:
    """A metric at the end of the final runs of one horizon that ended well, by seed."""
    runs = [r for r in results if r.trial.horizon == horizon and r.trial.seed != TUNING_SEED]
    runs.sort(key=lambda run: run.trial.seed)
    return [run.final[metric] for run in runs if run.final]


@dataclass(frozen=True)
class Ratio:
    """A ratio of geometric means over seeds, with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ratio(over: Sequence[float], under: Sequence[float]) -> Ratio:
    """The ratio of two groups' geometric means, by Welch's t on logarithms.

    Raises:
      ValueError: if a group has fewer than two values.
    """
    from scipy.stats import ttest_ind

    if min(len(over), len(under)) < 2:
        raise ValueError(f"groups of {len(over)} and {len(under)} runs: an interval needs two.")
    a, b = np.log(over), np.log(under)
    found = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return Ratio(math.exp(a.mean() - b.mean()), math.exp(found.low), math.exp(found.high))


def geometric(values: Sequence[float]) -> float:
    return math.exp(float(np.mean(np.log(values))))
