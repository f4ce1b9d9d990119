"""What the store lacks of a plan."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.planning.plan import Candidate, Job, Plan
from sweeps.planning.search import key
from sweeps.planning.study import TUNING_SEED, Result
from sweeps.results import store, trial_files
from sweeps.results.summary import loss, winner


@dataclass(frozen=True)
class Pending:
    """The runs of a plan, or of its shard, that are still to come.

    Attributes:
      tuning: the tuning trials. Where they depend on results that are missing, the first trial's
        hyperparameters stand in.
      finals: the final runs, with stand-ins while the winner is not known.
    """

    tuning: tuple[Job, ...]
    finals: tuple[Job, ...]


def results_of(root: Path, candidate: Candidate) -> Sequence[Result]:
    """The candidate's stored results; none if its folder does not exist."""
    folder = store.study_folder(root, candidate.study)
    return trial_files.load_trials(folder)[0] if folder.is_dir() else ()


def finished(root: Path, candidates: Iterable[Candidate]) -> frozenset[str]:
    """Ids of the candidates' trials that the store holds as finished. A crashed trial does not
    count, because the cause of the crash may be gone."""
    unique = {candidate.study.id: candidate for candidate in candidates}
    return frozenset(
        result.trial.id
        for candidate in unique.values()
        for result in results_of(root, candidate)
        if result.status in ("ok", "diverged")
    )


@dataclass(frozen=True)
class _Searched:
    """How far a candidate's search has come.

    Attributes:
      stages: for each known stage, its trials.
      tried: the results of these trials; a crash counts as a failure.
      complete: whether every trial of every stage has a result.
    """

    stages: tuple[tuple[Job, ...], ...]
    tried: tuple[Result, ...]
    complete: bool


def _searched(root: Path, candidate: Candidate) -> _Searched:
    results = [r for r in results_of(root, candidate) if r.trial.seed == TUNING_SEED]
    at = {(result.trial.horizon, key(result.trial.hparams)): result for result in results}
    stages, tried, complete = [], [], True
    for stage, points in candidate.search.known({place: loss(r) for place, r in at.items()}):
        stages.append(
            tuple(
                (candidate, candidate.trial(point, stage.horizon, TUNING_SEED)) for point in points
            )
        )
        found = [at.get((stage.horizon, key(point))) for point in points]
        tried += [result for result in found if result]
        complete = None not in found
    return _Searched(tuple(stages), tuple(tried), complete)


def tuning(plan: Plan, root: Path) -> list[tuple[Job, ...]]:
    """The tuning trials whose hyperparameters are known, those of each candidate's stages."""
    return [stage for candidate in plan.candidates for stage in _searched(root, candidate).stages]


def mine(plan: Plan, stages: Sequence[Sequence[Job]]) -> list[Job]:
    """The shard's share of each stage, so that it does not depend on how far others have come."""
    return [job for stage in stages for job in plan.mine(stage)]


def is_tuned(plan: Plan, root: Path, without: Collection[str] = ()) -> bool:
    """Whether every search is complete, but for optimizers of the names in `without`."""
    return all(
        _searched(root, candidate).complete
        for candidate in plan.candidates
        if candidate.optimizer.name not in without
    )


def finals(plan: Plan, root: Path) -> list[Job]:
    """The final runs of every candidate whose search is complete, at every horizon with a winner.

    Results of other trials in the store do not count: an earlier, longer search must not change
    what this plan chooses.
    """
    jobs = []
    for candidate in plan.candidates:
        if not candidate.search.needs_tuning:
            for horizon in plan.horizons:
                jobs += _finals_of(plan, candidate, candidate.first, horizon)
            continue
        searched = _searched(root, candidate)
        if searched.complete:
            for horizon in plan.horizons:
                if best := winner(candidate.study, searched.tried, horizon):
                    jobs += _finals_of(plan, candidate, best.trial.hparams, horizon)
    return jobs


def _finals_of(plan: Plan, candidate: Candidate, hparams: dict, horizon: int) -> list[Job]:
    return [(candidate, candidate.trial(hparams, horizon, seed)) for seed in plan.final_seeds]


def pending(plan: Plan, root: Path) -> Pending:
    """The runs that are still to come. Writes nothing; `root` need not exist."""
    done = finished(root, plan.candidates)
    missing: list[Job] = []
    stand_ins: list[Job] = []
    for candidate in plan.candidates:
        searched = _searched(root, candidate)
        missing += [job for job in mine(plan, searched.stages) if job[1].id not in done]
        unknown = candidate.search.stages[len(searched.stages) :]
        missing += [
            job
            for stage in unknown
            for job in plan.mine(
                [(candidate, candidate.trial(candidate.first, stage.horizon, TUNING_SEED))]
                * stage.count
            )
        ]
        if candidate.search.needs_tuning and not searched.complete:
            for horizon in plan.horizons:
                stand_ins += _finals_of(plan, candidate, candidate.first, horizon)
    winners = [job for job in plan.mine(finals(plan, root)) if job[1].id not in done]
    return Pending(tuple(missing), (*winners, *plan.mine(stand_ins)))
