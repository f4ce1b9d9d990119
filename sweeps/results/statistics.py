"""Speed-ups, and what the trials of a search show; pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Bound = Literal["=", ">", "<"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Speedup:
    """How many times the steps the baseline needs for the same loss.

    Attributes:
      value: the speed-up, or its bound.
      bound: "=" if measured; ">" or "<" if the loss lies beyond the baseline's curve.
      interval: 95 % interval of a repetition of everything; None for a bound, for the baseline, and
        before there are final runs.
    """

    value: float
    bound: Bound = "="
    interval: Interval | None = None

    def __str__(self) -> str:
        over = f" [{self.interval[0]:.2f}, {self.interval[1]:.2f}]" if self.interval else ""
        return f"{'' if self.bound == '=' else self.bound}{self.value:.2f}x{over}"


def best_after(losses: Sequence[float]) -> list[float]:
    """Expected lowest loss after k = 1, 2, ... n of the n trials in random order.

    Exact, for draws without replacement: E[min of k] = sum_i x_(i) C(n - i, k - 1) / C(n, k), with
    x_(i) the i-th smallest loss. This is the unbiased form (Tang et al. 2020, arXiv:2004.13705) of
    Dodge et al. 2019, arXiv:1909.03004, whose draws with replacement overestimate the loss. The
    result is inf if all k trials may have diverged.
    """
    ordered, n = sorted(losses), len(losses)
    curve = []
    for k in range(1, n + 1):
        weights = [math.comb(n - i, k - 1) / math.comb(n, k) for i in range(1, n + 1)]
        curve.append(
            sum(weight * loss for weight, loss in zip(weights, ordered, strict=True) if weight)
        )
    return curve


@dataclass(frozen=True)
class Sensitivity:
    """How much the choice of hyperparameters matters, from trials spread evenly over the space.

    Attributes:
      within: share of the trials whose loss is within 10 % of the lowest.
      typical: median loss over the lowest loss; inf if half of the trials diverged.
    """

    within: float
    typical: float


def sensitivity(losses: Sequence[float]) -> Sensitivity | None:
    """The sensitivity shown by the final losses of trials, inf for each failed one.

    None for fewer than four trials, or if all failed.
    """
    if len(losses) < 4 or math.isinf(min(losses)):
        return None
    return Sensitivity(
        sum(loss <= 1.1 * min(losses) for loss in losses) / len(losses),
        float(np.median(losses)) / min(losses),
    )


def profile_ratios(gains: Mapping[str, Sequence[Speedup | None]]) -> dict[str, list[float]]:
    """For each candidate and problem, the steps it needs over those of the best candidate.

    A problem is one rung of one task. A candidate's performance profile is the fraction of its
    ratios that are at most tau, as a function of tau (Dolan & More 2002; AlgoPerf,
    arXiv:2306.07179, section 4.5). A speed-up with bound ">" counts as its bound. One with bound
    "<" counts as not reached. The ratio is inf if the loss was not reached or not tried.

    Args:
      gains: candidate -> its speed-up at each problem, None if not tried.

    Raises:
      ValueError: if candidates list different numbers of problems.
    """
    counts = {len(values) for values in gains.values()}
    if len(counts) > 1:
        raise ValueError(
            f"The candidates list {sorted(counts)} problems, which must be equal: "
            "list None for a problem that was not tried."
        )
    speeds = {
        name: [gain.value if gain and gain.bound != "<" else 0.0 for gain in values]
        for name, values in gains.items()
    }
    best = [max(column) for column in zip(*speeds.values(), strict=True)]
    return {
        name: [top / speed if speed else math.inf for top, speed in zip(best, row, strict=True)]
        for name, row in speeds.items()
    }


def profile_score(ratios: Sequence[float], most: float = 4.0) -> float:
    """Area under a performance profile from 1 to `most`, over `most` - 1.

    It is 1 for a candidate that is best at every problem, and 0 if no ratio is below `most`.
    """
    return (
        sum(max(0.0, most - ratio) for ratio in ratios) / (len(ratios) * (most - 1))
        if ratios
        else 0.0
    )
