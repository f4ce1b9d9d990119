"""Optimizers compared with the baseline on one task: speed-ups, ranks and warnings; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweeps.results import statistics
from sweeps.results.statistics import Speedup
from sweeps.results.summary import Row


@dataclass(frozen=True)
class Comparison:
    """Rows of one task, measured against the baseline's curve.

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
    def horizons(self) -> list[int]:
        return sorted({row.horizon for row in self.rows})

    @cached_property
    def shared_horizons(self) -> list[int]:
        """The horizons of the overall score: those of all optimizers but the baseline's longest.

        At the baseline's longest horizon no speed-up above 1 can be measured.
        """
        names = {row.opt for row in self.rows}
        longest = max((row.horizon for row in self.rows if row.opt == self.baseline), default=0)
        return [
            h
            for h in self.horizons
            if h != longest and all((name, h) in self.by_name for name in names)
        ]

    @cached_property
    def _baseline_rows(self) -> list[Row]:
        """Later rows replace earlier ones at the same horizon and seed."""
        return [row for row in [*self.reference, *self.rows] if row.opt == self.baseline]

    @cached_property
    def baseline_curve(self) -> dict[int, float]:
        """Horizon -> mean final probe loss of the baseline."""
        return {
            row.horizon: row.mean["probe_loss"]
            for row in self._baseline_rows
            if row.mean and row.status in ("ok", "reference")
        }

    @cached_property
    def baseline_seeds(self) -> dict[int, dict[int, float]]:
        """Seed -> horizon -> final probe loss of the baseline."""
        curves: dict[int, dict[int, float]] = {}
        for row in self._baseline_rows:
            for seed, value in row.by_seed.items():
                curves.setdefault(seed, {})[row.horizon] = value
        return curves

    def speedup(self, row: Row | None) -> Speedup | None:
        """The row's speed-up with its interval; None without a result or a baseline."""
        if row is None or row.mean is None:
            return None
        # The baseline gets no interval over itself: it would be [1, 1].
        seeds = row.by_seed if row.opt != self.baseline else {}
        return statistics.with_interval(
            row.mean["probe_loss"], seeds, row.horizon, self.baseline_curve, self.baseline_seeds
        )

    def speedups(self, name: str) -> list[Speedup | None]:
        """The optimizer's speed-up at each of `shared_horizons`."""
        return [self.speedup(self.by_name.get((name, h))) for h in self.shared_horizons]

    def overall(self, name: str) -> Speedup | None:
        """Geometric mean over `shared_horizons`; None if one of them has no result."""
        gains = self.speedups(name)
        if None in gains:
            return None
        logs = [
            statistics.paired_logs(self.by_name[name, h].by_seed, h, self.baseline_seeds)
            for h in self.shared_horizons
            if name != self.baseline
        ]
        return statistics.geometric_mean([gain for gain in gains if gain], logs)

    def ranks(self, horizons: Sequence[int]) -> dict[str, int]:
        """Optimizer -> rank by mean log loss over these horizons; ties share a rank.

        Ordered by loss. Optimizers without a result at each of the horizons are left out.
        """
        logs = {
            name: by_seed
            for name in dict.fromkeys(row.opt for row in self.rows)
            if (by_seed := self._mean_logs(name, horizons))
        }
        ordered = sorted(logs, key=lambda name: (np.mean(list(logs[name].values())), name))
        ranks = statistics.tie_groups([logs[name] for name in ordered])
        return dict(zip(ordered, ranks, strict=True))

    def _mean_logs(self, name: str, horizons: Sequence[int]) -> Mapping[int, float]:
        """Seed -> log loss averaged over the horizons, for the seeds that all of them have."""
        rows = [self.by_name.get((name, h)) for h in horizons]
        losses = [row.by_seed for row in rows if row and row.by_seed]
        if not losses or len(losses) < len(horizons):
            return {}
        return {
            seed: float(np.mean([math.log(by_seed[seed]) for by_seed in losses]))
            for seed in sorted(set.intersection(*map(set, losses)))
        }

    def seeds_warning(self, row: Row) -> str | None:
        """A warning if more seeds are needed to separate the row from the baseline."""
        if row.opt == self.baseline:
            return None
        needed = statistics.seeds_wanted(row.by_seed, row.horizon, self.baseline_seeds)
        if needed is None:
            return None
        return (
            f"{row.seeds} seeds do not separate it from {self.baseline}; {needed} would be needed."
        )


def edge_warning(row: Row) -> str | None:
    """A warning if a best hyperparameter is at the edge of its range."""
    if not row.edges:
        return None
    return (
        f"the best {' and '.join(row.edges)} is at the edge of its range; "
        "a wider range may hold a better value."
    )
