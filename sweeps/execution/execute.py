"""Runs the trials of a plan in this process and writes their results to the store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_bench.training.engine import Engine
from distill_bench.training.events import (
    Alive,
    Compiled,
    Compiling,
    Event,
    Finished,
    Losses,
    Point,
    Refused,
    Snapshot,
    Student,
    Waiting,
)
from distill_bench.training.lane_state import Saved
from distill_bench.training.train import train
from sweeps.execution import announce, multihost, shards
from sweeps.execution.due import every
from sweeps.execution.export import Exporter
from sweeps.execution.profiling import Profiler
from sweeps.execution.progress import Display
from sweeps.execution.request import Faults
from sweeps.execution.resources import Resources
from sweeps.execution.tensorboard_runs import Runs, assign
from sweeps.execution.tensorboard_sweep import write_means, write_overview
from sweeps.execution.trial_sink import ExportSink, TrialSink, losses_compare
from sweeps.planning.environment import environment
from sweeps.planning.plan import Candidate, Job, Plan
from sweeps.planning.stopwatch import Stopwatch
from sweeps.planning.study import Result
from sweeps.results import pending, store, trial_files
from sweeps.results.outdir import set_aside

FINALS = "finals"  # the label of the runs whose students are exported


@dataclass
class _Runner:
    """Runs jobs, with everything that they share.

    Attributes:
      plan: the whole plan.
      root: folder of the results.
      display: where progress is shown.
      faults: optimizers to run by themselves or not at all.
      resources: what to train with.
      environment: versions and machine, stored with every result.
      runs: the folders of TensorBoard's runs, by study.
      profiler: writes a trace; None if not wanted.
      exporter: exports the students of finals; None if not wanted.
      again: results of finals that are trained again to export their students, by id.
      engine: None until the first trial needs it.
      stopwatch: measures what training costs, for the next estimate; None until the engine opens.
    """

    plan: Plan
    root: Path
    display: Display
    faults: Faults
    resources: Resources
    environment: dict[str, Any]
    runs: Mapping[str, Runs]
    profiler: Profiler | None
    exporter: Exporter | None
    again: Mapping[str, Result] = field(default_factory=dict)
    engine: Engine | None = None
    stopwatch: Stopwatch | None = None

    def run(self, label: str, jobs: Sequence[Job]) -> None:
        """Runs the jobs of all unsuspected optimizers together, or as many as a process can hold;
        then each suspect by itself. The jobs of dead optimizers end without running."""
        names = {candidate.optimizer.name for candidate, _ in jobs}
        alive = names - self.faults.dead.keys()
        alone = self.faults.alone | {c.optimizer.name for c, _ in jobs if c.alone}
        together = sorted(alive - alone)
        here = self.resources.executor == "local"
        most = max(1, (here and self.resources.rules_at_once()) or len(together))
        groups = [set(together[i : i + most]) for i in range(0, len(together), most)]
        for group in [*groups, *({name} for name in sorted(alive & alone))]:
            self._train(label, [job for job in jobs if job[0].optimizer.name in group])
            if len(groups) > 1 and self.engine:
                self.engine.forget_all()
        for job in jobs:
            if fault := self.faults.dead.get(job[0].optimizer.name):
                self._sink(job).finish(fault.status, 0, fault.detail)

    def _train(self, label: str, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        names = sorted({candidate.optimizer.name for candidate, _ in jobs})
        self.display.suspect(names)
        sinks = [self._sink(job) for job in jobs]
        resume = {i: sink.saved for i, sink in enumerate(sinks) if sink.saved}
        explained: set[str] = set()  # optimizers whose crash or constants were shown once
        left = sum(candidate.optimizer.steps(trial.horizon) for candidate, trial in jobs) - sum(
            saved.step for saved in resume.values()
        )
        self.display.begin(label, left)
        events = self._events(jobs, resume, keep=bool(self.exporter) and label == FINALS)
        if self.stopwatch and self.resources.executor == "local":
            events = self.stopwatch.watch(jobs, events)
        for event in self.profiler.watch(events) if self.profiler else events:
            match event:
                case Losses(lane, first, values):
                    sinks[lane].losses(first, values)
                    self.display.advance(len(values))
                case Point(lane, step, metrics, diagnostics):
                    sinks[lane].point(step, metrics, diagnostics)
                case Snapshot(lane, saved):
                    sinks[lane].save(saved)
                case Refused(lane, reason):
                    sinks[lane].refuse(reason)
                    left += resume[lane].step
                case Student():
                    sinks[event.lane].export(event)
                case Waiting(lane) | Alive(lane):
                    self.display.suspect([jobs[lane][0].optimizer.name])
                case Finished(lane, status, step, detail):
                    stored = sinks[lane].finish(status, step, detail)
                    announce.show_end(self.display, explained, jobs[lane], *stored)
                case Compiling(lanes, of):
                    compiling = [jobs[lane][0].optimizer.name for lane in lanes]
                    self.display.suspect(sorted(set(compiling)))
                    self.display.begin(announce.compiling(compiling, of), 0)
                case Compiled():
                    self.display.suspect(names)
                    announce.show_compiled(self.display, explained, jobs, event)
                    self.display.begin(label, left)

    def _sink(self, job: Job) -> TrialSink | ExportSink:
        if self.exporter and (stored := self.again.get(job[1].id)):
            return ExportSink(self.exporter, job, stored, self.display.say)
        task, (candidate, trial) = self.plan.task, job
        return TrialSink(
            self.root,
            candidate,
            trial,
            self.runs[candidate.study.id].of_trial(trial),
            self.exporter,
            self.environment,
            self.display.say,
            resumes=self.resources.executor != "ray",
            losses_compare=losses_compare(task),
        )

    def _events(self, jobs: Sequence[Job], resume: dict[int, Saved], keep: bool) -> Iterator[Event]:
        if self.resources.executor == "ray":
            from sweeps.execution import ray_executor

            trials = [(dict(trial.hparams), trial.horizon, trial.seed) for _, trial in jobs]
            opts = [candidate.located for candidate, _ in jobs]
            task, versions = self.plan.task.name, jobs[0][0].study.versions
            schedule = self.plan.schedule
            return ray_executor.run(task, self.resources, versions, opts, trials, keep, schedule)
        lanes = [candidate.lane(trial) for candidate, trial in jobs]
        names = [candidate.optimizer.name for candidate, _ in jobs]
        due, observe = every(self.resources.checkpoint_seconds), self.resources.observe()
        if self.resources.executor == "multihost":
            return multihost.lead(
                lambda: self._open(names), names, lanes, resume, due, observe, keep
            )
        return train(self._open(names), lanes, resume, due, observe, keep)

    def _open(self, names: Sequence[str]) -> Engine:
        """The engine, for trials of these optimizers. None of them is suspected while it opens,
        because that may include a download."""
        if self.engine is None:
            self.display.suspect([])
            self.display.say(f"Opening {self.plan.task.name}: data, teacher, compilation ...")
            began = time.perf_counter()
            self.engine = self.resources.open_engine(self.plan.task)
            self.stopwatch = Stopwatch(
                self.plan.task,
                [island.layout for island in self.engine.islands],
                self.resources.cache,
                time.perf_counter() - began,
            )
            self.display.suspect(sorted(set(names)))
        return self.engine


def execute(
    plan: Plan,
    root: Path,
    display: Display,
    resources: Resources,
    faults: Faults,
    exporter: Exporter | None = None,
) -> list[Path]:
    """Runs what the store lacks of the plan: the tuning trials, then the winners on fresh seeds.
    Returns the folders of its studies.

    With an exporter, a final that the store holds is trained again if its student is not exported.
    If the plan is a shard, each stage of tuning waits until all shards have run the one before, and
    the finals wait for all of it: the shard ends, and runs again.
    """
    shards.refuse_to_mix(plan, root)
    folders = [
        _open_study(root, candidate, candidate.entry.sources, display)
        for candidate in plan.candidates
    ]
    runs = assign(root, [candidate.study for candidate in plan.candidates])
    write_overview(plan, root, display.say)
    profiler = Profiler(root, display.say) if resources.profile else None
    _run(_Runner(plan, root, display, faults, resources, environment(), runs, profiler, exporter))
    if profiler:
        profiler.close()
    return folders


def execute_jobs(
    plan: Plan,
    jobs: Sequence[Job],
    sources: Mapping[str, str],
    label: str,
    root: Path,
    display: Display,
    resources: Resources,
) -> Path:
    """Runs the jobs of one candidate that the store lacks, and returns the folder of its study.

    Args:
      plan: names the task and the candidate; the jobs need not be among its own.
      jobs: the runs.
      sources: the candidate's source files, which the study keeps.
      label: shown with the progress.
      root: folder of the results.
      display: where progress is shown.
      resources: what to train with.
    """
    folder = _open_study(root, plan.candidates[0], sources, display)
    runs = assign(root, [plan.candidates[0].study])
    runner = _Runner(plan, root, display, Faults(), resources, environment(), runs, None, None)
    runner.run(label, _missing(root, jobs))
    return folder


def _open_study(
    root: Path, candidate: Candidate, sources: Mapping[str, str], display: Display
) -> Path:
    """Saves the candidate's study and sets damaged trials aside; returns the study's folder."""
    folder = store.save_study(root, candidate.study, candidate.spec, sources, display.say)
    for path, reason in trial_files.load_trials(folder)[1]:
        set_aside(path, reason, display.say)
    return folder


def _run(runner: _Runner) -> None:
    """Runs the missing tuning trials, stage by stage, then the missing finals."""
    plan, root = runner.plan, runner.root
    attempted: set[str] = set()  # a trial that crashes is not run twice
    while True:
        known = pending.tuning(plan, root)
        missing = _missing(root, pending.mine(plan, known))
        jobs = [job for job in missing if job[1].id not in attempted]
        if not jobs:
            break
        attempted |= {trial.id for _, trial in jobs}
        horizons = sorted({trial.horizon for _, trial in jobs})
        runner.run(f"tuning at {', '.join(map(str, horizons))} steps", jobs)
    if plan.shard[1] > 1 and not pending.is_tuned(plan, root, runner.faults.dead.keys()):
        runner.display.say(
            "Other shards have not finished tuning trials that the next ones depend on. Once they "
            "have, run this shard again."
        )
        return
    last = plan.mine(pending.finals(plan, root))
    missing = _missing(root, last)
    runner.run(FINALS, [*missing, *_to_export(runner, last)])
    write_means(last, {trial.id for _, trial in missing}, root, runner.runs)


def _to_export(runner: _Runner, finals: Sequence[Job]) -> list[Job]:
    """The finals that are trained again, because the store holds their results alone."""
    if not runner.exporter:
        return []
    lacking = [job for job in finals if runner.exporter.lacks(job)]
    results = {
        result.trial.id: result
        for candidate in {candidate.study.id: candidate for candidate, _ in lacking}.values()
        for result in pending.results_of(runner.root, candidate)
        if result.status == "ok"
    }
    again = [job for job in lacking if job[1].id in results]
    runner.again = {trial.id: results[trial.id] for _, trial in again}
    if again:
        runner.display.say(
            f"{len(again)} final{' is' if len(again) == 1 else 's are'} trained again, to export "
            "what the store does not hold: the parameters. Stored results stay as they are."
        )
    return again


def _missing(root: Path, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that the store does not hold as finished."""
    done = pending.finished(root, (candidate for candidate, _ in jobs))
    return [job for job in jobs if job[1].id not in done]
