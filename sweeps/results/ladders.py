"""Ladders: an optimizer's mean log losses at the rungs that it has run, and how they vary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sweeps.results import noise
from sweeps.results.curve import LAW_NUMBERS, Curve
from sweeps.results.noise import Noise, Scatter
from sweeps.results.rescaling import Shift
from sweeps.results.summary import Row


@dataclass(frozen=True)
class Ladder:
    """The rungs of one optimizer that have final runs.

    Attributes:
      horizons: steps [r], ascending.
      losses: for each rung, the log losses of its final runs.
      trials: number of tuning trials at the shortest rung; 0 if nothing was tuned.
    """

    horizons: np.ndarray
    losses: tuple[tuple[float, ...], ...]
    trials: int

    @property
    def means(self) -> np.ndarray:
        """Mean log loss [r] of each rung."""
        return np.array([np.mean(rung) for rung in self.losses])

    @property
    def seeds(self) -> np.ndarray:
        """Number of final runs [r] at each rung."""
        return np.array([len(rung) for rung in self.losses], float)

    def rung(self, horizon: int) -> Ladder:
        """The rung of this horizon alone, after the same search."""
        (i,) = np.flatnonzero(self.horizons == horizon)
        return Ladder(self.horizons[i : i + 1], self.losses[i : i + 1], self.trials)


def ladder(rows: Iterable[Row]) -> Ladder | None:
    """The ladder of one optimizer's rows, one for each horizon; None without final runs."""
    ordered = sorted(rows, key=lambda row: row.horizon)
    whole = [row for row in ordered if row.by_seed]
    if not whole:
        return None
    return Ladder(
        np.array([row.horizon for row in whole], float),
        tuple(tuple(math.log(loss) for loss in row.by_seed.values()) for row in whole),
        ordered[0].trials,
    )


def noise_of(
    ladders: Mapping[str, Ladder], shifts: Mapping[str, Shift], baseline: str, curve: Curve | None
) -> Noise:
    """How much the log losses of these ladders would vary if all was done again.

    Args:
      ladders: optimizer -> its ladder, the baseline's too.
      shifts: optimizer -> its place on the baseline's curve.
      baseline: name of the baseline.
      curve: the baseline's curve; None without a baseline.
    """
    losses = {name: one.losses for name, one in ladders.items()}
    seeds = noise.estimate(losses)

    def scatter(name: str, squares: float, freedom: int) -> Scatter:
        one = ladders[name]
        explained = float(np.mean(seeds.of_seeds(name) / one.seeds))
        return Scatter(squares, freedom, explained, one.trials)

    found = {
        name: scatter(name, shift.stray, shift.freedom)
        for name, shift in shifts.items()
        if name != baseline
    }
    if curve and len(curve.residuals):
        squares = float((curve.residuals**2).sum())
        found[baseline] = scatter(baseline, squares, len(curve.residuals) - LAW_NUMBERS)
    return noise.estimate(losses, found)
