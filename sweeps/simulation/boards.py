"""Boards drawn from simulated searches, judged by the comparison that judges the real one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sweeps.results.comparison import Comparison
from sweeps.results.summary import Row
from sweeps.simulation.tuning import Noise

FLOOR, SCALE, POWER = 0.0294, 0.063, 0.69  # of the baseline's loss on the first digits board
BASELINE = "baseline"
SPEEDUPS = (1.0, 1.1, 1.4)
UNEVEN = (0.96, 1.19, 1.28, 1.29, 1.27, 1.15)  # measured on digits, of the most uneven entry
UNEVENS = 2  # such entrants, beside one of each of SPEEDUPS
TWELVE = 12

Place = tuple[int, int]  # which surface of the baseline's, and which of the entrants'


def law(steps: float) -> float:
    """The baseline's final loss after `steps` steps, at its best setting."""
    return FLOOR + SCALE * (steps / 1000) ** -POWER


@dataclass(frozen=True)
class Field:
    """What boards are drawn from, on one kind of surface.

    Attributes:
      baseline: regrets [searches, rungs] of the baseline, for each of its surfaces.
      entrants: regrets [searches, rungs] of entrants, for each of their surfaces.
      ladder: steps of each rung of the baseline. Those of entrants are the first.
      trials: number of trials at the shortest rung, of an entrant's search and of the baseline's.
      noise: of final runs.
      seeds: number of final runs at each rung.
    """

    baseline: Sequence[np.ndarray]
    entrants: Sequence[np.ndarray]
    ladder: tuple[int, ...]
    trials: tuple[int, int]
    noise: Noise
    seeds: int


@dataclass(frozen=True)
class Score:
    """An entrant's overall speed-up on a board.

    Attributes:
      gain: the true speed-up, both at their best settings.
      place: the surfaces of the board.
      error: log of the measured speed-up over the true one; None for none or a bound.
      interval: the logs of its interval's ends over the true one.
    """

    gain: float
    place: Place
    error: float | None
    interval: tuple[float, float] | None

    @property
    def width(self) -> float:
        """Log ratio of the interval's ends."""
        return self.interval[1] - self.interval[0] if self.interval else math.nan


@dataclass
class Tally:
    """What came out of boards.

    Attributes:
      scores: of the entrants whose true speed-ups are SPEEDUPS.
      rungs: true speed-up -> whether each interval of a single rung holds it.
      beside: like `scores`, on boards with uneven entrants too.
      uneven: scores of those, whose true speed-ups are UNEVEN along the ladder.
      separated: whether two of twelve equal entrants had different ranks, for each such board.
      winners: whether one of two equal entrants was ranked above the other, for each such board.
      separated_beside: like `separated`, if the baseline is ranked with them. It is better tuned
        than they are, and may be significantly better than some of them only.
      winners_beside: like `winners`, if the baseline is ranked with them.
    """

    scores: list[Score] = field(default_factory=list)
    rungs: dict[float, list[bool]] = field(default_factory=dict)
    beside: list[Score] = field(default_factory=list)
    uneven: list[Score] = field(default_factory=list)
    separated: list[bool] = field(default_factory=list)
    winners: list[bool] = field(default_factory=list)
    separated_beside: list[bool] = field(default_factory=list)
    winners_beside: list[bool] = field(default_factory=list)


def errors(scores: Iterable[Score], gain: float) -> list[float]:
    """The errors of those with this true speed-up."""
    return [one.error for one in scores if one.gain == gain and one.error is not None]


def holds(scores: Iterable[Score], gain: float, of_repetition: bool = False) -> list[bool]:
    """Whether each interval of those with this true speed-up holds it.

    of_repetition: instead, whether it holds what a repetition with other seeds and other searches
      gives on average. That differs from the true speed-up by the mean regrets.
    """
    mine = [one for one in scores if one.gain == gain and one.error is not None]
    centers = dict.fromkeys({one.place for one in mine}, 0.0)
    if of_repetition:
        for place in centers:
            centers[place] = float(np.mean(errors((x for x in mine if x.place == place), gain)))
    return [
        one.interval[0] <= centers[one.place] <= one.interval[1] for one in mine if one.interval
    ]


