"""A plan's trials -> results in the store, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_bench.training.engine import Engine
from distill_bench.training.events import (
    Alive,
    Compiled,
    Event,
    Finished,
    Losses,
    Point,
    Snapshot,
    Waiting,
)
from distill_bench.training.lane_state import Saved
from distill_bench.training.train import train
from optimizers.contract import source_digest
from sweeps.execution import multihost
from sweeps.execution.profiling import Profiler
from sweeps.execution.resources import Display, Resources
from sweeps.execution.tensorboard import write_layout
from sweeps.execution.trial_sink import TrialSink
from sweeps.planning.plan import Candidate, Plan, environment, own_traceback
from sweeps.planning.study import Trial
from sweeps.results import store
from sweeps.results.summary import winner

Job = tuple[Candidate, Trial]


@dataclass(frozen=True)
class Faults:
    """What earlier processes of the same sweep died of.

    alone: optimizers to be run by themselves.
    dead: optimizers not to be run again -> (status, what happened).
    """

    alone: frozenset[str] = frozenset()
    dead: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass
class _Runner:
    """Runs jobs, with everything that they share: the engine is opened when the first trial needs it."""

    plan: Plan
    root: Path
    display: Display
    faults: Faults
    where: Resources
    environment: dict[str, Any]
    profiler: Profiler | None
    engine: Engine | None = None

    def run(self, label: str, jobs: Sequence[Job]) -> None:
        """All jobs whose optimizers are not suspected of anything together, then each suspect's by themselves."""
        names = {candidate.optimizer.name for candidate, _ in jobs}
        together = names - self.faults.alone - self.faults.dead.keys()
        for company in [
            together,
            *({name} for name in sorted(names & self.faults.alone - self.faults.dead.keys())),
        ]:
            self._train(label, [job for job in jobs if job[0].optimizer.name in company])
        for job in jobs:
            if job[0].optimizer.name in self.faults.dead:
                status, detail = self.faults.dead[job[0].optimizer.name]
                self._sink(job).finish(status, 0, detail)

    def _train(self, label: str, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        names = sorted({candidate.optimizer.name for candidate, _ in jobs})
        self.display.suspect(names)
        sinks = [self._sink(job) for job in jobs]
        resume = {i: sink.saved for i, sink in enumerate(sinks) if sink.saved}
        told: set[str] = set()
        left = sum(candidate.optimizer.steps(trial.horizon) for candidate, trial in jobs) - sum(
            saved.step for saved in resume.values()
        )
        self.display.begin(label, left)
        events = self._events(jobs, resume)
        for event in self.profiler.watch(events) if self.profiler else events:
            match event:
                case Losses(lane, first, values):
                    sinks[lane].losses(first, values)
                    self.display.advance(len(values))
                case Point(lane, step, metrics, told_of_rule):
                    sinks[lane].point(step, metrics, told_of_rule)
                case Snapshot(lane, saved):
                    sinks[lane].save(saved)
                case Waiting(lane) | Alive(lane):
                    self.display.suspect([jobs[lane][0].optimizer.name])
                case Finished(lane, status, step, detail):
                    sinks[lane].finish(status, step, detail)
                    _tell(self.display, told, jobs[lane], event)
                case Compiled():
                    self.display.suspect(names)
                    _tell_compiled(self.display, told, jobs, event)
                    self.display.begin(label, left)

    def _sink(self, job: Job) -> TrialSink:
        return TrialSink(
            self.root,
            *job,
            self.environment,
            self.display.say,
            resumes=self.where.executor != "ray",
        )

    def _events(self, jobs: Sequence[Job], resume: dict[int, Saved]) -> Iterator[Event]:
        if self.where.executor == "ray":
            from sweeps.execution import ray_executor

            specs = [(dict(trial.hparams), trial.horizon, trial.seed) for _, trial in jobs]
            typed = [candidate.spec for candidate, _ in jobs]
            return ray_executor.run(self.plan.task.name, self.where, typed, specs)
        lanes, names = (
            [candidate.lane(trial) for candidate, trial in jobs],
            [candidate.optimizer.name for candidate, _ in jobs],
        )
        due = _every(self.where.checkpoint_seconds)
        if self.where.executor == "multihost":
            return multihost.lead(
                lambda: self._open(names), names, lanes, resume, due, self.where.diagnose()
            )
        return train(self._open(names), lanes, resume, due, self.where.diagnose())

    def _open(self, names: Sequence[str]) -> Engine:
        """The engine, for trials of these optimizers. None of them is waited for while it is opened, which may be for a download."""
        if self.engine is None:
            self.display.suspect([])
            self.display.say(f"Opening {self.plan.task.name}: data, teacher, compilation ...")
            self.engine = self.where.open_engine(self.plan.task)
            self.display.suspect(sorted(set(names)))
        return self.engine


def _every(seconds: float) -> Callable[[], bool]:
    """True when so many seconds have passed since what the last True led to was done, which is when it is asked again."""
    last, was_due = time.monotonic(), False

    def due() -> bool:
        nonlocal last, was_due
        now = time.monotonic()
        if was_due and seconds:
            last, was_due = now, False
        else:
            was_due = now - last >= seconds
        return was_due

    return due


def _tell(display: Display, told: set[str], job: Job, event: Finished) -> None:
    """One line for a divergence, and a plug-in's exception once."""
    candidate, trial = job
    name = candidate.optimizer.name
    if event.status == "diverged":
        display.say(f"{name} diverged: {event.detail} ({trial.name})")
    elif event.status == "crashed" and name not in told:
        told.add(name)
        own = own_traceback([event.detail or ""], str(candidate.entry.path.resolve()))
        display.say(
            f"{name} crashed; its trials have ended, the others go on. Its own error:\n\n{own}\n"
        )


def _tell_compiled(display: Display, told: set[str], jobs: Sequence[Job], event: Compiled) -> None:
    if event.rules:
        display.say(
            f"Compiled {event.rules} update rule{'s' * (event.rules > 1)} for {len(jobs)} trials in {event.seconds:.0f} s"
        )
    for lane, names in event.static.items():
        name = jobs[lane][0].optimizer.name
        if (
            floats := [n for n in names if isinstance(jobs[lane][1].hparams.get(n), float)]
        ) and name not in told:
            told.add(name)
            display.say(
                f"{name} view_specs at the value of {', '.join(floats)} in Python: it is compiled once for each value."
            )


def execute(
    plan: Plan, root: Path, display: Display, where: Resources, faults: Faults
) -> list[Path]:
    """Runs what the store lacks of the plan: the tuning trials, then the winners on fresh seeds. Returns its studies' folders.

    With a shard in the plan, the finals wait until the tuning trials of all shards are there.
    """
    folders = []
    for candidate in plan.candidates:
        folder = store.save_study(
            root, candidate.study, candidate.spec, source_digest.source_files(candidate.entry.path)
        )
        folders.append(folder)
        for path, reason in store.load_study(folder).problems:
            display.say(
                f"Damaged: {reason}\n  set aside as {store.set_aside(path)}; the trial runs again."
            )
    write_layout(root)
    profiler = Profiler(root, display.say) if where.profile else None
    _run(_Runner(plan, root, display, faults, where, environment(), profiler))
    if profiler:
        profiler.close()
    return folders


def _run(runner: _Runner) -> None:
    """The trials that are missing, then the winners'."""
    plan, root = runner.plan, runner.root
    runner.run("tuning", list(_missing(root, plan.mine(plan.tuning))))
    if elsewhere := list(_missing(root, plan.tuning)):
        left = [
            trial
            for candidate, trial in elsewhere
            if candidate.optimizer.name not in runner.faults.dead
        ]
        if left and plan.shard[1] > 1:
            runner.display.say(
                f"{len(left)} tuning trials of other shards are not here yet: run this shard again when they are, for its final runs."
            )
            return
    runner.run("finals", list(_missing(root, plan.mine(_finals(plan, root)))))


def _missing(root: Path, jobs: Sequence[Job]) -> Iterator[Job]:
    """Those that the store does not hold as finished. A crash is tried again: its cause may be gone."""
    candidates = {candidate.study.id: candidate for candidate, _ in jobs}
    loaded = [
        store.load_study(store.study_folder(root, candidate.study))
        for candidate in candidates.values()
    ]
    finished = {r.trial.id for one in loaded for r in one.results if r.status in ("ok", "diverged")}
    return (job for job in jobs if job[1].id not in finished)


def _finals(plan: Plan, root: Path) -> list[Job]:
    jobs = []
    for candidate in plan.candidates:
        loaded = store.load_study(store.study_folder(root, candidate.study))
        for horizon in plan.horizons:
            best = winner(loaded.results, horizon) if candidate.needs_tuning else None
            if best or not candidate.needs_tuning:
                hparams = best.trial.hparams if best else candidate.trials[0]
                jobs += [
                    (candidate, candidate.trial(hparams, horizon, seed))
                    for seed in plan.final_seeds
                ]
    return jobs
