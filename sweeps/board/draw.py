"""Draws the runs of an entry that a verifier reruns, so that its author cannot know them before."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from distill_bench.errors import UserError
from sweeps.board.entries import Entry
from sweeps.planning.study import TUNING_SEED, Result
from sweeps.results.summary import chosen

TUNING = 4
"""Tuning trials of an entry that are rerun by default."""
_WINNER = 1 / 3  # chance that a draw at a rung is its winner, on which everything rests


@dataclass(frozen=True)
class Request:
    """What to rerun.

    Attributes:
      seeds: number of final runs at each horizon; None for all.
      tuning: number of tuning trials, over all horizons together.
      horizons: horizons to rerun; empty for all.
      seed: seed of the draw, to repeat one; None for a fresh one.
    """

    seeds: int | None = None
    tuning: int = TUNING
    horizons: Sequence[int] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Drawn:
    """The runs to rerun.

    Attributes:
      seed: seed of the draw.
      finals: final runs.
      tuning: tuning trials, each with its index among those of its rung.
    """

    seed: int
    finals: tuple[Result, ...]
    tuning: tuple[tuple[int, Result], ...]


def trials_of(entry: Entry, horizon: int) -> list[Result]:
    """The tuning trials of a rung, in the entry's order."""
    return [r for r in entry.results if r.trial.horizon == horizon and r.trial.seed == TUNING_SEED]


def finals_of(entry: Entry, horizon: int) -> list[Result]:
    """The final runs of a rung that did not fail, ordered by seed."""
    here = [
        r
        for r in entry.results
        if r.trial.horizon == horizon and r.trial.seed != TUNING_SEED and r.final
    ]
    return sorted(here, key=lambda r: r.trial.seed)


def draw(entry: Entry, request: Request) -> Drawn:
    """Draws final runs and tuning trials.

    Finals are of the same seeds at each horizon as far as it has them, because runs of one seed
    share the teacher's work. Tuning trials are spread over the horizons; trials that timed out are
    never drawn, because their reruns may hang.

    Raises:
      UserError: if the entry lacks one of the horizons.
    """
    if unknown := sorted(set(request.horizons) - set(entry.horizons)):
        raise UserError(
            f"--horizons={unknown[0]} is not a horizon of {entry.path}. "
            f"Use some of {', '.join(map(str, entry.horizons))}."
        )
    seed = secrets.randbits(32) if request.seed is None else request.seed
    rng = random.Random(seed)
    horizons = [h for h in entry.horizons if not request.horizons or h in request.horizons]
    finals = {h: finals_of(entry, h) for h in horizons}
    order = _shuffled(rng, sorted({r.trial.seed for runs in finals.values() for r in runs}))
    drawn = [
        sorted(runs, key=lambda r: order.index(r.trial.seed))[: request.seeds]
        for runs in finals.values()
    ]
    return Drawn(
        seed,
        tuple(r for runs in drawn for r in sorted(runs, key=lambda r: r.trial.seed)),
        tuple(_draw_tuning(entry, rng, horizons, request.tuning)),
    )


def _draw_tuning(
    entry: Entry, rng: random.Random, horizons: Sequence[int], count: int
) -> list[tuple[int, Result]]:
    left = {h: [(i, r) for i, r in enumerate(trials_of(entry, h))] for h in horizons}
    best = {h: chosen(entry.results, h) for h in horizons}
    left = {h: [one for one in trials if one[1].status != "timeout"] for h, trials in left.items()}
    order, drawn = _shuffled(rng, horizons), []
    while len(drawn) < count and any(left.values()):
        for h in order:
            if not left[h] or len(drawn) == count:
                continue
            winners = [one for one in left[h] if one[1] is best[h]]
            others = [one for one in left[h] if one[1] is not best[h]]
            from_winners = rng.random() < _WINNER
            among = (winners or others) if from_winners else (others or winners)
            one = among[int(rng.random() * len(among))]
            left[h].remove(one)
            drawn.append(one)
    return sorted(drawn, key=lambda one: (one[1].trial.horizon, one[0]))


def _shuffled(rng: random.Random, values: Sequence[int]) -> list[int]:
    # By random() alone, which gives the same numbers in every version of Python.
    keys = {value: rng.random() for value in values}
    return sorted(values, key=lambda value: keys[value])
