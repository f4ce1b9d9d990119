"""Whether reruns agree with recorded losses; pure functions of numbers.

A machine repeats a run to the last digit or not at all. Where no number repeats, the mean of
log(rerun / recorded) over all runs is set against its prediction distribution: both runs of a pair
have the noise of a seed. They start alike, but what they share is lost within a few hundred steps;
treating them as independent is the careful side. Intervals are Student's t.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweeps.board.reruns import Key, Run, exact, unsettled

NEAR = 1.5  # tuning trials within this factor of a rung's best are as noisy as final runs
JOINT = 0.05  # error of the joint test of the final runs
TUNING = 0.005  # of the test of the tuning trials, so that both together stay below 6 %
SCREEN = 0.001  # of all rungs together, and of all tuning trials together
FEW = 10  # with fewer degrees of freedom, other entries' final runs also say how seeds spread


@dataclass(frozen=True)
class Noise:
    """Standard deviation of a run's log loss over seeds, and its degrees of freedom.

    Without degrees of freedom, nothing is known of it: intervals are infinite.
    """

    sd: float
    freedom: int

    def reach(self, level: float, variance: float) -> float:
        """Half the width of the interval that misses with probability `level`.

        variance: that of the deviation, in units of a run's variance.
        """
        if not self.freedom:
            return math.inf
        return _student(1 - level / 2, self.freedom) * self.sd * math.sqrt(variance)


@functools.cache
def _student(probability: float, freedom: int) -> float:
    """A quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf(probability, freedom))


def pooled(groups: Iterable[Sequence[float]]) -> Noise:
    """The noise within groups of losses, each of runs that differ in their seeds only."""
    logs = [np.log(group) for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in logs)
    squares = sum(float(np.sum((group - np.mean(group)) ** 2)) for group in logs)
    return Noise(math.sqrt(squares / freedom) if freedom else 0.0, freedom)


def noise_of(
    runs: Iterable[Run], others: Sequence[Sequence[float]], own: Sequence[Sequence[float]]
) -> Noise:
    """A run's noise: that of the reruns and of other entries' final runs, within rungs.

    The entry's own final runs count only if there is FEW of it without them: an entry could widen
    its intervals by recording a spread that is not there.

    Args:
      runs: reruns.
      others: for each rung of the other entries of the task, the losses of its final runs.
      own: the same of the entry itself.
    """
    again: dict[tuple[int, int], list[float]] = {}
    for run in unsettled(runs):
        if run.kind == "final" and run.rerun is not None:
            again.setdefault((run.environment, run.horizon), []).append(run.rerun)
    measured = pooled([*again.values(), *others])
    return measured if measured.freedom >= FEW else pooled([*again.values(), *others, *own])


@dataclass(frozen=True)
class Mean:
    """The mean of log(rerun / recorded) over some runs, and the interval expected of it."""

    value: float
    low: float
    high: float
    runs: int

    @property
    def inside(self) -> bool:
        return self.low <= self.value <= self.high


def _ratios(runs: Iterable[Run]) -> dict[Key, tuple[float, int]]:
    """For each run, log(rerun / recorded), averaged over its reruns, and their number."""
    logs: dict[Key, list[float]] = {}
    for run in runs:
        if run.recorded is not None and run.rerun is not None:
            logs.setdefault(run.key, []).append(math.log(run.rerun / run.recorded))
    return {key: (float(np.mean(found)), len(found)) for key, found in logs.items()}


def _mean(
    ratios: Sequence[tuple[float, int]],
    noise: Noise,
    level: float,
    expected: Sequence[tuple[float, float]] = (),
) -> Mean:
    """The mean of log ratios, and its interval.

    expected: for each ratio, the interval of its expectation in units of the noise; else 0.
    """
    n = len(ratios)
    reach = noise.reach(level, sum(1 + 1 / reruns for _, reruns in ratios) / n**2)
    low = float(np.mean([low for low, _ in expected])) * noise.sd if expected else 0.0
    high = float(np.mean([high for _, high in expected])) * noise.sd if expected else 0.0
    return Mean(float(np.mean([log for log, _ in ratios])), low - reach, high + reach, n)


def joint(runs: Iterable[Run], noise: Noise) -> Mean | None:
    """The test of all final runs: the mean over all rungs and seeds. None without unsettled runs.

    It finds losses shaded everywhere by a little, which intervals of single rungs let pass.
    """
    found = _ratios(run for run in unsettled(runs) if run.kind == "final")
    return _mean(list(found.values()), noise, JOINT) if found else None


