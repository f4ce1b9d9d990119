"""The search of the protocol, run on surfaces: how far above the lowest loss do winners end?"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill_bench.files import replace_atomically
from sweeps.planning import sampling, search, surface
from sweeps.planning.search import Search, Tried, key, select
from sweeps.planning.study import content_id
from sweeps.simulation import surfaces
from sweeps.simulation.surfaces import Space, Surface

FIRST = 125  # steps of the shortest rung
SAVED_EVERY = 10  # searches


@dataclass(frozen=True)
class Noise:
    """How much the log loss of a run spreads over seeds.

    The spread at the best is that of 12 entries' final runs. Its growth is that of the residuals of
    512 tuning trials around a smooth surface: 2.1 % within 5 % of the lowest, 3.4 % between 20 and
    40 % above it.

    Attributes:
      best: standard deviation at the lowest point of a surface.
      growth: its growth with the log loss above that.
      common: standard deviation of what all optimizers have in common on a seed; part of `best`.
    """

    best: float = 0.0187
    growth: float = 0.05
    common: float = 0.0054

    def deviation(self, excess: np.ndarray) -> np.ndarray:
        """Standard deviation of the log losses of runs whose settings have these excesses."""
        return self.best + self.growth * excess


@dataclass(frozen=True)
class Procedure:
    """How an optimizer is tuned.

    Attributes:
      trials: number of trials at the shortest rung.
      rungs: number of rungs, each twice as long as the one before.
      proposals: see `Search.proposals`.
    """

    trials: int
    rungs: int
    proposals: bool = True

    @property
    def horizons(self) -> tuple[int, ...]:
        """Steps of each rung."""
        return tuple(FIRST << rung for rung in range(self.rungs))

    def search(self, space: Space, name: str) -> Search:
        return Search(name, space, (), self.trials, self.horizons, self.proposals)

    def steps(self, space: Space, rungs: int) -> int:
        """Steps of all trials at the first rungs."""
        counts = self.search(space, "").counts()
        return sum(horizon * counts[horizon] for horizon in self.horizons[:rungs])


def regrets(on: Surface, procedure: Procedure, noise: Noise, name: str) -> np.ndarray:
    """One search: the log loss [rungs] of the winner at each rung, above the lowest.

    Args:
      on: the surface that is searched.
      procedure: how.
      noise: of the trials.
      name: each gives the search other points and other noise.
    """
    one = procedure.search(on.space, name)
    rng = np.random.default_rng(list(name.encode()))
    space = dict(on.space)
    losses: dict[tuple[int, str], float] = {}
    heights: dict[tuple[int, str], float] = {}
    tried: tuple[Tried, ...] = ()
    for stage, points in one.known(losses):
        places = np.array([sampling.fractions(space, point) for point in points])
        excess = on.excess(places, stage.horizon)
        logs = excess + noise.deviation(excess) * rng.normal(size=len(points))
        for point, height, log in zip(points, excess, logs, strict=True):
            trial = (stage.horizon, key(point))
            losses[trial], heights[trial] = float(np.exp(log)), float(height)
            tried += ((*trial, losses[trial]),)
    chosen = [(horizon, select(space, tried, horizon)) for horizon in procedure.horizons]
    return np.array([heights[horizon, place] for horizon, place in chosen if place])


@dataclass(frozen=True)
class Bank:
    """Searches, each of which is made once.

    Attributes:
      noise: of the trials.
      seed: of all searches.
      folder: where they are kept for the next run; None for nowhere.
      watch: called after each search that was made.
    """

    noise: Noise
    seed: int
    folder: Path | None = None
    watch: Callable[[], None] = lambda: None

    def missing(self, on: Surface, procedure: Procedure, count: int) -> int:
        """How many of `count` searches have yet to be made."""
        return max(0, count - len(self._kept(on, procedure)))

    def regrets(self, on: Surface, procedure: Procedure, count: int) -> np.ndarray:
        """The regrets [count, rungs] of independent searches."""
        found = list(self._kept(on, procedure)[:count])
        while len(found) < count:
            name = f"{on.name} {procedure} {self.seed} {len(found)}"
            found.append(regrets(on, procedure, self.noise, name))
            search.forget()
            self.watch()
            if len(found) == count or len(found) % SAVED_EVERY == 0:
                self._keep(on, procedure, np.array(found))
        return np.array(found)

    def _path(self, on: Surface, procedure: Procedure) -> Path | None:
        if self.folder is None:
            return None
        content = [on.name, repr(procedure), repr(self.noise), self.seed, _code()]
        return self.folder / f"searches-{content_id(content)}.npy"

    def _kept(self, on: Surface, procedure: Procedure) -> np.ndarray:
        path = self._path(on, procedure)
        if path and path.is_file():
            return np.load(path, allow_pickle=False)
        return np.empty((0, procedure.rungs))

    def _keep(self, on: Surface, procedure: Procedure, found: np.ndarray) -> None:
        if path := self._path(on, procedure):
            content = io.BytesIO()
            np.save(content, found)
            replace_atomically(path, lambda file: file.write(content.getvalue()))


def _code() -> str:
    """Digest of the code that searches: searches of other code are made again."""
    files = (sampling.__file__, search.__file__, surface.__file__, surfaces.__file__, __file__)
    return hashlib.sha256(b"".join(Path(name).read_bytes() for name in files)).hexdigest()


@dataclass(frozen=True)
class Luck:
    """How the regrets of searches on the same surface vary, in log loss.

    Attributes:
      mean: regret, averaged over rungs.
      by_rung: mean regret at each rung.
      tau: standard deviation of a rung's regret.
      rho: correlation of the regrets of two rungs of a search.
      overall: standard deviation of the mean over the rungs.
    """

    mean: float
    by_rung: tuple[float, ...]
    tau: float
    rho: float
    overall: float


def luck(groups: Sequence[np.ndarray]) -> Luck:
    """The luck in regrets [searches, rungs] on several surfaces, two or more searches on each."""
    within = np.concatenate([group - group.mean(0) for group in groups])
    free = len(within) - len(groups)
    covariance = within.T @ within / free
    rungs = len(covariance)
    variance = float(np.trace(covariance)) / rungs
    between = (float(covariance.sum()) - rungs * variance) / (rungs * (rungs - 1))
    by_rung = np.mean([group.mean(0) for group in groups], axis=0)
    return Luck(
        float(by_rung.mean()),
        tuple(map(float, by_rung)),
        float(np.sqrt(variance)),
        between / variance,
        float(np.sqrt(covariance.mean())),
    )
