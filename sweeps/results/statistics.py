"""The statistics of the protocol: pure functions of numbers, without files, trials or optimizers.

Losses are final probe losses and positive. Intervals are at 95 % unless stated otherwise. They use
Student's t over seeds, because a bootstrap of five seeds covers too little (83.5 % in 4,000
simulations).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Bound = Literal["=", ">", "<"]
Interval = tuple[float, float]
MIN_SEEDS = 3  # fewer do not show how far seeds spread


@dataclass(frozen=True)
class Speedup:
    """The horizon at which the baseline reaches the candidate's loss, over the candidate's horizon.

    Attributes:
      value: the speed-up, or its bound.
      bound: "=" if interpolated; ">" or "<" if the loss lies beyond the baseline's ladder.
      interval: 95 % interval over paired seeds; None if there are too few.
    """

    value: float
    bound: Bound = "="
    interval: Interval | None = None

    def __str__(self) -> str:
        over = f" [{self.interval[0]:.2f}, {self.interval[1]:.2f}]" if self.interval else ""
        return f"{'' if self.bound == '=' else self.bound}{self.value:.2f}x{over}"


def speedup(loss: float, horizon: int, baseline: Mapping[int, float]) -> Speedup | None:
    """Speed-up in patience at one rung; None without a baseline or for a loss that is not finite.

    The baseline's log loss is interpolated over log horizon, after a running minimum has made its
    curve monotone. Beyond the ladder the result is a bound, never an extrapolation.

    Args:
      loss: the candidate's mean final loss.
      horizon: the candidate's horizon in steps.
      baseline: horizon -> mean final loss of the tuned baseline.
    """
    if not baseline or not math.isfinite(loss):
        return None
    horizons = sorted(baseline)
    # math.log, as for `target`: np.log differs in the last bit.
    log_losses = np.minimum.accumulate([math.log(baseline[h]) for h in horizons])
    target = math.log(loss)
    if target > log_losses[0]:
        return Speedup(horizons[0] / horizon, "<")
    if target < log_losses[-1]:
        return Speedup(horizons[-1] / horizon, ">")
    reached = int(np.argmax(log_losses <= target))
    if reached == 0 or log_losses[reached] == target:
        return Speedup(horizons[reached] / horizon)
    fraction = (log_losses[reached - 1] - target) / (log_losses[reached - 1] - log_losses[reached])
    low, high = math.log(horizons[reached - 1]), math.log(horizons[reached])
    return Speedup(math.exp(low + fraction * (high - low)) / horizon)


def paired_logs(
    by_seed: Mapping[int, float], horizon: int, curves: Mapping[int, Mapping[int, float]]
) -> dict[int, float] | None:
    """Each seed's log speed-up over the baseline's curve of the same seed: same data, same start.

    None if a seed's loss lies beyond its curve.

    Args:
      by_seed: seed -> final loss of the candidate.
      horizon: the candidate's horizon in steps.
      curves: seed -> horizon -> final loss of the baseline.
    """
    gains = {
        seed: speedup(value, horizon, curves[seed])
        for seed, value in sorted(by_seed.items())
        if seed in curves
    }
    if any(gain is None or gain.bound != "=" for gain in gains.values()):
        return None
    return {seed: math.log(gain.value) for seed, gain in gains.items() if gain}


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean; None for fewer than MIN_SEEDS values."""
    from scipy.stats import t

    if len(values) < MIN_SEEDS:
        return None
    reach = (
        float(t.ppf(0.975, len(values) - 1))
        * float(np.std(values, ddof=1))
        / math.sqrt(len(values))
    )
    return float(np.mean(values)) - reach, float(np.mean(values)) + reach


def paired_interval(
    by_seed: Mapping[int, float], horizon: int, curves: Mapping[int, Mapping[int, float]]
) -> Interval | None:
    """Interval of one rung's speed-up over paired seeds, with the arguments of `paired_logs`.

    None if the two share fewer than MIN_SEEDS seeds, or if a seed's speed-up is only a bound.
    """
    logs = paired_logs(by_seed, horizon, curves)
    found = t_interval(list(logs.values())) if logs else None
    return (math.exp(found[0]), math.exp(found[1])) if found else None