def by_rung(runs: Iterable[Run], noise: Noise) -> dict[int, Mean]:
    """The screen of single rungs: horizon -> mean, in an interval so wide that only gross
    deviations leave it (SCREEN over all rungs together)."""
    found = _ratios(run for run in unsettled(runs) if run.kind == "final")
    horizons = sorted({key[1] for key in found})
    return {
        h: _mean([r for key, r in found.items() if key[1] == h], noise, SCREEN / len(horizons))
        for h in horizons
    }


def columns(runs: Iterable[Run], noises: Mapping[str, Noise]) -> dict[str, Mean]:
    """The test of each other metric at the end of the final runs, where its noise is known: name ->
    mean over all rungs and seeds, in an interval that only gross deviations leave (SCREEN)."""
    finals = [run for run in unsettled(runs) if run.kind == "final"]
    found = {}
    for name, noise in noises.items():
        ratios = _ratios(
            replace(run, recorded=pair[0], rerun=pair[1])
            for run in finals
            if (pair := run.metrics.get(name)) and min(pair) > 0
        )
        if ratios and noise.freedom >= FEW:
            found[name] = _mean(list(ratios.values()), noise, SCREEN)
    return found


@dataclass(frozen=True)
class Tuned:
    """What tuning says of a rung, as recorded.

    Attributes:
      best: the lowest loss.
      winner: index of its trial.
      near: number of trials within NEAR of it.
    """

    best: float
    winner: int
    near: int

    def expected(self, trial: int) -> tuple[float, float]:
        """Bounds of the expectation of log(rerun / recorded) of a trial, in units of the noise.

        The winner was picked for its low loss, so a rerun of it is expected higher; at most as
        much as the lowest of `near` equal trials is below their mean. The others then lie above it.
        """
        if self.near < 2:
            return 0.0, 0.0
        low = statistics.NormalDist().inv_cdf((self.near - 0.375) / (self.near + 0.25))  # Blom 1958
        return (0.0, low) if trial == self.winner else (-low / (self.near - 1), 0.0)


def tuned(losses: Sequence[float | None]) -> Tuned | None:
    """What the tuning trials of a rung say; None if all failed. losses: None for a failed one."""
    good = [(loss, i) for i, loss in enumerate(losses) if loss is not None]
    if not good:
        return None
    best, winner = min(good)
    return Tuned(best, winner, sum(loss <= NEAR * best for loss, _ in good))


@dataclass(frozen=True)
class Tuning:
    """The test of the tuning trials.

    Attributes:
      mean: over the trials near their rung's best; None if there is none.
      outlying: reruns far from the recorded loss, or far better than the winner though recorded as
        failed.
      flipped: reruns that failed though recorded as ok, or the reverse.
      far: number of trials too far from their rung's best, whose losses are too noisy to compare.
    """

    mean: Mean | None
    outlying: tuple[Run, ...]
    flipped: tuple[Run, ...]
    far: int


def tuning(runs: Iterable[Run], rungs: dict[int, Tuned], noise: Noise) -> Tuning:
    """Compares the unsettled tuning trials with their reruns.

    A trial counts as near if the recorded or the rerun loss is: this treats both alike, so that the
    choice shifts nothing, and a good trial that was recorded as a bad one is found.

    rungs: horizon -> what the recorded tuning trials say.
    """
    runs = list(runs)
    repeating = exact(runs)
    here = [run for run in unsettled(runs) if run.kind == "tuning" and run.horizon in rungs]
    flipped = tuple(run for run in here if (run.recorded is None) != (run.rerun is None))
    pairs = [(run, run.recorded, run.rerun) for run in here]
    near = [
        run
        for run, old, new in pairs
        if old is not None and new is not None and min(old, new) <= NEAR * rungs[run.horizon].best
    ]
    reach = noise.reach(SCREEN / max(1, len(here)), 2)
    outlying = []
    for run, old, new in pairs:
        if new is None or (run not in near and run not in flipped):
            continue
        rung = rungs[run.horizon]
        if old is None:
            far = math.log(new / rung.best) < (0 if run.environment in repeating else -reach)
        else:
            low, high = (bound * noise.sd for bound in rung.expected(run.trial or 0))
            far = not low - reach <= math.log(new / old) <= high + reach
        if far:
            outlying.append(run)
    ratios = _ratios(near)
    expected = [rungs[key[1]].expected(key[3] or 0) for key in ratios]
    mean = _mean(list(ratios.values()), noise, TUNING, expected) if ratios else None
    far = len({run.key for run in here} - {run.key for run in (*near, *flipped)})
    return Tuning(mean, tuple(outlying), flipped, far)
