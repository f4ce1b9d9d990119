"""Boards drawn from simulated searches, judged by the comparison that judges the real one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sweeps.results.comparison import Comparison
from sweeps.results.summary import Row
from sweeps.simulation.tuning import Noise

FLOOR, SCALE, POWER = 0.0294, 0.063, 0.69  # the law of the baseline's loss, at 1000 steps
BASELINE = "baseline"
SPEEDUPS = (1.0, 1.1, 1.4)
TWELVE = 12


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
      noise: of final runs.
      seeds: number of final runs at each rung.
    """

    baseline: Sequence[np.ndarray]
    entrants: Sequence[np.ndarray]
    ladder: tuple[int, ...]
    noise: Noise
    seeds: int = 5


@dataclass
class Tally:
    """What came out of boards; counts, and one value for each interval or score.

    Attributes:
      covered: true speed-up -> whether each overall interval holds it.
      covered_rungs: true speed-up -> whether each rung's interval holds it.
      widths: log ratio of the ends of each overall interval, in all boards.
      errors: true speed-up -> log of each overall speed-up over it.
      unmeasured: number of entrants without an overall speed-up, or with a bound only.
      without: number of overall speed-ups without an interval.
      entrants: number of entrants whose speed-up was wanted.
      separated: whether two of twelve equal entrants had different ranks, for each such board.
      from_baseline: whether one of them had another rank than the baseline.
      winners: whether one of two equal entrants was ranked above the other, for each such board.
    """

    covered: dict[float, list[bool]] = field(default_factory=dict)
    covered_rungs: dict[float, list[bool]] = field(default_factory=dict)
    widths: list[float] = field(default_factory=list)
    errors: dict[float, list[float]] = field(default_factory=dict)
    unmeasured: int = 0
    without: int = 0
    entrants: int = 0
    separated: list[bool] = field(default_factory=list)
    from_baseline: list[bool] = field(default_factory=list)
    winners: list[bool] = field(default_factory=list)


def play(of: Field, boards: int, seed: int) -> Tally:
    """Draws boards of three sorts, as many of each, and judges them.

    On the first, entrants have the true SPEEDUPS. On the second, twelve entrants equal the
    baseline; on the third, two do. Equal entrants have the same surface and searches of their own.
    """
    rng, tally = np.random.default_rng([seed, boards]), Tally()
    for _ in range(boards):
        gains = {f"x{gain}": gain for gain in SPEEDUPS}
        _measure(draw(of, gains, rng), gains, tally)
        names = {f"entrant{i}": 1.0 for i in range(TWELVE)}
        ranks = draw(of, names, rng).ranks()
        equal = {ranks[name] for name in names}
        tally.separated.append(len(equal) > 1)
        tally.from_baseline.append(equal != {ranks[BASELINE]})
        ranks = draw(of, dict(list(names.items())[:2]), rng).ranks()
        tally.winners.append(ranks["entrant0"] != ranks["entrant1"])
    return tally


def draw(of: Field, gains: Mapping[str, float], rng: np.random.Generator) -> Comparison:
    """A board: the baseline, and entrants with these true speed-ups over it."""
    seeds = range(1, of.seeds + 1)
    own = math.sqrt(of.noise.best**2 - of.noise.common**2) / of.noise.best
    common = of.noise.common * rng.normal(size=(len(of.ladder), of.seeds))
    searches = of.baseline[rng.integers(len(of.baseline))]
    chosen = [(BASELINE, 1.0, searches[rng.integers(len(searches))])]
    searches = of.entrants[rng.integers(len(of.entrants))]
    picked = rng.choice(len(searches), len(gains), replace=len(gains) > len(searches))
    chosen += [(name, gains[name], searches[i]) for name, i in zip(gains, picked, strict=True)]
    rows = []
    for name, gain, regrets in chosen:
        spread = own * of.noise.deviation(regrets)[:, None] * rng.normal(
            size=(len(regrets), of.seeds)
        )
        logs = regrets[:, None] + spread + common[: len(regrets)]
        for horizon, values in zip(of.ladder, logs, strict=False):
            losses = law(gain * horizon) * np.exp(values)
            rows.append(_row(name, horizon, dict(zip(seeds, losses.tolist(), strict=True))))
    return Comparison(BASELINE, rows)


def _row(name: str, horizon: int, losses: dict[int, float]) -> Row:
    mean = float(np.mean(list(losses.values())))
    return Row(
        opt=name,
        task="simulated",
        horizon=horizon,
        status="ok",
        mean={"probe_loss": mean},
        std={"probe_loss": float(np.std(list(losses.values()), ddof=1))},
        seeds=len(losses),
        trials=1,
        diverged=0,
        crashed=0,
        hparams={},
        by_seed=losses,
    )


def _measure(board: Comparison, gains: Mapping[str, float], tally: Tally) -> None:
    for name, truth in gains.items():
        tally.entrants += 1
        found = board.overall(name)
        if found is None or found.bound != "=":
            tally.unmeasured += 1
        else:
            tally.errors.setdefault(truth, []).append(math.log(found.value / truth))
            if found.interval is None:
                tally.without += 1
            else:
                low, high = found.interval
                tally.covered.setdefault(truth, []).append(low <= truth <= high)
                tally.widths.append(math.log(high / low))
        for rung in board.speedups(name):
            if rung and rung.interval:
                holds = rung.interval[0] <= truth <= rung.interval[1]
                tally.covered_rungs.setdefault(truth, []).append(holds)
