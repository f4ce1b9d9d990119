"""The search for good hyperparameters: many short trials, few long ones.

Each rung of the ladder gets about the same number of steps: 48 trials of 125 steps, 24 of 250, and
so on. Half of a rung's trials are the best settings of the rung below; the others are where a
surface through all results so far (see surface.py) expects the lowest loss. The shortest rung
starts with points spread over the whole space. Each optimizer has points of its own: points common
to all would give all the same luck.

A search is a pure function of the results: any machine that has them names the same next trials.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill_bench.errors import UserError
from optimizers.contract.domains import Choice, Domain
from sweeps.planning import sampling, surface

Hparams = Mapping[str, Any]
Tried = tuple[int, str, float]  # horizon, `key` of the hyperparameters, final loss (inf if failed)

MIN_TRIALS = 3  # at a rung
SPREAD = 0.5  # share of the shortest rung's trials that are spread over the whole space
PROMOTED = 0.5  # share of any other rung's trials that come from the rung below
APART = 0.1  # least distance of proposed points, in fractions of a range
POOL = 512  # points among which the best are proposed; as many again are near the best tried
NEAR = 0.12  # standard deviation of those points
NEAREST = 8  # number of tried points that they are near to
CLOSE = 0.05  # a winner's own log loss is at most this much above the lowest


def key(hparams: Hparams) -> str:
    """Identifies hyperparameters: their canonical JSON."""
    return json.dumps(dict(hparams), sort_keys=True)


@dataclass(frozen=True)
class Stage:
    """Trials that run together, because the choice of later ones depends on them.

    Attributes:
      horizon: steps of each trial.
      part: position among the stages of its rung.
      count: number of trials.
    """

    horizon: int
    part: int
    count: int


@dataclass(frozen=True)
class Search:
    """What to try for one optimizer.

    Attributes:
      name: name of the optimizer; it picks the points.
      space: (name, domain) of each searched hyperparameter.
      listed: (name, values) of each hyperparameter whose values the user wrote.
      trials: number of trials at the shortest rung.
      horizons: steps of each rung, ascending.
      proposals: whether a surface proposes some of the points; without, those of the shortest rung
        are spread, and those of every other rung come from the rung below.
    """

    name: str
    space: tuple[tuple[str, Domain], ...]
    listed: tuple[tuple[str, tuple[Any, ...]], ...]
    trials: int
    horizons: tuple[int, ...]
    proposals: bool = True

    @functools.cached_property
    def combinations(self) -> list[dict[str, Any]]:
        """The combinations of the listed values; one empty one if nothing is listed."""
        return sampling.combinations(dict(self.listed))

    @property
    def needs_tuning(self) -> bool:
        """Whether there is more than one setting to choose from."""
        return (bool(self.space) and self.trials > 1) or len(self.combinations) > 1

    @functools.cached_property
    def first(self) -> dict[str, Any]:
        """The hyperparameters of its first trial; those of all its runs if nothing is chosen."""
        opening = Stage(self.horizons[0], 0, 1)
        return next(_spread(self, opening)) if self.space else self.combinations[0]

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in order; none if there is nothing to choose."""
        if not self.needs_tuning:
            return ()
        if not self.space:
            return tuple(Stage(h, 0, len(self.combinations)) for h in self.horizons)
        first, found = self.horizons[0], []
        for horizon in self.horizons:
            count = max(min(MIN_TRIALS, self.trials), round(self.trials * first / horizon))
            parts = [count]
            if horizon == first and len(self.combinations) == 1 and count >= 8:
                spread = math.ceil(SPREAD * count) if self.proposals else count
                parts = [spread, (count - spread + 1) // 2, (count - spread) // 2]
            found += [Stage(horizon, part, n) for part, n in enumerate(parts) if n]
        return tuple(found)

    def counts(self) -> dict[int, int]:
        """Horizon -> number of trials."""
        found: dict[int, int] = {}
        for stage in self.stages:
            found[stage.horizon] = found.get(stage.horizon, 0) + stage.count
        return found

    def check(self) -> None:
        """Raises UserError if there are too few trials to try every listed combination."""
        if self.space and self.trials < len(self.combinations):
            raise UserError(
                f"--trials={self.trials} cannot try all {len(self.combinations)} combinations of "
                f"the listed values: use --trials={len(self.combinations)} or more."
            )

    def known(
        self, losses: Mapping[tuple[int, str], float]
    ) -> Iterator[tuple[Stage, tuple[dict[str, Any], ...]]]:
        """The stages whose trials are known, in order, each with its hyperparameters.

        losses: (horizon, `key` of hyperparameters) -> final loss of a finished trial; inf if it
          failed. The first stage with an unfinished trial is the last that is known.
        """
        tried: tuple[Tried, ...] = ()
        for stage in self.stages:
            points = _points(self, stage, tried)
            yield stage, points
            if not all((stage.horizon, key(point)) in losses for point in points):
                return
            tried += tuple(
                (stage.horizon, key(point), losses[stage.horizon, key(point)]) for point in points
            )


@functools.lru_cache(maxsize=1024)
def _points(search: Search, stage: Stage, tried: tuple[Tried, ...]) -> tuple[dict[str, Any], ...]:
    """The hyperparameters of a stage, given the results of all stages before it."""
    if not search.space:
        return tuple(search.combinations)
    below = [one for one in tried if one[0] < stage.horizon]
    here = [one[1] for one in tried if one[0] == stage.horizon]
    model = _model(search, tried)
    chosen: dict[str, dict[str, Any]] = {}
    if stage.part == 0 and below:
        last = max(horizon for horizon, _, _ in below)
        up = [one for one in below if one[0] == last]
        order = _ranking(search, model, up, stage.horizon)
        share = PROMOTED if model and search.proposals else 1.0
        for i in order[: math.ceil(share * stage.count)]:
            chosen[up[i][1]] = _in_order(search, json.loads(up[i][1]))
    fresh = _proposed(search, model, stage, tried) if model else _spread(search, stage)
    for point in fresh:
        if len(chosen) == stage.count:
            break
        if key(point) not in here:
            chosen.setdefault(key(point), point)
    return tuple(chosen.values())


def _in_order(search: Search, hparams: Hparams) -> dict[str, Any]:
    """The hyperparameters in the order in which the optimizer declares them, listed ones first."""
    names = [*(name for name, _ in search.listed), *(name for name, _ in search.space)]
    return {name: hparams[name] for name in names}


def _spread(search: Search, stage: Stage) -> Iterator[dict[str, Any]]:
    """Points spread over the whole space, more than a stage needs."""
    scramble = f"{search.name} {stage.horizon} {stage.part}"
    points = sampling.spread(len(search.space), 4 * stage.count, scramble)
    for i, point in enumerate(points):
        combination = search.combinations[i % len(search.combinations)]
        yield combination | sampling.at(dict(search.space), point)


def _model(search: Search, tried: tuple[Tried, ...]) -> surface.Surface | None:
    """The surface through the results; None if they are too few, or on a grid of listed values."""
    if not _enough(search.space, tried) or len(search.combinations) > 1:
        return None
    return _fitted(search.space, tried)


def _enough(space: Collection[Any], tried: Sequence[Tried]) -> bool:
    """Whether the results are as many as a surface over the space needs."""
    return sum(math.isfinite(loss) for _, _, loss in tried) >= 2 * (len(space) + 1)


@functools.lru_cache(maxsize=256)
def _fitted(space: tuple[tuple[str, Domain], ...], tried: tuple[Tried, ...]) -> surface.Surface:
    return surface.fit(
        _places(space, [place for _, place, _ in tried]),
        np.array([horizon for horizon, _, _ in tried]),
        np.array([loss for _, _, loss in tried]),
    )


def forget() -> None:
    """Frees the memory that keeps the surfaces of earlier searches."""
    _points.cache_clear()
    _fitted.cache_clear()


def _places(space: Sequence[tuple[str, Domain]], keys: Sequence[str]) -> np.ndarray:
    found = [sampling.fractions(dict(space), json.loads(one)) for one in keys]
    return np.array(found, float).reshape(len(keys), len(space))


def _ranking(
    search: Search, model: surface.Surface | None, tried: Sequence[Tried], horizon: int
) -> list[int]:
    """The trials' indices from the best: by the surface at this horizon, else by their losses."""
    heights = (
        model.mean(_places(search.space, [place for _, place, _ in tried]), horizon)
        if model
        else np.array([loss for _, _, loss in tried])
    )
    failed = [not math.isfinite(loss) for _, _, loss in tried]
    return sorted(range(len(tried)), key=lambda i: (failed[i], heights[i]))


def _proposed(
    search: Search, model: surface.Surface, stage: Stage, tried: Sequence[Tried]
) -> Iterator[dict[str, Any]]:
    """Points where the surface may be low, the most promising first.

    As many as the stage needs are APART from one another. All others of the pool follow, for a
    space that is too small for that or whose best points have been tried.
    """
    scramble = f"{search.name} {stage.horizon} {stage.part} proposed"
    places = _places(search.space, [place for _, place, _ in tried])
    near = places[_ranking(search, model, tried, stage.horizon)[:NEAREST]]
    pool = np.concatenate(
        [
            sampling.spread(len(search.space), POOL, scramble),
            np.clip(
                np.repeat(near, -(-POOL // len(near)), 0)[:POOL] + _steps(search, scramble), 0, 1
            ),
        ]
    )
    pool = _canonical(search.space, pool)
    order = np.argsort(model.bounds(pool, stage.horizon), kind="stable")
    chosen: list[int] = []
    for i in order:
        if len(chosen) == stage.count:
            break
        if all(np.abs(pool[i] - pool[j]).max() > APART for j in chosen):
            chosen.append(int(i))
    fixed, first = search.combinations[0], set(chosen)
    for i in [*chosen, *(int(i) for i in order if int(i) not in first)]:
        yield fixed | sampling.at(dict(search.space), pool[i])


def _steps(search: Search, scramble: str) -> np.ndarray:
    """Normal steps [POOL, d] of standard deviation NEAR."""
    from scipy.special import ndtri

    uniform = sampling.spread(len(search.space), POOL, f"{scramble} near")
    return NEAR * ndtri(np.clip(uniform, 1e-6, 1 - 1e-6))


def _canonical(space: Sequence[tuple[str, Domain]], points: np.ndarray) -> np.ndarray:
    """The points with each choice moved to the middle of its part, where the surface knows it."""
    for i, (_, domain) in enumerate(space):
        if isinstance(domain, Choice):
            n = len(domain.values)
            points[:, i] = (np.minimum((points[:, i] * n).astype(int), n - 1) + 0.5) / n
    return points


def select(space: Mapping[str, Domain], tried: Sequence[Tried], horizon: int) -> str | None:
    """The `key` of the best trial at a horizon; None if all its trials failed.

    A single run is noisy, so the best of many is partly lucky. Of the trials whose loss is CLOSE to
    the lowest, the one that the surface through all results expects to be best is chosen. Without
    enough results for a surface, the lowest loss decides; the first of equal ones.
    """
    here = [one for one in tried if one[0] == horizon and math.isfinite(one[2])]
    if not here:
        return None
    lowest = min(loss for _, _, loss in here)
    if not space or not _enough(space, tried):
        return next(place for _, place, loss in here if loss == lowest)
    close = [one for one in here if one[2] <= lowest * math.exp(CLOSE)]
    places = _places(list(space.items()), [place for _, place, _ in close])
    heights = _fitted(tuple(space.items()), tuple(tried)).mean(places, horizon)
    return close[int(np.argmin(heights))][1]
