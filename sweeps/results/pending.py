"""What the store lacks of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.planning.plan import Candidate, Job, Plan
from sweeps.planning.study import Result
from sweeps.results import store
from sweeps.results.summary import winner


@dataclass(frozen=True)
class Pending:
    """The runs of a plan, or of its shard, that are still to come.

    Attributes:
      tuning: the tuning trials.
      finals: the final runs. While tuning trials are missing, the winner is not known, and the
        first trial's hyperparameters stand in for it.
    """

    tuning: tuple[Job, ...]
    finals: tuple[Job, ...]


def results_of(root: Path, candidate: Candidate) -> Sequence[Result]:
    """The candidate's stored results; none if its folder does not exist."""
    folder = store.study_folder(root, candidate.study)
    return store.load_study(folder).results if (folder / "study.json").exists() else ()


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


def finals(plan: Plan, root: Path) -> list[Job]:
    """The final runs of every candidate that has a winner, at every horizon."""
    jobs = []
    for candidate in plan.candidates:
        results = results_of(root, candidate) if candidate.needs_tuning else ()
        for horizon in plan.horizons:
            best = winner(results, horizon)
            if best or not candidate.needs_tuning:
                hparams = best.trial.hparams if best else candidate.trials[0]
                jobs += _finals_of(plan, candidate, hparams, horizon)
    return jobs


def _finals_of(
    plan: Plan, candidate: Candidate, hparams: Mapping[str, Any], horizon: int
) -> list[Job]:
    return [(candidate, candidate.trial(hparams, horizon, seed)) for seed in plan.final_seeds]


def pending(plan: Plan, root: Path) -> Pending:
    """The runs that are still to come. Writes nothing; `root` need not exist."""
    done = finished(root, plan.candidates)
    missing = [job for job in plan.tuning if job[1].id not in done]
    untuned = {(candidate.study.id, trial.horizon) for candidate, trial in missing}

    def known(job: Job) -> bool:
        return (job[0].study.id, job[1].horizon) not in untuned

    winners = [job for job in finals(plan, root) if known(job)]
    stand_ins = [
        job
        for candidate in plan.candidates
        for horizon in plan.horizons
        for job in _finals_of(plan, candidate, candidate.trials[0], horizon)
        if not known(job)
    ]
    mine = {trial.id for _, trial in plan.mine(plan.tuning)}
    return Pending(
        tuple(job for job in missing if job[1].id in mine),
        tuple(
            job for job in plan.mine(winners + stand_ins) if job[1].id not in done or not known(job)
        ),
    )
