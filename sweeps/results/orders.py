"""Whether optimizers stand in the same order in two places, such as two tasks; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sweeps.results import halves
from sweeps.results.rank_correlation import signs, tau_b
from sweeps.results.statistics import Interval

FEWEST = 6  # optimizers of which an interval says something: with fewer, draws repeat one or two
_DRAWS = 2000
Pair = tuple[str, str]


@dataclass(frozen=True)
class Order:
    """Optimizers ordered by a score.

    Attributes:
      scores: optimizer -> its score, such as the logarithm of a speed-up; higher is better.
      deviations: optimizer -> standard deviation of its score over repetitions of everything;
        empty where that is not known.
      separated: (better, worse), the pairs that differ significantly.
    """

    scores: Mapping[str, float]
    deviations: Mapping[str, float] = field(default_factory=dict)
    separated: frozenset[Pair] = frozenset()


@dataclass(frozen=True)
class Contradiction:
    """A pair that the first order separates and the second one has the other way round.

    Attributes:
      better, worse: as the first order has them.
      first, second: difference of their scores, better less worse, in either order.
    """

    better: str
    worse: str
    first: float
    second: float


@dataclass(frozen=True)
class Agreement:
    """How a second order agrees with a first one, over the optimizers that both have.

    Attributes:
      first, second: the orders.
      optimizers: those that both have, best of the first order first.
      tau: Kendall's tau-b; None if an order has no pair that differs.
      interval: 95 % interval of tau for other optimizers of this kind, from drawing optimizers with
        replacement; None for fewer than FEWEST.
      chance: probability that orders that have nothing to do with each other agree as well or
        better.
      ceiling: the tau to be expected if the true orders were the same; None if a noise is unknown.
      separated: number of pairs that the first order separates.
      kept: number of those that stand the same way in the second.
      contradictions: those that stand the other way, the widest first.
    """

    first: Order
    second: Order

    @cached_property
    def _shared(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        return _scores(self.first, self.second)

    @property
    def optimizers(self) -> tuple[str, ...]:
        return tuple(self._shared[0])

    @cached_property
    def tau(self) -> float | None:
        return _tau(*self._shared[1:])

    @cached_property
    def interval(self) -> Interval | None:
        return _interval(*self._shared[1:])

    @cached_property
    def chance(self) -> float | None:
        return None if self.tau is None else _chance(*self._shared[1:], self.tau)

    @cached_property
    def ceiling(self) -> float | None:
        names = self._shared[0]
        return halves.ceiling(
            *(
                reliability([order.scores[name] for name in names], _known(order, names))
                for order in (self.first, self.second)
            )
        )

    @cached_property
    def _separated(self) -> list[Contradiction]:
        """The pairs that the first order separates, whether they contradict it or not."""
        among = [pair for pair in sorted(self.first.separated) if {*pair} <= {*self._shared[0]}]
        return [_difference(pair, self.first, self.second) for pair in among]

    @property
    def separated(self) -> int:
        return len(self._separated)

    @property
    def kept(self) -> int:
        return sum(one.second > 0 for one in self._separated)

    @property
    def contradictions(self) -> tuple[Contradiction, ...]:
        against = (one for one in self._separated if one.second < 0)
        return tuple(sorted(against, key=lambda one: one.second))


def tau(first: Order, second: Order) -> float | None:
    """Kendall's tau-b over the optimizers that both have; None if an order has no pair that
    differs."""
    return _tau(*_scores(first, second)[1:])


def _scores(first: Order, second: Order) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The optimizers that both have, best of the first order first, and their scores in each."""
    shared = sorted({*first.scores} & {*second.scores}, key=lambda name: -first.scores[name])
    a, b = (np.array([order.scores[name] for name in shared]) for order in (first, second))
    return shared, a, b


def compare(first: Order, second: Order) -> Agreement:
    """How the second order agrees with the first. Each figure is computed when it is asked for."""
    return Agreement(first, second)


def _difference(pair: Pair, first: Order, second: Order) -> Contradiction:
    better, worse = pair
    return Contradiction(
        better, worse, *(order.scores[better] - order.scores[worse] for order in (first, second))
    )


def _known(order: Order, names: Sequence[str]) -> list[float] | None:
    if not {*names} <= {*order.deviations}:
        return None
    return [order.deviations[name] for name in names]


def _tau(a: np.ndarray, b: np.ndarray) -> float | None:
    return tau_b(signs(a), signs(b), np.triu(np.ones((len(a), len(a)), bool), 1))


def _interval(a: np.ndarray, b: np.ndarray) -> Interval | None:
    """95 % of the taus of optimizers drawn with replacement; no pair of one with itself counts."""
    if len(a) < FEWEST:
        return None
    rng, taus = np.random.default_rng(0), []
    for _ in range(_DRAWS):
        drawn = rng.integers(len(a), size=len(a))
        counted = np.triu(drawn[:, None] != drawn, 1)
        if (tau := tau_b(signs(a[drawn]), signs(b[drawn]), counted)) is not None:
            taus.append(tau)
    low, high = np.quantile(taus, [0.025, 0.975])
    return float(low), float(high)


def _chance(a: np.ndarray, b: np.ndarray, tau: float) -> float:
    """The share of all orders of `b` whose tau is at least this one; of random ones if many."""
    from itertools import permutations
    from math import factorial

    if factorial(len(b)) <= _DRAWS:
        orders = [np.array(one) for one in permutations(b)]
    else:
        rng = np.random.default_rng(0)
        orders = [b, *(rng.permutation(b) for _ in range(_DRAWS))]  # b itself: never below 1 / n
    taus = [_tau(a, one) for one in orders]
    return float(np.mean([found is not None and found >= tau - 1e-12 for found in taus]))


def reliability(scores: Sequence[float], deviations: Sequence[float] | None) -> float | None:
    """The tau of two repetitions with each other, expected from scores and their noise.

    The scores' own spread includes noise. It is taken out first, so that the true scores spread by
    what is left: the variance of the scores less the mean variance of their noise.

    None if the noise is unknown, larger than the spread, or there are fewer than three scores.
    """
    if deviations is None or len(scores) < 3:
        return None
    values, noise = np.asarray(scores), np.asarray(deviations)
    spread = float(np.var(values, ddof=1))
    true = spread - float(np.mean(noise**2))
    if true <= 0:
        return None
    levels = values.mean() + (values - values.mean()) * np.sqrt(true / spread)
    rng, taus = np.random.default_rng(0), []
    for _ in range(_DRAWS):
        again = [levels + noise * rng.standard_normal(len(levels)) for _ in range(2)]
        taus.append(_tau(*again))
    found = [tau for tau in taus if tau is not None]
    return float(np.mean(found)) if found else None