def play(of: Field, boards: int, seed: int, watch: Callable[[], None] = lambda: None) -> Tally:
    """Draws boards of four sorts, as many of each, and judges them.

    On the first, entrants have the true SPEEDUPS; on the second, there are UNEVENS uneven ones
    besides. On the third, twelve entrants equal the baseline; on the fourth, two do. The entrants
    of a board have the same surface, and searches of their own. `watch` is called after each board.
    """
    rng = np.random.default_rng([seed, boards])
    tally = Tally(rungs={gain: [] for gain in SPEEDUPS})
    equal = {f"entrant {i}": 1.0 for i in range(TWELVE)}
    two = dict(list(equal.items())[:2])
    steady = {f"{gain}": gain for gain in SPEEDUPS}
    truths = {f"uneven {i}": even(UNEVEN, of.ladder) for i in range(UNEVENS)}
    mixed = {**steady, **dict.fromkeys(truths, UNEVEN)}
    for _ in range(boards):
        place = (int(rng.integers(len(of.baseline))), int(rng.integers(len(of.entrants))))
        board = draw(of, place, steady, rng)
        tally.scores += _scores(board, place, steady)
        for gain in SPEEDUPS:
            tally.rungs[gain] += _rungs_hold(board, f"{gain}", gain)
        board = draw(of, place, mixed, rng)
        tally.beside += _scores(board, place, steady)
        tally.uneven += _scores(board, place, truths)
        board = draw(of, place, equal, rng)
        tally.separated.append(_differ(_without_baseline(board), equal))
        tally.separated_beside.append(_differ(board, equal))
        board = draw(of, place, two, rng)
        tally.winners.append(_differ(_without_baseline(board), two))
        tally.winners_beside.append(_differ(board, two))
        watch()
    return tally


def even(gains: Sequence[float], ladder: Sequence[int]) -> float:
    """The overall speed-up of an entrant without any noise, from those at its rungs."""
    base = [_row(BASELINE, horizon, 0, [law(horizon)] * 2) for horizon in ladder]
    own = [
        _row("entrant", horizon, 0, [law(gain * horizon)] * 2)
        for gain, horizon in zip(gains, ladder, strict=False)
    ]
    found = Comparison(BASELINE, base + own).overall("entrant")
    assert found is not None
    return found.value


def draw(
    of: Field,
    place: Place,
    gains: Mapping[str, float | Sequence[float]],
    rng: np.random.Generator,
) -> Comparison:
    """A board: the baseline, and entrants with these true speed-ups over it, or one per rung."""
    base, entrants = of.baseline[place[0]], of.entrants[place[1]]
    picked = rng.choice(len(entrants), len(gains), replace=len(gains) > len(entrants))
    chosen: list[tuple[str, float | Sequence[float], np.ndarray]] = [
        (BASELINE, 1.0, base[rng.integers(len(base))])
    ]
    chosen += [(name, gains[name], entrants[i]) for name, i in zip(gains, picked, strict=True)]
    common = of.noise.common * rng.normal(size=(len(of.ladder), of.seeds))
    own = math.sqrt(1 - (of.noise.common / of.noise.best) ** 2)
    rows = []
    for name, gain, regrets in chosen:
        spread = own * of.noise.deviation(regrets)[:, None]
        logs = regrets[:, None] + common[: len(regrets)]
        logs += spread * rng.normal(size=logs.shape)
        trials = of.trials[name == BASELINE]
        by_rung = np.broadcast_to(gain, len(logs)).tolist()
        for horizon, factor, values in zip(of.ladder, by_rung, logs, strict=False):
            losses = law(factor * horizon) * np.exp(values)
            rows.append(_row(name, horizon, trials, losses.tolist()))
    return Comparison(BASELINE, rows)


def _without_baseline(board: Comparison) -> Comparison:
    """The board with the baseline as a reference only: it is not ranked."""
    rows = [row for row in board.rows if row.opt != BASELINE]
    return Comparison(BASELINE, rows, [row for row in board.rows if row.opt == BASELINE])


def _differ(board: Comparison, names: Collection[str]) -> bool:
    """Whether two of these optimizers have different ranks."""
    ranks = board.ranks()
    return len({ranks[name] for name in names}) > 1


def _row(name: str, horizon: int, trials: int, losses: Sequence[float]) -> Row:
    return Row(
        opt=name,
        task="simulated",
        horizon=horizon,
        status="ok",
        mean={"probe_loss": float(np.mean(losses))},
        std={"probe_loss": float(np.std(losses, ddof=1))},
        seeds=len(losses),
        trials=trials,
        diverged=0,
        crashed=0,
        hparams={},
        by_seed=dict(enumerate(losses, 1)),
    )


def _scores(board: Comparison, place: Place, gains: Mapping[str, float]) -> Iterator[Score]:
    for name, gain in gains.items():
        found, truth = board.overall(name), math.log(gain)
        if found is None or found.bound != "=":
            yield Score(gain, place, None, None)
            continue
        ends = found.interval
        interval = (math.log(ends[0]) - truth, math.log(ends[1]) - truth) if ends else None
        yield Score(gain, place, math.log(found.value) - truth, interval)


def _rungs_hold(board: Comparison, name: str, gain: float) -> list[bool]:
    """Whether the interval of each single rung holds the true speed-up."""
    found = [one.interval for one in board.speedups(name) if one and one.interval]
    return [low <= gain <= high for low, high in found]
