"""Learns what training costs from the events of real training.

The time between two events `Waiting` belongs to the run that is waited for. It holds the run's
steps and evaluations; in the first of a chunk, also the views and teacher's logits of the chunk
that was requested last. Unit costs are the least squares solution over all of these times.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from distill_bench.machine import core_count
from distill_bench.networks import network
from distill_bench.tasks.task import Task
from distill_bench.training.events import ChunkStarted, Compiled, Event, Losses, Point, Waiting
from distill_bench.training.lane_layout import LaneLayout
from distill_bench.training.source import chunk_steps
from sweeps.planning import costs, workload
from sweeps.planning.costs import Costs, RuleCost, Seconds
from sweeps.planning.plan import Job
from sweeps.planning.workload import STREAM, VIEW

# Fractions of the matmul peak that teachers and students reach: measured on CPU.
TEACHER_FRACTION, STUDENT_FRACTION = 0.65, 0.3
_TRUST = 0.02  # weight of the arithmetic's proportions against the measured times
_PAUSE = 5.0  # a wait so many times as long as usual: the machine did something else


@dataclass
class Wait:
    """Units that were waited for, and how long."""

    units: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def flops(task: Task) -> dict[str, float]:
    """Floating-point operations of a stream's step, of a trial's step and of an evaluated view,
    each divided by the fraction of the peak at which it runs."""
    student = 2 * network.macs(task.student, task.views.size) / STUDENT_FRACTION
    step = 3 * student * task.batch_size
    teacher = 2 * task.teacher_macs * task.batch_size / TEACHER_FRACTION
    return {STREAM: teacher + 0.02 * step, "step": step, VIEW: student}  # making views is not free


class Stopwatch:
    """Measures what training on a task costs, and keeps it for the next estimate.

    Attributes:
      costs: what is known so far, from this process and earlier ones; None if nothing is.
      waits: what this process has measured.
    """

    def __init__(
        self,
        task: Task,
        layout: LaneLayout,
        cache: str | None,
        opening: float,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """opening: seconds that opening the task took."""
        self._task, self._layout, self._cache, self._clock = task, layout, cache, clock
        self._setting = costs.setting(task, layout)
        self.costs = costs.read(cache, self._setting)
        known = self.costs.opening if self.costs else Seconds()
        self._opening = known.measured(opening, again=self.costs is not None)
        self.waits: list[Wait] = []
        self._compilation: dict[str, Seconds] = {}

    def watch(self, jobs: Sequence[Job], events: Iterator[Event]) -> Iterator[Event]:
        """Passes the events of these trials on, and keeps the costs when they end."""
        chunk, wait, began = chunk_steps(self._task, self._layout), Wait(), self._clock()
        started = named = False  # whether a chunk has started; whether `wait` waits for a run
        steps: Counter[int] = Counter()  # by trial, since the last `Waiting`
        points: set[int] = set()

        def lap() -> None:
            nonlocal began, wait
            now = self._clock()
            wait.seconds, began = now - began, now
            self.waits.append(wait)
            wait = Wait()

        for event in events:
            match event:
                case Compiled():
                    began = self._clock()
                    self._compiled(jobs, event)
                case ChunkStarted(first):
                    if named:
                        lap()
                        named = False
                    requested = [first + chunk] if started else [first, first + chunk]
                    wait.units[STREAM] += chunk * sum(self._seeds(jobs, at) for at in requested)
                    started = True
                case Waiting(lane):
                    if named:
                        lap()
                    named = True
                    steps.clear()
                    points.clear()
                case Losses(lane):
                    steps[lane] += len(event.values)
                    wait.units[workload.name_of(jobs[lane])] = max(steps.values())
                case Point(lane, step) if step not in points:
                    points.add(step)
                    job = jobs[lane]
                    wait.units[VIEW] += workload.views_of_point(
                        self._task, workload.is_final(job), step == workload.steps_of(job)
                    )
            yield event
        if named:
            lap()
        self._keep(jobs)

    def _compiled(self, jobs: Sequence[Job], event: Compiled) -> None:
        """Shares the time among the new rules, which are compiled together, one on each core."""
        new = {workload.rule_id(candidate) for candidate, _ in jobs} - self._compilation.keys()
        for rule in new if event.rules else ():
            known = self.costs.rules.get(rule) if self.costs else None
            before = known.compilation if known else Seconds()
            seconds = event.seconds * min(event.rules, core_count()) / event.rules
            self._compilation[rule] = before.measured(seconds, again=before.first is not None)

    def _seeds(self, jobs: Sequence[Job], first: int) -> int:
        """Number of streams that are longer than `first` steps."""
        return len({job[1].seed for job in jobs if workload.steps_of(job) > first})

    def _keep(self, jobs: Sequence[Job]) -> None:
        if not self.waits:
            return
        arithmetic = flops(self._task)
        names = sorted({name for wait in self.waits for name in wait.units} - {STREAM, VIEW})
        guess = dict.fromkeys(names, arithmetic["step"])
        found = fit(self.waits, guess | {unit: arithmetic[unit] for unit in (STREAM, VIEW)})
        rules = dict(self.costs.rules) if self.costs else {}
        for candidate in {candidate.study.id: candidate for candidate, _ in jobs}.values():
            rule, name = workload.rule_id(candidate), candidate.optimizer.name
            if name in found:
                before = rules[rule].compilation if rule in rules else Seconds()
                rules[rule] = RuleCost(found[name], self._compilation.get(rule, before))
        self.costs = Costs(found[STREAM], found[VIEW], self._opening, rules)
        costs.write(self._cache, self._setting, self.costs)


def fit(waits: Sequence[Wait], guess: dict[str, float]) -> dict[str, float]:
    """Seconds of each unit, so that they explain the waits and add up to the same total. Waits in
    which the machine paused do not count.

    guess: the units' costs in proportion, for what the waits leave open.
    """
    names = list(guess)
    counts = np.array([[wait.units[name] for name in names] for wait in waits], float)
    seconds = np.array([wait.seconds for wait in waits])
    weights = np.array([guess[name] for name in names])
    ratio = seconds / np.maximum(counts @ weights, min(weights))
    usual = ratio <= _PAUSE * np.median(ratio)
    counts, seconds = counts[usual], seconds[usual]
    expected = counts @ weights
    scaled = counts * weights * (seconds.sum() / expected.sum())  # seconds, by the guess
    ridge = np.sqrt(_TRUST) * np.diag(np.linalg.norm(scaled, axis=0) + 1e-12)
    factors, *_ = np.linalg.lstsq(
        np.concatenate([scaled, ridge]), np.concatenate([seconds, ridge.sum(1)]), rcond=None
    )
    factors = np.maximum(factors, 0.05)
    factors *= seconds.sum() / (scaled @ factors).sum()
    unit = weights * (seconds.sum() / expected.sum()) * factors
    return dict(zip(names, unit.tolist(), strict=True))
