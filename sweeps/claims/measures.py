"""What the final runs of studies show: ratios of metrics with intervals, speed-ups; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from distill_bench.errors import UserError
from sweeps.board.entries import BASELINE, Entry
from sweeps.planning.study import TUNING_SEED, Result, Study
from sweeps.results.comparison import Comparison
from sweeps.results.summary import Row, row_of

Boards = Mapping[str, Sequence[Entry]]
"""Task -> its leaderboard's entries."""


def source(boards: Boards) -> str:
    """Where the figures of a claim come from that needs no runs."""
    counted = [f"{len(entries)} of {task}" for task, entries in boards.items() if entries]
    return f"From the leaderboards' entries: {', '.join(counted)}."


def at_end(results: Iterable[Result], horizon: int, metric: str) -> list[float]:
    """A metric at the end of the final runs of one horizon, by seed.

    Raises:
      UserError: if fewer than two of them ended well.
    """
    runs = [r for r in results if r.trial.horizon == horizon and r.trial.seed != TUNING_SEED]
    runs.sort(key=lambda run: run.trial.seed)
    found = [run.final[metric] for run in runs if run.final]
    if len(found) < 2:
        ends = ", ".join(sorted({run.status for run in runs})) or "missing"
        raise UserError(
            f"{len(found)} of {len(runs)} final runs at {horizon:,} steps ended well, and an "
            f"interval needs two: the others {'are' if ends == 'missing' else 'have'} {ends}."
        )
    return found


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

    Both have two values or more.
    """
    from scipy.stats import ttest_ind

    a, b = np.log(over), np.log(under)
    found = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return Ratio(math.exp(a.mean() - b.mean()), math.exp(found.low), math.exp(found.high))


class Studied(Protocol):
    """A study with its results: an entry, or what a store loads."""

    @property
    def study(self) -> Study: ...
    @property
    def results(self) -> Sequence[Result]: ...


def compared(studies: Iterable[Studied]) -> Comparison:
    """The studies of one task, set against the baseline at all horizons that they ran."""
    return Comparison(BASELINE, [row for one in studies for row in rows(one)])


def rows(one: Studied) -> list[Row]:
    """A row for each horizon that a study ran."""
    horizons = sorted({r.trial.horizon for r in one.results})
    return [row_of(one.study, one.results, horizon) for horizon in horizons]


def geometric(values: Sequence[float]) -> float:
    return math.exp(float(np.mean(np.log(values))))
