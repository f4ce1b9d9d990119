"""Optimizers compared with the baseline on one task: speed-ups, ranks and warnings; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweeps.results import curve, noise, ranks, rescaling
from sweeps.results.curve import Curve
from sweeps.results.noise import Noise
from sweeps.results.rescaling import Shift
from sweeps.results.statistics import Interval, Speedup
from sweeps.results.summary import Row


@dataclass(frozen=True)
class _Ladder:
    """An optimizer's rungs with final runs: steps, mean log loss and number of seeds [r] each, and
    the number of tuning trials at its shortest rung."""

    horizons: np.ndarray
    losses: np.ndarray
    seeds: tuple[int, ...]
    trials: int


def _ladder(rows: Sequence[Row]) -> _Ladder | None:
    whole = sorted((row for row in rows if row.by_seed), key=lambda row: row.horizon)
    if not whole:
        return None
    return _Ladder(
        np.array([row.horizon for row in whole], float),
        np.array([np.mean(_logs(row)) for row in whole]),
        tuple(len(row.by_seed) for row in whole),
        min(rows, key=lambda row: row.horizon).trials,
    )


def _logs(row: Row) -> list[float]:
    return [math.log(loss) for loss in row.by_seed.values()]


@dataclass(frozen=True)
class Trend:
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
    def _baseline(self) -> _Ladder | None:
        """Later rows replace earlier ones at the same horizon."""
        rows = [row for row in [*self.reference, *self.rows] if row.opt == self.baseline]
        by_horizon = {row.horizon: row for row in rows if row.by_seed}
        return _ladder(list(by_horizon.values()))

    @cached_property
    def curve(self) -> Curve | None:
        """The baseline's curve; None without a baseline."""
        base = self._baseline
        if base is None:
            return None
        return curve.fit(dict(zip(base.horizons.astype(int).tolist(), base.losses, strict=True)))

    @cached_property
    def noise(self) -> Noise:
        """How much log losses vary from repetition to repetition."""
        losses = {
            name: [_logs(row) for row in self.rows if row.opt == name and row.by_seed]
            for name in self.names
        }
        base = self._baseline
        if base is not None:
            rows = {
                row.horizon: row
                for row in [*self.reference, *self.rows]
                if row.opt == self.baseline and row.by_seed
            }
            losses[self.baseline] = [_logs(row) for row in rows.values()]
        seeds = noise.estimate(losses)
        return noise.estimate(losses, self._scatter(seeds))

    def _scatter(self, seeds: Noise) -> list[tuple[float, float, float]]:
        """How far each ladder strays from a smooth curve, see `noise.estimate`."""
        found = []
        if self.curve is None or self._baseline is None:
            return found

        def explained(name: str, ladder: _Ladder) -> float:
            return float(np.mean(seeds.of_seeds(name) / np.array(ladder.seeds)))

        if len(self.curve.residuals):
            left, base = self.curve.residuals, self._baseline
            # A longer search has less luck: counted as that of a usual one.
            scale = (base.trials or noise.TUNING_TRIALS) / noise.TUNING_TRIALS
            seen = explained(self.baseline, base)
            squares, free = float((left**2).sum()), len(left) - 3
            found.append((scale * (squares - free * seen) + free * seen, float(free), seen))
        for name in self.names:
            shift, ladder = self._shift(name), self._ladder(name)
            if name == self.baseline or shift is None or ladder is None or not shift.freedom:
                continue
            scale = (ladder.trials or noise.TUNING_TRIALS) / noise.TUNING_TRIALS
            seen = explained(name, ladder)
            squares, free = shift.stray, float(shift.freedom)
            found.append((scale * (squares - free * seen) + free * seen, free, seen))
        return found

    def _ladder(self, name: str) -> _Ladder | None:
        if name == self.baseline:
            return self._baseline
        return _ladder([row for row in self.rows if row.opt == name])

    def _shift(self, name: str) -> Shift | None:
        return self._shifts.get(name)

    @cached_property
    def _shifts(self) -> dict[str, Shift]:
        """Each optimizer's place on the baseline's curve, if it has final runs."""
        if self.curve is None:
            return {}
        ladders = {name: self._ladder(name) for name in self.names}
        return {
            name: rescaling.over_ladder(ladder.losses, ladder.horizons, self.curve)
            for name, ladder in ladders.items()
            if ladder
        }

    def _covariance(self, name: str, ladder: _Ladder) -> np.ndarray:
        return self.noise.covariance(name, ladder.trials, ladder.seeds)

    def _variance(self, name: str, ladder: _Ladder, own: np.ndarray, base: np.ndarray) -> float:
        """Variance of a number with these derivatives by own and by the baseline's log losses."""
        assert self._baseline is not None
        mine, theirs = (
            self._covariance(name, ladder),
            self._covariance(self.baseline, self._baseline),
        )
        return float(own @ mine @ own + base @ theirs @ base)

    @cached_property
    def _quantile(self) -> float:
        from scipy.stats import t

        return float(t.ppf(0.975, self.noise.freedom))

    def _handicap(self, trials: int, shift: Shift) -> float:
        """What the baseline's longer search may take from the log speed-up, on average."""
        theirs = self._baseline.trials if self._baseline else 0
        return noise.handicap(trials, theirs) * abs(float(shift.own.sum()))

    def _speedup(
        self, shift: Shift, variance: float, handicap: float, low: float, high: float
    ) -> Speedup:
        """The speed-up of a shift; low and high are its least and greatest measurable logs."""
        if math.isinf(shift.value):
            return Speedup(math.exp(high), ">") if shift.value > 0 else Speedup(math.exp(low), "<")
        reach = self._quantile * math.sqrt(variance)
        interval = math.exp(shift.value - reach), math.exp(shift.value + reach + handicap)
        return Speedup(math.exp(shift.value), interval=interval)

    def speedup(self, row: Row | None) -> Speedup | None:
        """The row's speed-up with its interval; None without a result or a baseline."""
        if row is None or row.mean is None or self.curve is None:
            return None
        if row.opt == self.baseline:
            return Speedup(1.0)
        losses = _logs(row) or [math.log(row.mean["probe_loss"])]
        shift = rescaling.at_rung(float(np.mean(losses)), row.horizon, self.curve)
        ladder = _Ladder(
            np.array([float(row.horizon)]),
            np.array([np.mean(losses)]),
            (len(losses),),
            self._trials(row.opt),
        )
        variance = self._variance(row.opt, ladder, shift.own, shift.baseline)
        here = math.log(row.horizon)
        found = self._speedup(
            shift,
            variance,
            self._handicap(ladder.trials, shift),
            self.curve.low - here,
            self.curve.high - here,
        )
        return found if row.by_seed else Speedup(found.value, found.bound)

    def _trials(self, name: str) -> int:
        rows = [row for row in self.rows if row.opt == name]
        return min(rows, key=lambda row: row.horizon).trials if rows else 0

    def speedups(self, name: str) -> list[Speedup | None]:
        """The optimizer's speed-up at each of `shared_horizons`."""
        return [self.speedup(self.by_name.get((name, h))) for h in self.shared_horizons]

    def overall(self, name: str) -> Speedup | None:
        """The factor by which the optimizer's ladder is the baseline's curve; None without one.

        Over the optimizer's own rungs; those beyond the baseline's curve do not count.
        """
        ladder, shift = self._ladder(name), self._shift(name)
        if ladder is None or shift is None or self.curve is None:
            return None
        if name == self.baseline:
            return Speedup(1.0)
        variance = self._variance(name, ladder, shift.own, shift.baseline)
        first, last = math.log(ladder.horizons[0]), math.log(ladder.horizons[-1])
        return self._speedup(
            shift,
            variance,
            self._handicap(ladder.trials, shift),
            self.curve.low - first,
            self.curve.high - last,
        )

    def trend(self, name: str) -> Trend | None:
        """How the speed-up changes with the length of the run; None for too few rungs."""
        ladder = self._ladder(name)
        if ladder is None or self.curve is None or name == self.baseline:
            return None
        found = rescaling.trend(ladder.losses, ladder.horizons, self.curve)
        if found is None:
            return None
        reach = self._quantile * math.sqrt(self._variance(name, ladder, found.own, found.baseline))
        low, high = found.value - reach, found.value + reach
        return Trend(math.expm1(found.value), (math.expm1(low), math.expm1(high)))

    def ranks(self) -> dict[str, int]:
        """Optimizer -> rank by the overall speed-up; ties share a rank. In order of the board.

        Optimizers without a result are left out.
        """
        return self._ranks

    @cached_property
    def _ranks(self) -> dict[str, int]:
        base = self._baseline
        scored = [
            (name, self.overall(name), self._shift(name), self._ladder(name)) for name in self.names
        ]
        known = [
            (name, math.log(gain.value), shift, ladder)
            for name, gain, shift, ladder in scored
            if gain and shift and ladder
        ]
        if not known or base is None:
            return {}
        values = {name: value for name, value, _, _ in known}
        theirs = self._covariance(self.baseline, base)
        by_base = np.stack(
            [
                np.zeros(len(base.losses)) if name == self.baseline else shift.baseline
                for name, _, shift, _ in known
            ]
        )
        covariance = by_base @ theirs @ by_base.T
        for i, (name, _, shift, ladder) in enumerate(known):
            if name != self.baseline:
                covariance[i, i] += shift.own @ self._covariance(name, ladder) @ shift.own
        allowances = np.zeros(covariance.shape)
        if self.baseline in values:
            allowances[list(values).index(self.baseline)] = [
                self._handicap(ladder.trials, shift) for _, _, shift, ladder in known
            ]
        found = ranks.ranks(list(values.values()), covariance, self.noise.freedom, allowances)
        ranked = dict(zip(values, found, strict=True))
        return {name: ranked[name] for name in ranks.ordered(ranked, values)}

    def rung_ranks(self, horizon: int) -> dict[str, int]:
        """Optimizer -> rank by log loss at one horizon, in order of the loss."""
        rows = [
            row for name in self.names if (row := self.by_name.get((name, horizon))) and row.by_seed
        ]
        if not rows:
            return {}
        values = {row.opt: -float(np.mean(_logs(row))) for row in rows}
        variances = [
            self.noise.of_tuning(self._trials(row.opt))
            + self.noise.of_seeds(row.opt) / len(row.by_seed)
            for row in rows
        ]
        found = ranks.ranks(list(values.values()), np.diag(variances), self.noise.freedom)
        ranked = dict(zip(values, found, strict=True))
        return {name: ranked[name] for name in ranks.ordered(ranked, values)}

    def seeds_warning(self, row: Row) -> str | None:
        """A warning if the row is not separated from the baseline, and what would separate it."""
        gain = self.speedup(row)
        if row.opt == self.baseline or gain is None or gain.interval is None:
            return None
        if not gain.interval[0] <= 1 <= gain.interval[1]:
            return None
        effect = abs(math.log(gain.value))
        seeds = len(row.by_seed)
        shift = rescaling.at_rung(float(np.mean(_logs(row))), row.horizon, self.curve)  # type: ignore[arg-type]
        by_seed = float(shift.own @ shift.own) * self.noise.of_seeds(row.opt)
        total = (math.log(gain.value / gain.interval[0]) / self._quantile) ** 2
        needed = noise.required_seeds(effect, total - by_seed / seeds, by_seed, self._quantile)
        hope = (
            f"about {needed} would be needed"
            if needed and needed <= 1000
            else "no number of seeds would, because luck in tuning is larger than the difference"
        )
        return f"{seeds} seeds do not separate it from {self.baseline}; {hope}."


def edge_warning(row: Row) -> str | None:
    """A warning if a best hyperparameter is an extreme of those tried."""
    if not row.edges:
        return None
    return (
        f"the best {' and '.join(row.edges)} is the lowest or highest that was tried; "
        "a wider range may hold a better value."
    )
