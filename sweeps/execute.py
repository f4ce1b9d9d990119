"""A plan's trials -> results in the store, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import jax

from distill_bench import layout
from distill_bench.checkpointing import Saved
from distill_bench.engine import Engine, is_small, open_engine
from distill_bench.events import Compiled, Event, Finished, Losses, Point, Snapshot, Waiting
from distill_bench.task import Task
from distill_bench.train import train
from optimizers import registry
from sweeps import multihost, store
from sweeps.curves import write_layout
from sweeps.plan import Entrant, Plan, environment, own_traceback
from sweeps.profiling import Profiler
from sweeps.rows import winner
from sweeps.sink import TrialSink
from sweeps.study import Trial

Job = tuple[Entrant, Trial]


class Display(Protocol):
    """Where a run tells how far it has come."""

    def begin(self, label: str, steps: int) -> None:
        """A phase of so many trial-steps starts."""
        ...

    def advance(self, steps: int) -> None: ...
    def say(self, text: str) -> None: ...

    def suspect(self, optimizers: Sequence[str]) -> None:
        """If this process dies or hangs now, it is one of these. Where there are none, it is not hanging, however long it takes."""
        ...


@dataclass(frozen=True)
class Where:
    """On what a sweep runs.

    executor: "local"; "ray" for a Ray cluster at `ray_address` (None starts one here); "multihost" for all processes of `hosts`.
    cache: folder of compiled programs.
    checkpoint_seconds: between checkpoints of the trials under way; on Ray a trial starts again from its beginning.
    devices: how many to use; on CPU, into how many the cores are divided. None for all.
    batch_shards, mapping, lanes_per_device: how lanes lie on them, see layout.make_layout; None lets it choose.
    microbatches, remat: less memory for more time, see layout.Layout.
    profile: write a trace of a few chunks into the folder of results; of process 0 where there are several, and not on Ray.
    diagnostics: keep, with every point of a curve, what the states of update rules tell (optimizers.diagnostics).
    """

    executor: Literal["local", "ray", "multihost"] = "local"
    ray_address: str | None = None
    hosts: multihost.Hosts = field(default_factory=multihost.Hosts)
    cache: str | None = None
    checkpoint_seconds: float = 30.0
    devices: int | None = None
    batch_shards: int | None = None
    mapping: layout.Form | None = None
    lanes_per_device: int | None = None
    microbatches: int = 1
    remat: bool = False
    profile: bool = False
    diagnostics: bool = False

    def diagnose(self) -> Callable[[Any], dict[str, jax.Array]] | None:
        """What is to be told of the states of update rules."""
        from optimizers import diagnostics

        return diagnostics if self.diagnostics else None

    def layout_of(self, task: Task) -> layout.Layout:
        """How lanes of the task lie on these devices."""
        shards = self.batch_shards or (jax.device_count() if self.executor == "multihost" else 1)
        found = jax.devices() if self.executor == "multihost" else jax.devices()[: self.devices]
        return layout.make_layout(
            found,
            batch_shards=shards,
            mapping=self.mapping,
            lanes_per_device=self.lanes_per_device,
            small=is_small(task),
            microbatches=self.microbatches,
            remat=self.remat,
        )

    def open_engine(self, task: Task) -> Engine:
        """The task on these devices."""
        return open_engine(task, self.layout_of(task))


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
    where: Where
    environment: dict[str, Any]
    profiler: Profiler | None
    engine: Engine | None = None

    def run(self, label: str, jobs: Sequence[Job]) -> None:
        """All jobs whose optimizers are not suspected of anything together, then each suspect's by themselves."""
        names = {entrant.optimizer.name for entrant, _ in jobs}
        together = names - self.faults.alone - self.faults.dead.keys()
        for company in [together, *({name} for name in sorted(names & self.faults.alone - self.faults.dead.keys()))]:
            self._train(label, [job for job in jobs if job[0].optimizer.name in company])
        for job in jobs:
            if job[0].optimizer.name in self.faults.dead:
                status, detail = self.faults.dead[job[0].optimizer.name]
                self._sink(job).finish(status, 0, detail)

    def _train(self, label: str, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        names = sorted({entrant.optimizer.name for entrant, _ in jobs})
        self.display.suspect(names)
        sinks = [self._sink(job) for job in jobs]
        resume = {i: sink.saved for i, sink in enumerate(sinks) if sink.saved}
        told: set[str] = set()
        left = sum(entrant.optimizer.steps(trial.horizon) for entrant, trial in jobs) - sum(saved.step for saved in resume.values())
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
                case Waiting(lane):
                    self.display.suspect([jobs[lane][0].optimizer.name])
                case Finished(lane, status, step, detail):
                    sinks[lane].finish(status, step, detail)
                    _tell(self.display, told, jobs[lane], event)
                case Compiled():
                    self.display.suspect(names)
                    _tell_compiled(self.display, told, jobs, event)
                    self.display.begin(label, left)

    def _sink(self, job: Job) -> TrialSink:
        return TrialSink(self.root, *job, self.environment, self.display.say, resumes=self.where.executor != "ray")

    def _events(self, jobs: Sequence[Job], resume: dict[int, Saved]) -> Iterator[Event]:
        if self.where.executor == "ray":
            from sweeps import ray_executor

            specs = [(dict(trial.hparams), trial.horizon, trial.seed) for _, trial in jobs]
            typed = [entrant.spec for entrant, _ in jobs]
            return ray_executor.run(self.plan.task.name, self.where, typed, specs)
        lanes, names = [entrant.lane(trial) for entrant, trial in jobs], [entrant.optimizer.name for entrant, _ in jobs]
        due = _every(self.where.checkpoint_seconds)
        if self.where.executor == "multihost":
            return multihost.lead(lambda: self._open(names), names, lanes, resume, due, self.where.diagnose())
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
    entrant, trial = job
    name = entrant.optimizer.name
    if event.status == "diverged":
        display.say(f"{name} diverged: {event.detail} ({trial.name})")
    elif event.status == "crashed" and name not in told:
        told.add(name)
        own = own_traceback([event.detail or ""], str(entrant.entry.path.resolve()))
        display.say(f"{name} crashed; its trials have ended, the others go on. Its own error:\n\n{own}\n")


def _tell_compiled(display: Display, told: set[str], jobs: Sequence[Job], event: Compiled) -> None:
    if event.rules:
        display.say(f"Compiled {event.rules} update rule{'s' * (event.rules > 1)} for {len(jobs)} trials in {event.seconds:.0f} s")
    for lane, names in event.static.items():
        name = jobs[lane][0].optimizer.name
        if (floats := [n for n in names if isinstance(jobs[lane][1].hparams.get(n), float)]) and name not in told:
            told.add(name)
            display.say(f"{name} looks at the value of {', '.join(floats)} in Python: it is compiled once for each value.")


def execute(plan: Plan, root: Path, display: Display, where: Where, faults: Faults) -> list[Path]:
    """Runs what the store lacks of the plan: the tuning trials, then the winners on fresh seeds. Returns its studies' folders.

    With a shard in the plan, the finals wait until the tuning trials of all shards are there.
    """
    folders = []
    for entrant in plan.entrants:
        folder = store.save_study(root, entrant.study, entrant.spec, registry.source_files(entrant.entry.path))
        folders.append(folder)
        for path, reason in store.load_study(folder).problems:
            display.say(f"Damaged: {reason}\n  set aside as {store.set_aside(path)}; the trial runs again.")
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
        left = [trial for entrant, trial in elsewhere if entrant.optimizer.name not in runner.faults.dead]
        if left and plan.shard[1] > 1:
            runner.display.say(f"{len(left)} tuning trials of other shards are not here yet: run this shard again when they are, for its final runs.")
            return
    runner.run("finals", list(_missing(root, plan.mine(_finals(plan, root)))))


def _missing(root: Path, jobs: Sequence[Job]) -> Iterator[Job]:
    """Those that the store does not hold as finished. A crash is tried again: its cause may be gone."""
    entrants = {entrant.study.id: entrant for entrant, _ in jobs}
    loaded = [store.load_study(store.study_folder(root, entrant.study)) for entrant in entrants.values()]
    finished = {r.trial.id for one in loaded for r in one.results if r.status in ("ok", "diverged")}
    return (job for job in jobs if job[1].id not in finished)


def _finals(plan: Plan, root: Path) -> list[Job]:
    jobs = []
    for entrant in plan.entrants:
        loaded = store.load_study(store.study_folder(root, entrant.study))
        for horizon in plan.horizons:
            best = winner(loaded.results, horizon) if entrant.needs_tuning else None
            if best or not entrant.needs_tuning:
                hparams = best.trial.hparams if best else entrant.trials[0]
                jobs += [(entrant, entrant.trial(hparams, horizon, seed)) for seed in plan.final_seeds]
    return jobs
