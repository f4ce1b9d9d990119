"""Checks how well an optimizer was tuned: changes one hyperparameter of a winner at a time.

The neighbours of the winners run on the winners' own final seeds, as lanes of one training, so that
each comparison is paired. The winners themselves are not run again.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from optimizers.contract import registry
from optimizers.contract.api import Optimizer
from optimizers.contract.domains import Choice
from sweeps.board import entries
from sweeps.board.entries import Entry
from sweeps.board.entry_code import optimizer_of
from sweeps.execution.execute import execute_jobs
from sweeps.execution.progress import Display
from sweeps.execution.resources import Resources
from sweeps.planning.environment import versions
from sweeps.planning.neighbours import Neighbour, neighbours
from sweeps.planning.plan import Candidate, Plan, describe_domain
from sweeps.planning.plug_ins import resolve
from sweeps.planning.search import Search
from sweeps.planning.study import TUNING_SEED, Result, Study, Trial
from sweeps.results import outdir, store
from sweeps.results.one_factor import MIN_SEEDS, Arm, Factor
from sweeps.results.summary import chosen, finals


@dataclass(frozen=True)
class Subject:
    """The tuned optimizer to check.

    Attributes:
      study: its study.
      results: its runs.
      sources: name -> text of its source files.
      spec: the optimizer as given to --opt.
      optimizer: the rule.
      path: the entry, or the folder of the study.
    """

    study: Study
    results: Sequence[Result]
    sources: Mapping[str, str]
    spec: str
    optimizer: Optimizer
    path: Path

    @property
    def horizons(self) -> list[int]:
        return sorted({result.trial.horizon for result in self.results})


@dataclass(frozen=True)
class _Trained:
    """A neighbour of the winner of one horizon, and its runs."""

    horizon: int
    name: str
    neighbour: Neighbour
    trials: tuple[Trial, ...]


@contextlib.contextmanager
def opened(path: Path, trust: bool) -> Iterator[tuple[Subject, Entry | None]]:
    """Yields what an entry or the folder of a study in a store holds, and the entry.

    Args:
      path: a file or a folder.
      trust: allow the code that an entry carries to run.

    Raises:
      UserError: if it is neither, its optimizer cannot be run, or its code, search space or task is
        not the one here.
    """
    if (path / "study.json").is_file():
        loaded = store.load_study(path)
        found = resolve(loaded.spec)
        study, contradictions = loaded.study, []
        if found.source_sha256 != study.source_sha256:
            contradictions.append("its source differs from the one here")
        described = {k: describe_domain(v) for k, v in found.optimizer.space.items()}
        if any(described.get(name) != domain for name, domain in study.space.items()):
            contradictions.append("its search space is not the one that its source declares")
        _check(path, study, contradictions)
        yield (
            Subject(study, loaded.results, loaded.sources, loaded.spec, found.optimizer, path),
            None,
        )
        return
    try:
        entry = entries.read(path.absolute())
    except entries.BadEntry as error:
        raise UserError(
            f"{path} is neither an entry nor the folder of a study: {error}.\n"
            "Name one, such as leaderboard/digits/shampoo.json or runs/digits/shampoo-0123456789ab."
        ) from None
    with optimizer_of(entry, trust) as (optimizer, contradictions):
        _check(path, entry.study, contradictions)
        yield (
            Subject(entry.study, entry.results, entry.sources, entry.spec, optimizer, path),
            entry,
        )


def _check(path: Path, study: Study, contradictions: Sequence[str]) -> None:
    found = list(contradictions)
    if study.fingerprint != catalogue.get(study.task).fingerprint():
        found.append(f"it ran on another version of the task ({study.fingerprint})")
    if found:
        raise UserError(
            f"{path} cannot be checked: {'; '.join(found)}.\n"
            "Run the optimizer again, then check it."
        )


def run(
    subject: Subject,
    horizons: Sequence[int],
    seeds: int | None,
    root: Path,
    display: Display,
    resources: Resources,
) -> list[Factor]:
    """Trains the neighbours that the store in `root` lacks; returns every factor with its runs.

    Args:
      subject: the optimizer.
      horizons: horizons to check; empty for all.
      seeds: use only this many final seeds, the first ones; None for all.
      root: folder of the results.
      display: where progress is shown.
      resources: what to train with.

    Raises:
      UserError: if a horizon is not one of the subject's or has too few final runs, or if `root`
        cannot be written or is in use.
    """
    if unknown := sorted(set(horizons) - set(subject.horizons)):
        raise UserError(
            f"--horizons={unknown[0]} is not a horizon of {subject.path}. "
            f"Use some of {', '.join(map(str, subject.horizons))}."
        )
    study = replace(subject.study, versions=versions())
    resolved = registry.Resolved(subject.optimizer, subject.path, subject.sources)
    search = Search(study.optimizer, (), (), 1, tuple(subject.horizons))  # nothing is searched
    candidate = Candidate(subject.spec, resolved, study, search)
    winners = {
        h: _winner(subject, h, seeds) for h in subject.horizons if not horizons or h in horizons
    }
    trained = [
        _Trained(
            h,
            name,
            neighbour,
            tuple(candidate.trial(hparams | {name: neighbour.value}, h, seed) for seed in by_seed),
        )
        for h, (hparams, by_seed) in winners.items()
        for name in study.space
        for neighbour in neighbours(subject.optimizer.space[name], hparams[name])
    ]
    plan = Plan(catalogue.get(study.task), (candidate,), tuple(winners), 0)
    jobs = [(candidate, trial) for one in trained for trial in one.trials]
    outdir.open_folder(str(root))
    with outdir.locked(root, display.say):
        folder = execute_jobs(plan, jobs, subject.sources, "check", root, display, resources)
        by_id = {result.trial.id: result for result in store.load_study(folder).results}
    return [
        Factor(
            h,
            name,
            not isinstance(subject.optimizer.space[name], Choice),
            by_seed,
            tuple(
                Arm(one.neighbour, {trial.seed: _loss(by_id.get(trial.id)) for trial in one.trials})
                for one in trained
                if (one.horizon, one.name) == (h, name)
            ),
        )
        for h, (_, by_seed) in winners.items()
        for name in study.space
    ]


def _winner(
    subject: Subject, horizon: int, seeds: int | None
) -> tuple[dict[str, object], dict[int, float]]:
    """The winner's hyperparameters, and its final probe losses by seed."""
    best = chosen(subject.results, horizon)
    ran = finals(subject.results, best) if best and best.trial.seed == TUNING_SEED else []
    losses = {r.trial.seed: r.final["probe_loss"] for r in ran if r.final}
    losses = dict(list(losses.items())[:seeds])
    if best is None or len(losses) < MIN_SEEDS:
        raise UserError(
            f"{subject.path} has {len(losses)} final runs at horizon {horizon}; a check needs "
            f"{MIN_SEEDS} or more, to see the noise.\n"
            "Run more seeds, or leave the horizon out with --horizons."
        )
    return best.trial.hparams, losses


def _loss(result: Result | None) -> float:
    return result.final["probe_loss"] if result and result.final else math.inf
