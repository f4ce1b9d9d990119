"""What the protocol computes from losses; pure functions of numbers, which know nothing of files, trials or optimizers.

Losses are final probe losses, positive. Intervals are at 95 % unless said otherwise, and rest on Student's t over seeds, because a
bootstrap of five seeds covers too little (83.5 % in 4,000 simulations).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Bound = Literal["=", ">", "<"]
Interval = tuple[float, float]
MIN_SEEDS = 3  # fewer say nothing of their spread


@dataclass(frozen=True)
class Speedup:
    """Horizon at which the baseline reaches the candidate's loss, over the candidate's horizon.

    bound: "=" where it was interpolated; ">" or "<" where the loss lies beyond the baseline's ladder.
    interval: 95 % over paired seeds, where there are enough of them.
    """

    value: float
    bound: Bound = "="
    interval: Interval | None = None

    def __str__(self) -> str:
        over = f" [{self.interval[0]:.2f}, {self.interval[1]:.2f}]" if self.interval else ""
        return f"{'' if self.bound == '=' else self.bound}{self.value:.2f}x{over}"


def speedup(entrant_loss: float, horizon: int, baseline: Mapping[int, float]) -> Speedup | None:
    """Speed-up in patience of one rung: monotone interpolation of the baseline's log loss over log horizon.

    `baseline` maps horizons to the tuned baseline's mean final loss. Its curve is made monotone by the
    running minimum. Beyond the ladder the answer is a bound, never an extrapolation. None where there is no baseline.
    """
    if not baseline or not math.isfinite(entrant_loss):
        return None
    horizons = sorted(baseline)
    log_losses = np.minimum.accumulate(
        [math.log(baseline[h]) for h in horizons]
    )  # as below: np.log differs in the last bit
    target = math.log(entrant_loss)
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
    """Logarithm of each seed's own speed-up, against the baseline's curve of the same seed: the same data from the same start.

    `by_seed` holds the candidate's loss by seed, `curves` the baseline's by seed and horizon. None where a seed lies beyond its curve.
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
    """Student's interval of the mean of `values`; None for fewer than MIN_SEEDS of them."""
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
    """Interval of one rung's speed-up over paired seeds; None for fewer than MIN_SEEDS shared ones, or where one is censored."""
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
    """`speedup` of the mean loss, with the paired interval where it is no bound."""
    gain = speedup(mean_loss, horizon, baseline)
    return (
        replace(gain, interval=paired_interval(by_seed, horizon, curves))
        if gain and gain.bound == "="
        else gain
    )


def geometric_mean(
    gains: Sequence[Speedup], logs: Sequence[Mapping[int, float] | None] = ()
) -> Speedup | None:
    """Geometric mean of speed-ups over rungs, a bound where a rung's is; None where there are none, or bounds of both kinds.

    logs: each rung's `paired_logs`; the interval is over the seeds' own geometric means, where every rung has them all.
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
    """Rank of each entry, from 1, the same for all that cannot be told from the first of their group.

    `losses` holds each entry's log loss by seed, entries in the order of their means. An entry joins the group before it where the paired
    interval of its difference from that group's first includes zero, or where they share too few seeds to say; its rank is then that one's.
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
    """Expected lowest loss after k = 1, 2, ... n of the n trials in random order: exact, without replacement.

    E[min of k] = sum_i x_(i) C(n - i, k - 1) / C(n, k), x_(i) the i-th smallest. The unbiased form (Tang et al. 2020, arXiv:2004.13705) of
    Dodge et al. 2019, arXiv:1909.03004, whose draws with replacement promise too little. inf where k trials may all have diverged.
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
    """How much the choice of hyperparameters matters, from points that fill the space evenly.

    within: the share of the space whose loss is within 10 % of the best found.
    typical: the median loss over the best; inf where half of the space diverges.
    """

    within: float
    typical: float


def sensitivity(losses: Sequence[float]) -> Sensitivity | None:
    """Of the trials' losses, inf for those that did not end well; None for fewer than four trials or where none ended well."""
    if len(losses) < 4 or math.isinf(min(losses)):
        return None
    return Sensitivity(
        sum(loss <= 1.1 * min(losses) for loss in losses) / len(losses),
        float(np.median(losses)) / min(losses),
    )


def required_seeds(
    effect: float, spread: float, power: float = 0.8, most: int = 1000
) -> int | None:
    """The least number of paired seeds whose 95 % interval would exclude zero with probability `power`.

    effect, spread: mean and standard deviation of the paired differences, such as logarithms of speed-ups. From the noncentral t
    distribution. None where `most` are too few.
    """
    from scipy.stats import nct, t

    if spread == 0:
        return MIN_SEEDS if effect else None
    size = abs(effect) / spread

    def reached(n: int) -> float:
        threshold, shift = float(t.ppf(0.975, n - 1)), size * math.sqrt(n)
        found = float(nct.sf(threshold, n - 1, shift) + nct.cdf(-threshold, n - 1, shift))
        return (
            found if math.isfinite(found) else 1.0
        )  # the noncentral tail underflows where the effect is overwhelming

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
    """How many paired seeds would tell this rung's speed-up from 1, in words; None where those at hand do, or none can be compared."""
    logs = list((paired_logs(by_seed, horizon, curves) or {}).values())
    found = t_interval(logs)
    if found is None or not found[0] <= 0 <= found[1]:
        return None
    wanted = required_seeds(float(np.mean(logs)), float(np.std(logs, ddof=1)), most=most)
    return f"about {wanted}" if wanted else f"more than {most}"


def profile_ratios(gains: Mapping[str, Sequence[Speedup | None]]) -> dict[str, list[float]]:
    """For each candidate and problem, how many times as long as the best it takes; inf where it was not reached or not tried.

    A problem is a rung of a task; `gains` lists speed-ups problem by problem. The fraction of an candidate's ratios up to tau, over tau, is its
    performance profile (Dolan & More 2002; AlgoPerf, arXiv:2306.07179, section 4.5). A speed-up that is known only to be below its
    bound counts as not reached; one known only to be above counts as the bound.
    """
    counts = {len(values) for values in gains.values()}
    if len(counts) > 1:
        raise ValueError(
            f"candidates with {sorted(counts)} problems: list a None for each that was not tried"
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
    """Area under a performance profile from 1 to `most`, over `most` - 1: 1 for the best at every problem, 0 for none within `most`."""
    return (
        sum(max(0.0, most - ratio) for ratio in ratios) / (len(ratios) * (most - 1))
        if ratios
        else 0.0
    )
