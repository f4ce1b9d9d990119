"""Learns what training costs from the events of real training.

The time between two events `Waiting` belongs to the optimizer that is waited for. Over all trials
of a phase, it is what the optimizer's steps, evaluations and share of the stream took. Unit costs
are the least squares solution over the optimizers and phases.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from distill_bench.machine import core_count
from distill_bench.networks import network
from distill_bench.tasks.task import Task
from distill_bench.training.events import Compiled, Event, Finished, Losses, Waiting
from distill_bench.training.lane_layout import LaneLayout
from sweeps.planning import costs, workload
from sweeps.planning.costs import Costs, RuleCost, Seconds
from sweeps.planning.plan import Job
from sweeps.planning.workload import STEP, STREAM, VIEW

# Fractions of the matmul peak that teachers and students reach: measured on CPU.
TEACHER_FRACTION, STUDENT_FRACTION = 0.65, 0.4
_TRUST = 0.02  # weight of the arithmetic's proportions against the measured times

Lap = tuple[str, Counter[str], float]  # an optimizer's name, units and seconds in one phase


def flops(task: Task) -> dict[str, float]:
    """Floating-point operations of each unit, divided by the fraction of the peak that it reaches.

    They are those of one trial: a run of several has as many times more.
    """
    student = 2 * network.macs(task.student, task.views.size) / STUDENT_FRACTION
    step = 3 * student * task.batch_size
    teacher = 2 * task.teacher_macs * task.batch_size / TEACHER_FRACTION
    return {STREAM: teacher + 0.02 * step, STEP: step, VIEW: student}  # making views is not free


class Stopwatch:
    """Measures what training on a task costs, and keeps it for the next estimate.

    Attributes:
      costs: what is known so far, from this process and earlier ones; None if nothing is.
    """

    def __init__(
        self,
        task: Task,
        layouts: Sequence[LaneLayout],
        cache: str | None,
        opening: float,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """opening: seconds that opening the task took."""
        self._task, self._layout, self._cache, self._clock = task, layouts[0], cache, clock
        self._setting = costs.setting(task, layouts)
        self.costs = costs.read(cache, self._setting)
        known = self.costs.opening if self.costs else Seconds()
        self._opening = known.measured(opening, again=self.costs is not None)
        self._laps: list[Lap] = []
        self._compilation: dict[str, Seconds] = {}

    def watch(self, jobs: Sequence[Job], events: Iterator[Event]) -> Iterator[Event]:
        """Passes the events of these trials on, and keeps the costs when they end.

        Nothing is kept if a trial was resumed or ended before its time.
        """
        seconds: defaultdict[str, float] = defaultdict(float)
        waited, began, whole, seen = "", self._clock(), True, set[int]()
        for event in events:
            now = self._clock()
            match event:
                case Compiled():
                    self._compiled(jobs, event)
                    began = now
                case Waiting(lane):
                    # What comes before the first result was spent on it.
                    seconds[waited or workload.name_of(jobs[lane])] += now - began
                    waited, began = workload.name_of(jobs[lane]), now
                case Losses(lane, first) if lane not in seen:
                    seen.add(lane)
                    whole &= first == 1
                case Finished(_, status):
                    whole &= status == "ok"
            yield event
        if waited:
            seconds[waited] += self._clock() - began
        if whole and seconds:
            units = workload.work(self._task, self._layout, jobs).units
            self._laps += [(name, units[name], took) for name, took in seconds.items()]
            self._keep(jobs)

    def _compiled(self, jobs: Sequence[Job], event: Compiled) -> None:
        """Shares the time among the new rules, which are compiled together, one on each core."""
        new = {workload.rule_id(candidate) for candidate, _ in jobs} - self._compilation.keys()
        for rule in new if event.rules else ():
            known = self.costs.rules.get(rule) if self.costs else None
            before = known.compilation if known else Seconds()
            seconds = event.seconds * min(event.rules, core_count()) / event.rules
            self._compilation[rule] = before.measured(seconds, again=before.first is not None)

    def _keep(self, jobs: Sequence[Job]) -> None:
        found = fit(self._laps, flops(self._task))
        rules = dict(self.costs.rules) if self.costs else {}
        for candidate in {candidate.study.id: candidate for candidate, _ in jobs}.values():
            rule, name = workload.rule_id(candidate), candidate.optimizer.name
            if name in found:
                before = rules[rule].compilation if rule in rules else Seconds()
                rules[rule] = RuleCost(found[name], self._compilation.get(rule, before))
        self.costs = Costs(found[STREAM], found[VIEW], self._opening, rules)
        costs.write(self._cache, self._setting, self.costs)


def fit(laps: Sequence[Lap], guess: dict[str, float]) -> dict[str, float]:
    """Seconds of a STREAM, a VIEW and a step of each optimizer, by its name.

    They explain the laps, and add up to the same total.

    guess: the units' costs in proportion, for what the laps leave open.
    """
    names = sorted({name for name, _, _ in laps})
    columns = [STREAM, VIEW, *names]
    weights = np.array([guess[STREAM], guess[VIEW], *[guess[STEP]] * len(names)])
    counts = np.array(
        [
            [units[STREAM], units[VIEW], *(units[STEP] * (name == own) for own in names)]
            for name, units, _ in laps
        ],
        float,
    )
    seconds = np.array([took for _, _, took in laps])
    unit = weights * seconds.sum() / (counts @ weights).sum()  # by the guess
    scaled = counts * unit
    ridge = np.sqrt(_TRUST) * np.diag(np.linalg.norm(scaled, axis=0) + 1e-12)
    factors, *_ = np.linalg.lstsq(
        np.concatenate([scaled, ridge]), np.concatenate([seconds, ridge.sum(1)]), rcond=None
    )
    factors = np.maximum(factors, 0.05)
    factors *= seconds.sum() / (scaled @ factors).sum()
    return dict(zip(columns, (unit * factors).tolist(), strict=True))
