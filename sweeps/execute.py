"""A plan's trials -> results in the store, on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_bench.engine import Engine, open_engine
from distill_bench.lanes import Lane
from distill_bench.train import Compiled, Finished, Losses, Point, train
from sweeps import store
from sweeps.curves import TrialCurves, write_layout
from sweeps.plan import Entrant, Plan, environment, own_traceback
from sweeps.progress import Progress, progress
from sweeps.statistics import winner
from sweeps.study import Trial

Job = tuple[Entrant, Trial]


@dataclass
class _Runner:
    """Opens the engine when the first trial needs it."""

    plan: Plan
    root: Path
    environment: dict[str, Any]
    engine: Engine | None = None

    def run(self, label: str, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        if self.engine is None:
            print(f"Opening {self.plan.task.name}: data, teacher, compilation ...", file=sys.stderr, flush=True)
            self.engine = open_engine(self.plan.task)
        lanes = [Lane(entrant.optimizer.builder, trial.hparams, trial.horizon, trial.seed) for entrant, trial in jobs]
        sinks = [_Sink(self.root, entrant, trial, self.environment) for entrant, trial in jobs]
        with progress(label, sum(lane.horizon for lane in lanes)) as display:
            told: set[str] = set()
            for event in train(self.engine, lanes):
                match event:
                    case Losses(lane, first, values):
                        sinks[lane].losses(first, values)
                        display.advance(len(values))
                    case Point(lane, step, metrics):
                        sinks[lane].point(step, metrics)
                    case Finished(lane, status, step, detail):
                        sinks[lane].finish(status, step, detail)
                        display.advance(lanes[lane].horizon - step if status != "ok" else 0)
                        _tell(display, told, jobs[lane], event)
                    case Compiled():
                        display.begin()
                        _tell_compiled(display, told, jobs, event)


class _Sink:
    """Everything that is kept of a trial: its records and its curves."""

    def __init__(self, root: Path, entrant: Entrant, trial: Trial, environment: dict[str, Any]):
        folder = store.study_folder(root, entrant.study) / trial.name
        self._writer = store.TrialWriter(folder, trial)
        self._writer.start()
        opt = entrant.optimizer
        self._curves = TrialCurves(folder, entrant.study, trial, lambda steps: opt.learning_rate(trial.hparams, trial.horizon, steps))
        self._environment = environment

    def losses(self, first: int, values: Any) -> None:
        self._writer.losses(first, values)
        self._curves.losses(first, values)

    def point(self, step: int, metrics: dict[str, float]) -> None:
        self._writer.point(step, metrics)
        self._curves.point(step, metrics)

    def finish(self, status: str, step: int, detail: str | None) -> None:
        self._curves.finish(status == "ok")
        self._writer.finish(status, step, detail, self._environment)


def _tell(display: Progress, told: set[str], job: Job, event: Finished) -> None:
    """One line for a divergence, and a plug-in's exception once."""
    entrant, trial = job
    name = entrant.optimizer.name
    if event.status == "diverged":
        display.say(f"{name} diverged: {event.detail} ({trial.name})")
    elif event.status == "crashed" and name not in told:
        told.add(name)
        own = own_traceback([event.detail or ""], str(entrant.entry.path.resolve()))
        display.say(f"{name} crashed; its trials have ended, the others go on. Its own error:\n\n{own}\n")


def _tell_compiled(display: Progress, told: set[str], jobs: Sequence[Job], event: Compiled) -> None:
    if event.rules:
        display.say(f"Compiled {event.rules} update rule{'s' * (event.rules > 1)} for {len(jobs)} trials in {event.seconds:.0f} s")
    for lane, names in event.static.items():
        name = jobs[lane][0].optimizer.name
        if (floats := [n for n in names if isinstance(jobs[lane][1].hparams.get(n), float)]) and name not in told:
            told.add(name)
            display.say(f"{name} looks at the value of {', '.join(floats)} in Python: it is compiled once for each value.")


def execute(plan: Plan, root: Path) -> list[store.Loaded]:
    """Runs what the store lacks of the plan: the tuning trials, then the winners on fresh seeds. Returns its studies."""
    for entrant in plan.entrants:
        folder = store.save_study(root, entrant.study, entrant.entry.path.read_text())
        for path, reason in store.load_study(folder).problems:
            aside = store.set_aside(path)
            print(f"Damaged: {reason}\n  set aside as {aside}; the trial runs again.", file=sys.stderr)
    write_layout(root)
    runner = _Runner(plan, root, environment())
    runner.run("tuning", _missing(root, plan.tuning))
    runner.run("finals", _missing(root, _finals(plan, root)))
    return _load(plan, root)


def _load(plan: Plan, root: Path) -> list[store.Loaded]:
    return [store.load_study(store.study_folder(root, entrant.study)) for entrant in plan.entrants]


def _missing(root: Path, jobs: Sequence[Job]) -> list[Job]:
    """Those that the store does not hold as finished, each once. A crash is tried again: its cause may be gone."""
    finished = {
        r.trial.id
        for e in {e.study.id: e for e, _ in jobs}.values()
        for r in store.load_study(store.study_folder(root, e.study)).results
        if r.status != "crashed"
    }
    return [(e, t) for e, t in jobs if t.id not in finished]


def _finals(plan: Plan, root: Path) -> list[Job]:
    jobs = []
    for entrant, loaded in zip(plan.entrants, _load(plan, root), strict=True):
        for horizon in plan.horizons:
            if best := winner(loaded.results, horizon):
                jobs += [(entrant, entrant.trial(best.trial.hparams, horizon, seed)) for seed in plan.final_seeds]
    return jobs
