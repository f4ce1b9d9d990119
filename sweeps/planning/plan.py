"""Turns a request into a checked plan of trials. Nothing is written or trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distill_bench.errors import UserError, suggestion
from distill_bench.tasks import catalogue
from distill_bench.tasks.task import Task
from distill_bench.tasks.variation import vary
from distill_bench.training.rules import Contract, Lane
from optimizers.contract import registry, rescheduling
from optimizers.contract.api import FUNCTIONS, Optimizer
from optimizers.contract.evaluations import Audit
from optimizers.contract.source_digest import own_files
from sweeps.planning.environment import versions
from sweeps.planning.parsing import (
    Setting,
    cast,
    parse_horizons,
    parse_range,
    parse_settings,
    parse_shard,
)
from sweeps.planning.plug_ins import absolute, resolve_watched
from sweeps.planning.request import PlanRequest
from sweeps.planning.sampling import describe_domain
from sweeps.planning.search import Search
from sweeps.planning.study import TUNING_SEED, Study, Trial

MOST_SEARCHED = 100  # hyperparameters; a search of a few hundred trials learns nothing of more


def lane_of(opt: Optimizer, hparams: Mapping[str, Any], steps: int, seed: int) -> Lane:
    """One run of the optimizer, in the form that the engine trains."""
    evaluates = not FUNCTIONS.isdisjoint(opt.extra_args)
    audit = Audit(opt.name, opt.evaluations) if evaluates else None
    contract = Contract(opt.extra_args, opt.eval_params, audit, opt.diagnostics)
    return Lane(opt.builder, hparams, steps, seed, contract, final=seed != TUNING_SEED)


@dataclass(frozen=True)
class Candidate:
    """An optimizer of the sweep.

    Attributes:
      spec: the optimizer as it was typed.
      entry: the resolved optimizer and its source.
      study: the study that its trials belong to.
      search: what to try.
      alone: whether it trains by itself, because its file tried to change settings of jax.
    """

    spec: str
    entry: registry.Resolved
    study: Study
    search: Search
    alone: bool = False

    @property
    def optimizer(self) -> Optimizer:
        return self.entry.optimizer

    @property
    def located(self) -> str:
        """`spec` with the absolute path if it names a file, for a process in another folder."""
        target, colon, attribute = self.spec.partition(":")
        return f"{self.entry.path}{colon}{attribute}" if target.endswith(".py") else self.spec

    @property
    def first(self) -> dict[str, Any]:
        """The hyperparameters of its first trial; those of all its runs if nothing is tuned."""
        return self.search.first

    def lane(self, trial: Trial) -> Lane:
        """The trial in the form that the engine trains. A trial's horizon counts gradient
        evaluations; a lane's horizon counts steps."""
        return lane_of(
            self.optimizer, trial.hparams, self.optimizer.steps(trial.horizon), trial.seed
        )

    def trial(self, hparams: Mapping[str, Any], horizon: int, seed: int) -> Trial:
        return Trial(self.study.id, dict(hparams), horizon, seed)


Job = tuple[Candidate, Trial]


@dataclass(frozen=True)
class Plan:
    """The whole sweep: tuning trials on TUNING_SEED, then the winners on fresh seeds.

    Attributes:
      task: the task, with its variation applied.
      candidates: the optimizers to compare.
      horizons: steps of each rung.
      seeds: number of fresh seeds for each winner.
      shard: (i, n) if this process runs slice i of n.
      schedule: a schedule for all optimizers instead of their own; None for their own.
    """

    task: Task
    candidates: tuple[Candidate, ...]
    horizons: tuple[int, ...]
    seeds: int
    shard: tuple[int, int] = (0, 1)
    schedule: str | None = None

    def mine(self, jobs: Sequence[Job]) -> list[Job]:
        """This shard's slice: every n-th job, starting at the i-th."""
        return list(jobs)[self.shard[0] :: self.shard[1]]

    @property
    def final_seeds(self) -> range:
        return range(TUNING_SEED + 1, TUNING_SEED + 1 + self.seeds)


def task_of(request: PlanRequest) -> Task:
    """The task with its variation.

    Raises:
      UserError: if the task is unknown, or the variation does not fit it.
    """
    return vary(catalogue.get(request.task), request.variation)