def with_interval(
    mean_loss: float,
    by_seed: Mapping[int, float],
    horizon: int,
    baseline: Mapping[int, float],
    curves: Mapping[int, Mapping[int, float]],
) -> Speedup | None:
    """`speedup` of the mean loss, with its paired interval unless it is a bound."""
    gain = speedup(mean_loss, horizon, baseline)
    return (
        replace(gain, interval=paired_interval(by_seed, horizon, curves))
        if gain and gain.bound == "="
        else gain
    )


def geometric_mean(
    gains: Sequence[Speedup], logs: Sequence[Mapping[int, float] | None] = ()
) -> Speedup | None:
    """Geometric mean of speed-ups over rungs.

    It is a bound if a rung's speed-up is. None without speed-ups, or if some are upper and some
    lower bounds.

    Args:
      gains: one speed-up for each rung.
      logs: `paired_logs` of each rung. The interval is over the seeds' own geometric means, if all
        rungs have the same seeds.
    """
    bounds: list[Bound] = sorted({gain.bound for gain in gains if gain.bound != "="})
    if not gains or len(bounds) > 1:
        return None
    mean = Speedup(
        math.exp(sum(math.log(gain.value) for gain in gains) / len(gains)),
        bounds[0] if bounds else "=",
    )
    whole = [rung for rung in logs if rung]
    if bounds or len(whole) < len(gains) or len({frozenset(rung) for rung in whole}) > 1:
        return mean
    found = t_interval([float(np.mean([rung[seed] for rung in whole])) for seed in whole[0]])
    return replace(mean, interval=(math.exp(found[0]), math.exp(found[1]))) if found else mean


def tie_groups(losses: Sequence[Mapping[int, float]]) -> list[int]:
    """The rank of each entry, from 1; entries that are statistically tied share a rank.

    An entry is tied with the first entry of the group before it if the paired interval of their
    difference includes zero, or if they share too few seeds to compare.

    Args:
      losses: seed -> log loss, for each entry in ascending order of mean log loss.
    """
    ranks: list[int] = []
    for i, mine in enumerate(losses):
        first = ranks[-1] - 1 if ranks else 0
        shared = sorted(set(mine) & set(losses[first]))
        found = t_interval([mine[seed] - losses[first][seed] for seed in shared])
        tied = bool(ranks) and (found is None or found[0] <= 0 <= found[1])
        ranks.append(ranks[-1] if tied else i + 1)
    return ranks


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


def required_seeds(
    effect: float, spread: float, power: float = 0.8, most: int = 1000
) -> int | None:
    """The least number of paired seeds whose 95 % interval excludes zero with probability `power`.

    Computed from the noncentral t distribution. None if `most` seeds are too few.

    Args:
      effect: mean of the paired differences, such as log speed-ups.
      spread: their standard deviation.
      power: required probability.
      most: largest number of seeds considered.
    """
    from scipy.stats import nct, t

    if spread == 0:
        return MIN_SEEDS if effect else None
    size = abs(effect) / spread

    def reached(n: int) -> float:
        threshold, shift = float(t.ppf(0.975, n - 1)), size * math.sqrt(n)
        found = float(nct.sf(threshold, n - 1, shift) + nct.cdf(-threshold, n - 1, shift))
        return found if math.isfinite(found) else 1.0  # nct underflows for an overwhelming effect

    low, high = MIN_SEEDS, most
    if reached(high) < power:
        return None
    while low < high:  # the power rises with n
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= power else (middle + 1, high)
    return low


def seeds_wanted(
    by_seed: Mapping[int, float],
    horizon: int,
    curves: Mapping[int, Mapping[int, float]],
    most: int = 1000,
) -> str | None:
    """How many paired seeds it takes to separate this rung's speed-up from 1, in words.

    None if the present seeds suffice, or if there is no paired interval.
    """
    logs = list((paired_logs(by_seed, horizon, curves) or {}).values())
    found = t_interval(logs)
    if found is None or not found[0] <= 0 <= found[1]:
        return None
    wanted = required_seeds(float(np.mean(logs)), float(np.std(logs, ddof=1)), most=most)
    return f"about {wanted}" if wanted else f"more than {most}"


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
