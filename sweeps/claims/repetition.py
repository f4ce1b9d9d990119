"""Whether doing everything again, search and final runs, gives what the intervals allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distill_bench.tasks.variation import Variation
from sweeps.board import entries
from sweeps.board.entries import BASELINE
from sweeps.claims.experiments import TASK, Runs, Size, how
from sweeps.claims.finding import Finding, Verdict
from sweeps.claims.measures import rows
from sweeps.claims.named import NAMED
from sweeps.results.comparison import Comparison
from sweeps.results.statistics import Interval, Speedup

# A search tries other settings if its horizons are others, so each repetition has a step more.
LADDERS = ((126, 252, 504, 1008), (127, 254, 508, 1016))
LONGEST = LADDERS[-1][-1]
REPEATED: tuple[str, ...] = tuple(NAMED["repeated"])


@dataclass(frozen=True)
class Spread:
    """How much log speed-ups vary over repetitions.

    Attributes:
      measured: standard deviation over the repetitions of each optimizer.
      interval: its 95 % interval, if they are normally distributed.
      assumed: standard deviation that the leaderboard's intervals assume.
    """

    measured: float
    interval: Interval
    assumed: float


def spread(speedups: Sequence[Sequence[float]], assumed: Sequence[float]) -> Spread:
    """The spread of speed-ups over the repetitions of each of several optimizers.

    assumed: for each optimizer, the standard deviation of the log speed-up.
    """
    from scipy.stats import chi2

    logs = [np.log(values) for values in speedups]
    freedom = sum(len(values) - 1 for values in logs)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in logs)
    low, high = (math.sqrt(squares / chi2.ppf(level, freedom)) for level in (0.975, 0.025))
    together = math.sqrt(float(np.mean(np.square(assumed))))
    return Spread(math.sqrt(squares / freedom), (low, high), together)


def repetition(runs: Runs) -> Finding:
    """Optimizers of the leaderboard, tuned and trained again."""
    board, _ = entries.load(names=[TASK])
    base = [row for one in board if one.study.optimizer == BASELINE for row in rows(one)]
    others = [row for one in board if one.study.optimizer != BASELINE for row in rows(one)]
    first = Comparison(BASELINE, [*base, *(row for row in others if row.horizon <= LONGEST)])
    chosen = REPEATED[:2] if runs.quick else REPEATED
    again, studies = [], []
    for ladder in LADDERS:
        studies = runs(f"repetition/{ladder[0]}", chosen, Size(ladder, 96, 5), Variation())
        again.append(Comparison(BASELINE, [*base, *(row for one in studies for row in rows(one))]))
    speedups = {name: [one.overall(name) for one in (first, *again)] for name in chosen}
    deviations = {name: first.own_deviation(name) for name in chosen}
    return _finding(runs, speedups, deviations, studies[0].environment)


def _finding(
    runs: Runs,
    speedups: Mapping[str, Sequence[Speedup | None]],
    deviations: Mapping[str, float],
    environment: Mapping[str, object],
) -> Finding:
    table = [["optimizer", "first", "again", "and again", "standard deviation assumed"]]
    found: dict[str, list[Speedup]] = {}
    for name, every in speedups.items():
        shown = [str(one) if i == 0 else f"{one.value:.2f}x" for i, one in enumerate(every) if one]
        table.append([name, *shown, f"{deviations[name]:.1%}"])
        whole = [one for one in every if one and one.bound == "="]
        if len(whole) == len(every):
            found[name] = whole
    inside, count = 0, 0
    for one, *rest in found.values():
        low, high = one.interval or (-math.inf, math.inf)
        inside += sum(low <= other.value <= high for other in rest)
        count += len(rest)
    verdict: Verdict = "not known yet"
    text = "No speed-up could be measured."
    if found:
        values = [[one.value for one in every] for every in found.values()]
        one = spread(values, [deviations[name] for name in found])
        verdict = (
            "holds"
            if one.measured <= one.assumed
            else "holds in part"
            if one.interval[0] <= one.assumed
            else "does not hold here"
        )
        low, high = one.interval
        text = (
            f"{len(found)} optimizers were searched and trained {len(LADDERS)} more times, to "
            f"{LONGEST:,} steps. {inside} of {count} new speed-ups lie in the first interval. The "
            f"logarithms of an optimizer's speed-ups have a standard deviation of "
            f"{one.measured:.1%} [{low:.1%}, {high:.1%}], where the intervals assume "
            f"{one.assumed:.1%}."
        )
    return Finding(
        "repetition",
        "An interval says what doing everything again would give.",
        verdict,
        text,
        table if found else (),
        rule="the standard deviation is at most the assumed one",
        how=how(
            runs,
            "repetition",
            Size(LADDERS[0], 96, 5),
            f"{', '.join(speedups)}, set against the leaderboard's {BASELINE}, which is not "
            "repeated; first: the leaderboard's entries up to 1,000 steps",
        ),
        environment=environment,
        seconds=sum(runs.seconds(f"repetition/{ladder[0]}") for ladder in LADDERS),
    )
