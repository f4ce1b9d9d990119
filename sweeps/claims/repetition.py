"""Whether doing everything again, search and final runs, gives what the intervals allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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

# A search tries other settings if its horizons are others, so a run has a step or some more.
SIZE = Size((126, 252, 504, 1008), 96, 5)
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
    recorded = [row for one in board for row in rows(one)]
    base = [row for row in recorded if row.opt == BASELINE]
    short = [x for x in recorded if x.opt != BASELINE and x.horizon <= SIZE.horizons[-1]]
    first = Comparison(BASELINE, [*base, *short])
    chosen, size = REPEATED, SIZE
    if runs.quick:
        chosen, size = REPEATED[:2], replace(SIZE, horizons=SIZE.horizons[:2])
    studies = runs("repetition", chosen, size, Variation())
    again = Comparison(BASELINE, [*base, *(row for one in studies for row in rows(one))])
    speedups = {name: (first.overall(name), again.overall(name)) for name in chosen}
    deviations = {name: first.own_deviation(name) for name in chosen}
    return _finding(runs, speedups, deviations, studies[0].environment)


def _finding(
    runs: Runs,
    speedups: Mapping[str, tuple[Speedup | None, Speedup | None]],
    deviations: Mapping[str, float],
    environment: Mapping[str, object],
) -> Finding:
    table = [["optimizer", "first", "again", "standard deviation assumed"]]
    found: dict[str, tuple[Speedup, Speedup]] = {}
    for name, (one, other) in speedups.items():
        if one and other and one.bound == other.bound == "=":
            found[name] = (one, other)
            table.append([name, str(one), str(other), f"{deviations[name]:.1%}"])
    inside = sum(
        one.interval is not None and one.interval[0] <= other.value <= one.interval[1]
        for one, other in found.values()
    )
    verdict: Verdict = "not known yet"
    text = "No speed-up could be measured."
    if found:
        values = [[one.value for one in both] for both in found.values()]
        seen = spread(values, [deviations[name] for name in found])
        verdict = _verdict(seen)
        text = (
            f"{len(found)} optimizers were tuned and trained again, to {SIZE.horizons[-1]:,} "
            f"steps. {inside} of {len(found)} new speed-ups lie in the first interval. The "
            "logarithms of an optimizer's two speed-ups have a standard deviation of "
            f"{seen.measured:.1%} [{seen.interval[0]:.1%}, {seen.interval[1]:.1%}], where the "
            f"intervals assume {seen.assumed:.1%}."
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
            SIZE,
            f"{', '.join(speedups)}, set against the leaderboard's {BASELINE}, which is not "
            "repeated; first: the leaderboard's entries up to 1,000 steps; final runs have the "
            "same seeds",
        ),
        environment=environment,
        seconds=runs.seconds("repetition"),
    )


def _verdict(seen: Spread) -> Verdict:
    if seen.measured <= seen.assumed:
        return "holds"
    return "holds in part" if seen.interval[0] <= seen.assumed else "does not hold here"
