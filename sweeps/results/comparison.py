"""Optimizers compared with the baseline on one task: speed-ups, ranks and warnings; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sweeps.results import curve, noise, rescaling
from sweeps.results.curve import Curve
from sweeps.results.ladders import Ladder, ladder, noise_of
from sweeps.results.noise import Noise
from sweeps.results.orders import Order
from sweeps.results.rescaling import Shift, Trend
from sweeps.results.scores import NO_SCORES, Scores
from sweeps.results.statistics import Interval, Speedup
from sweeps.results.summary import Row

_WIDEST = math.log(1e6)


@dataclass(frozen=True)
class Growth:
    """How the speed-up changes as runs get longer.

    Attributes:
      value: relative change per doubling of the steps.
      interval: 95 % interval.
    """

    value: float
    interval: Interval


@dataclass(frozen=True)
class Comparison:
    """Rows of one task, measured against the baseline's curve.

    Intervals say what a repetition of everything would give: other seeds, another search, and the
    same for the baseline (see noise.py).

    Attributes:
      baseline: name of the optimizer on whose curve speed-ups are measured.
      rows: the rows to compare. Methods that take an optimizer's name need one row for each
        optimizer and horizon.
      reference: rows of the committed baseline, used at horizons that the baseline lacks in `rows`.
    """

    baseline: str
    rows: Sequence[Row]
    reference: Sequence[Row] = ()

    @cached_property
    def by_name(self) -> dict[tuple[str, int], Row]:
        """(optimizer, horizon) -> row."""
        return {(row.opt, row.horizon): row for row in self.rows}

    @cached_property
    def names(self) -> list[str]:
        return list(dict.fromkeys(row.opt for row in self.rows))

    @cached_property
    def horizons(self) -> list[int]:
        return sorted({row.horizon for row in self.rows})

    @cached_property
    def shared_horizons(self) -> list[int]:
        """The horizons that any optimizer but the baseline ran: the baseline runs longer ones."""
        found = sorted({row.horizon for row in self.rows if row.opt != self.baseline})
        return found or self.horizons

    @cached_property
    def _ladders(self) -> dict[str, Ladder]:
        """Optimizer -> its ladder, of those with final runs. The baseline's has the rungs of the
        reference too; those of `rows` replace them at the same horizon."""
        rows: dict[str, dict[int, Row]] = {}
        for row in [*(row for row in self.reference if row.opt == self.baseline), *self.rows]:
            known = rows.setdefault(row.opt, {})
            if row.by_seed or row.horizon not in known:
                known[row.horizon] = row
        found = {name: ladder(by_horizon.values()) for name, by_horizon in rows.items()}
        return {name: one for name, one in found.items() if one}

    @cached_property
    def curve(self) -> Curve | None:
        """The baseline's curve; None without a baseline."""
        base = self._ladders.get(self.baseline)
        if base is None:
            return None
        return curve.fit(dict(zip(base.horizons.astype(int).tolist(), base.means, strict=True)))

    @cached_property
    def _shifts(self) -> dict[str, Shift]:
        """Each optimizer's place on the baseline's curve."""
        if self.curve is None:
            return {}
        return {
            name: rescaling.over_ladder(one.means, one.horizons, self.curve)
            for name, one in self._ladders.items()
        }

    @cached_property
    def noise(self) -> Noise:
        """How much log losses vary from repetition to repetition."""
        return noise_of(self._ladders, self._shifts, self.baseline, self.curve)

    def _covariance(self, name: str, of: Ladder) -> np.ndarray:
        return self.noise.covariance(name, of.trials, of.seeds)

    def _deviation(self, name: str, of: Ladder, found: Shift | Trend) -> float:
        """Standard deviation of a number with these derivatives."""
        mine = self._covariance(name, of)
        theirs = self._covariance(self.baseline, self._ladders[self.baseline])
        return math.sqrt(found.own @ mine @ found.own + found.baseline @ theirs @ found.baseline)

    def own_deviation(self, name: str) -> float:
        """Standard deviation of an optimizer's overall log speed-up, over repetitions of its own
        search and runs; the baseline stays as it is."""
        own, covariance = self._shifts[name].own, self._covariance(name, self._ladders[name])
        return math.sqrt(own @ covariance @ own)

    @cached_property
    def _quantile(self) -> float:
        from scipy.stats import t

        return float(t.ppf(0.975, noise.TUNING_FREEDOM))

    def _handicap(self, of: Ladder, shift: Shift) -> float:
        """What the baseline's longer search may take from the log speed-up, on average."""
        theirs = self._ladders[self.baseline].trials
        return noise.handicap(of.trials, theirs) * abs(float(shift.own.sum()))

    def _speedup(self, name: str, of: Ladder, shift: Shift) -> Speedup:
        """The speed-up of a ladder, or of a rung of it, with its interval."""
        found = self._without_interval(shift, of.horizons)
        if found.bound != "=":
            return found
        reach = self._quantile * self._deviation(name, of, shift)
        low, high = shift.value - reach, shift.value + reach + self._handicap(of, shift)
        return replace(found, interval=(math.exp(_cut(low)), math.exp(_cut(high))))

    def _without_interval(self, shift: Shift, horizons: np.ndarray) -> Speedup:
        assert self.curve is not None
        if shift.value == math.inf:
            return Speedup(math.exp(self.curve.high) / float(horizons[-1]), ">")
        if shift.value == -math.inf:
            return Speedup(math.exp(self.curve.low) / float(horizons[0]), "<")
        return Speedup(math.exp(_cut(shift.value)))

    def _at_rung(self, of: Ladder) -> Shift:
        assert self.curve is not None
        return rescaling.at_rung(float(of.means[0]), int(of.horizons[0]), self.curve)

    def speedup(self, row: Row | None) -> Speedup | None:
        """The row's speed-up with its interval; None without a result or a baseline."""
        if row is None or row.mean is None or self.curve is None:
            return None
        if row.opt == self.baseline:
            return Speedup(1.0)
        if not row.by_seed:
            shift = rescaling.at_rung(math.log(row.mean["probe_loss"]), row.horizon, self.curve)
            return self._without_interval(shift, np.array([row.horizon]))
        rung = self._ladders[row.opt].rung(row.horizon)
        return self._speedup(row.opt, rung, self._at_rung(rung))

    def speedups(self, name: str) -> list[Speedup | None]:
        """The optimizer's speed-up at each of `shared_horizons`."""
        return [self.speedup(self.by_name.get((name, h))) for h in self.shared_horizons]

    def overall(self, name: str) -> Speedup | None:
        """The factor by which the optimizer's ladder is the baseline's curve; None without one.

        Over the optimizer's own rungs; those beyond the baseline's curve do not count.
        """
        if name not in self._shifts:
            return None
        if name == self.baseline:
            return Speedup(1.0)
        return self._speedup(name, self._ladders[name], self._shifts[name])

    def trend(self, name: str) -> Growth | None:
        """How the speed-up changes with the length of the run; None for too few rungs."""
        if self.curve is None or name == self.baseline or name not in self._ladders:
            return None
        of = self._ladders[name]
        found = rescaling.trend(of.means, of.horizons, self.curve)
        if found is None:
            return None
        reach = self._quantile * self._deviation(name, of, found)
        low, high = found.value - reach, found.value + reach
        return Growth(
            math.expm1(_cut(found.value)), (math.expm1(_cut(low)), math.expm1(_cut(high)))
        )

    def ranks(self) -> dict[str, int]:
        """Optimizer -> rank by the overall speed-up; ties share a rank. In order of the board.

        Optimizers without a result are left out, and those of which only an upper bound is known.
        """
        return self._overall.ranks()

    def order(self) -> Order:
        """The optimizers that have a rank, by the logarithm of their overall speed-up."""
        return self._overall.order()

    def rung_ranks(self, horizon: int) -> dict[str, int]:
        """Optimizer -> rank by log loss at one horizon, in order of the loss."""
        return self._at(horizon).ranks()

    def rung_order(self, horizon: int) -> Order:
        """The optimizers that have final runs at one horizon, by minus the log loss."""
        return self._at(horizon).order()

    @cached_property
    def _overall(self) -> Scores:
        overall = {name: gain for name in self.names if (gain := self.overall(name))}
        gains = {name: gain for name, gain in overall.items() if gain.bound != "<"}
        if not gains:
            return NO_SCORES
        values = {name: math.log(gain.value) for name, gain in gains.items()}
        others = [name != self.baseline for name in gains]  # the baseline's own score has no error
        by_base = (
            np.stack([self._shifts[name].baseline for name in gains]) * np.array(others)[:, None]
        )
        theirs = self._covariance(self.baseline, self._ladders[self.baseline])
        covariance = by_base @ theirs @ by_base.T
        allowances = np.zeros(covariance.shape)
        for i, name in enumerate(gains):
            of, shift = self._ladders[name], self._shifts[name]
            if others[i]:
                covariance[i, i] += shift.own @ self._covariance(name, of) @ shift.own
            if self.baseline in gains:
                allowances[list(gains).index(self.baseline), i] = self._handicap(of, shift)
        return Scores(values, covariance, allowances, noise.TUNING_FREEDOM)

    def _at(self, horizon: int) -> Scores:
        here = [
            name
            for name in self.names
            if (row := self.by_name.get((name, horizon))) and row.by_seed
        ]
        if not here:
            return NO_SCORES
        rungs = {name: self._ladders[name].rung(horizon) for name in here}
        values = {name: -float(rung.means[0]) for name, rung in rungs.items()}
        variances = [float(self._covariance(name, rung)[0, 0]) for name, rung in rungs.items()]
        allowances = np.zeros((len(rungs), len(rungs)))
        if self.baseline in rungs:
            theirs = rungs[self.baseline].trials
            allowances[here.index(self.baseline)] = [
                noise.handicap(rung.trials, theirs) for rung in rungs.values()
            ]
        return Scores(values, np.diag(variances), allowances, noise.TUNING_FREEDOM)

    def seeds_warning(self, row: Row) -> str | None:
        """A warning if the row is not separated from the baseline, and what would separate it."""
        gain = self.speedup(row)
        if gain is None or gain.interval is None or not gain.interval[0] <= 1 <= gain.interval[1]:
            return None
        rung = self._ladders[row.opt].rung(row.horizon)
        shift, seeds = self._at_rung(rung), len(row.by_seed)
        by_seed = float(shift.own @ shift.own) * self.noise.of_seeds(row.opt)
        fixed = self._deviation(row.opt, rung, shift) ** 2 - by_seed / seeds
        # The baseline's longer search excuses a rule that is slower.
        excused = self._handicap(rung, shift) if shift.value < 0 else 0.0
        effect = max(abs(shift.value) - excused, 0.0)
        needed = noise.required_seeds(effect, fixed, by_seed, self._quantile)
        hope = (
            f"about {needed} would be needed"
            if needed and needed <= 1000
            else "no number of seeds would, because luck in tuning is larger than the difference"
        )
        return f"{seeds} seeds do not separate it from {self.baseline}; {hope}."


def _cut(log: float) -> float:
    """The logarithm of a factor, cut at _WIDEST: a nearly flat baseline gives any number."""
    return max(min(log, _WIDEST), -_WIDEST)


def edge_warning(row: Row) -> str | None:
    """A warning if a best hyperparameter is an extreme of those tried."""
    if not row.edges:
        return None
    *others, last = row.edges
    best = (
        f"the best values of {', '.join(others)} and {last} are the lowest or highest that were"
        if others
        else f"the best {last} is the lowest or highest that was"
    )
    return f"{best} tried; a wider range may hold a better value."