def make_plan(request: PlanRequest, importing: Callable[[str], None] = lambda spec: None) -> Plan:
    """Checks the request and lists its trials.

    importing: called with each optimizer, as typed, before its file is imported.

    Raises:
      UserError: at the first mistake.
    """
    # Before anything is imported, because a plug-in may change the current folder.
    files = {spec: absolute(spec) for spec in request.opts}
    task = task_of(request)
    horizons = parse_horizons(request.horizons, task)
    if request.trials < 1:
        raise UserError(f"--trials={request.trials} tries nothing: use 1 or more.")
    if request.seeds < 1:
        raise UserError(f"--seeds={request.seeds} leaves no final run: use 1 or more.")
    if request.schedule not in (None, *rescheduling.CHOICES):
        raise UserError(
            f"Unknown schedule {request.schedule!r}."
            f"{suggestion(request.schedule or '', rescheduling.CHOICES)}\n"
            f"Choose from: {', '.join(rescheduling.CHOICES)}."
        )
    specs = registry.builtins() if list(request.opts) == ["all"] else request.opts
    specs = request.part or specs
    resolved = _resolve_all(specs, files, importing, request.schedule)
    entries = [entry for entry, _ in resolved]
    settings = parse_settings(request.learning_rates, request.settings)
    if not request.part:  # a name may be declared by an optimizer of another part
        _check_declared(settings, entries)
    candidates = tuple(
        replace(
            _candidate(spec, entry, task, request, horizons, settings),
            alone=bool(changed),
        )
        for spec, (entry, changed) in zip(specs, resolved, strict=True)
    )
    shard = parse_shard(request.shard)
    return Plan(task, candidates, horizons, request.seeds, shard, request.schedule)


def _resolve_all(
    specs: Sequence[str],
    files: Mapping[str, str],
    importing: Callable[[str], None],
    schedule: str | None,
) -> list[tuple[registry.Resolved, list[str]]]:
    """Each optimizer, with the settings that its file tried to change."""
    if not specs:
        raise UserError(
            "Nothing to run: name an optimizer, such as --opt=shampoo.\n"
            f"Built in: {', '.join(registry.builtins())}. Your own: --opt=./my_opt.py"
        )
    found = []
    for spec in specs:
        importing(spec)
        entry, changed = resolve_watched(spec, files.get(spec))
        if schedule:
            entry = replace(entry, optimizer=rescheduling.with_schedule(entry.optimizer, schedule))
        found.append((entry, changed))
    names = [entry.optimizer.name for entry, _ in found]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"--opt names {repeated[0]!r} {names.count(repeated[0])} times. Results are stored by "
            "name: give one of them another name."
        )
    _check_files(specs, [entry for entry, _ in found])
    return found


def _check_files(specs: Sequence[str], entries: Sequence[registry.Resolved]) -> None:
    """Refuses plug-ins whose helpers have one name: a function of one might import the other's."""
    known: dict[str, tuple[str, str]] = {}  # file -> (its text, the plug-in)
    for spec, entry in zip(specs, entries, strict=True):
        for name, text in own_files(entry.sources).items():
            if name == entry.path.resolve().name:
                continue  # the plug-in's own file has a module name of its own
            other = known.setdefault(name, (text, spec))
            if other[0] != text:
                raise UserError(
                    f"--opt={other[1]} and --opt={spec} use different files called {name}. Python "
                    "keeps one module of a name: rename one of them, or run two sweeps."
                )


def _check_declared(names: Mapping[str, Any], entries: Sequence[registry.Resolved]) -> None:
    declared = sorted({name for entry in entries for name in entry.optimizer.defaults})
    for name in names:
        if name not in declared:
            raise UserError(
                f"No optimizer of this sweep has a hyperparameter {name!r}."
                f"{suggestion(name, declared)}\nThey have: {', '.join(declared)}"
            )


def _candidate(
    spec: str,
    entry: registry.Resolved,
    task: Task,
    request: PlanRequest,
    horizons: tuple[int, ...],
    settings: Mapping[str, Setting],
) -> Candidate:
    opt = entry.optimizer
    own = {name: setting for name, setting in settings.items() if name in opt.defaults}
    ranges = {
        name: domain
        for name, setting in own.items()
        if (domain := parse_range(setting, opt.space.get(name), opt.defaults[name]))
    }
    listed = {
        name: [cast(setting, text, opt.defaults[name]) for text in setting.texts]
        for name, setting in own.items()
        if name not in ranges
    }
    searched = {k: domain for k, domain in {**opt.space, **ranges}.items() if k not in listed}
    if len(searched) > MOST_SEARCHED:
        raise UserError(
            f"{opt.name} searches {len(searched)} hyperparameters; at most {MOST_SEARCHED} can be "
            "searched. Leave the domains of the others out, so that they keep their defaults, or "
            "give them values with --set."
        )
    forced = {"--schedule": request.schedule} if request.schedule and opt.scheduled else {}
    study = Study(
        task=task.name,
        fingerprint=task.fingerprint(),
        optimizer=opt.name,
        source_sha256=entry.source_sha256,
        space={name: describe_domain(domain) for name, domain in searched.items()},
        fixed={
            name: values[0] if len(values) == 1 else list(values) for name, values in listed.items()
        }
        | forced,
        versions=versions(),
    )
    search = Search(
        opt.name,
        tuple(searched.items()),
        tuple((name, tuple(values)) for name, values in listed.items()),
        request.trials,
        horizons,
    )
    search.check()
    return Candidate(spec, entry, study, search)
