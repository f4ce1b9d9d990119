"""What every entry of the leaderboard has run: the same ladder, the same search, the same seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from distill_bench.tasks import catalogue
from sweeps.board.folder import BASELINE
from sweeps.planning.sampling import parse_domain
from sweeps.planning.search import Search, key
from sweeps.planning.study import TUNING_SEED, Result, Study
from sweeps.results.summary import loss

TRIALS = 96
"""Tuning trials at the shortest horizon; the search says how many that makes at the others."""
BASELINE_FACTOR = 4  # the baseline has this many times the trials: nobody wins by tuning alone
BASELINE_OCTAVES = 2  # and runs this many doublings longer, so that a speed-up of 4 can be measured
SEEDS = 5
RUNGS = 3  # at least these many, from the shortest


def ladder(task: str, optimizer: str) -> tuple[int, ...]:
    """The horizons that the optimizer's entry may have, from the shortest."""
    horizons = catalogue.get(task).horizons
    longer = range(1, BASELINE_OCTAVES + 1) if optimizer == BASELINE else ()
    return (*horizons, *(horizons[-1] * 2**octave for octave in longer))


def trials(optimizer: str) -> int:
    """The number of tuning trials of the optimizer's entry at its shortest horizon."""
    return TRIALS * (BASELINE_FACTOR if optimizer == BASELINE else 1)


def search(study: Study, horizons: Sequence[int]) -> Search:
    """The search that the study's entry must have made, up to its longest horizon."""
    return Search(
        study.optimizer,
        tuple((name, parse_domain(domain)) for name, domain in study.space.items()),
        (),
        trials(study.optimizer),
        tuple(horizons),
    )


def searched(study: Study, results: Sequence[Result], horizons: Sequence[int]) -> list[Result]:
    """The tuning trials that belong to the entry's search, as far as their results are there.

    Others, such as those of a longer search, do not count: budgets are equal.
    """
    return [one for stage in _stages(study, results, horizons) for one in stage]


def opening(study: Study, results: Sequence[Result], horizon: int) -> list[Result]:
    """Those of the search's first stage, at the shortest horizon."""
    return next(_stages(study, results, [horizon]))


def _stages(
    study: Study, results: Sequence[Result], horizons: Sequence[int]
) -> Iterator[list[Result]]:
    """The results of each stage of the search. Each is found when it is asked for."""
    at: Mapping[tuple[int, str], Result] = {
        (r.trial.horizon, key(r.trial.hparams)): r for r in results if r.trial.seed == TUNING_SEED
    }
    losses = {place: loss(result) for place, result in at.items()}
    for stage, points in search(study, horizons).known(losses):
        places = [(stage.horizon, key(point)) for point in points]
        yield [at[place] for place in places if place in at]
