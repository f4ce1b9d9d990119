"""What a sweep has to compute, counted in units that each have a cost.

Trials of one optimizer and seed run together, as many as the layout has lanes: a *run*. A unit is
a step of a stream (views and teacher), a step of a run, or an evaluated view. Its cost is the time
for which it keeps the whole machine busy: runs on other cores go on at the same time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distill_bench.data import embedded, synthetic
from distill_bench.data.dataset import Dataset, FashionMnist
from distill_bench.tasks.task import Task
from distill_bench.training.exams import CURVE_VIEWS
from distill_bench.training.lane_layout import LaneLayout
from distill_bench.training.source import chunk_steps
from distill_bench.training.train import exams
from sweeps.planning.plan import Candidate, Job
from sweeps.planning.study import TUNING_SEED

STREAM, STEP, VIEW = ("stream", "step", "view")

Program = tuple[str, tuple[tuple[str, object], ...]]


@dataclass(frozen=True)
class Work:
    """What one phase of a sweep computes, the tuning trials or the finals.

    Attributes:
      units: by the name of an optimizer, how many of each unit its trials need: STEP, VIEW, and
        their share of STREAM.
      programs: the programs to compile: an optimizer, and the values that shape its program.
    """

    units: dict[str, Counter[str]]
    programs: frozenset[Program]


def views_of_point(task: Task, final: bool, last: bool) -> int:
    """Views on which a student is evaluated at a point of its curve.

    final: whether the trial is a final run; last: whether the point is the trial's end.
    """
    probe = task.probe.batches * task.probe.batch_size
    if not last:
        return 2 * min(CURVE_VIEWS, probe)
    return 2 * probe + clean_test_images(task) if final else probe


def clean_test_images(task: Task) -> int:
    """Number of the images of the task's evaluation split."""
    if isinstance(task.dataset, Dataset):
        return len(embedded.arrays(task.dataset.name)[1]) - task.dataset.train_size
    if isinstance(task.dataset, FashionMnist):
        return task.dataset.test_size
    if task.synthetic:
        return min(task.dataset.test_size, synthetic.MAX_TEST)
    validates = task.eval_split == "validation"
    return task.dataset.validation_size if validates else task.dataset.test_size


def work(task: Task, layout: LaneLayout, jobs: Sequence[Job]) -> Work:
    """What it takes to train these trials together on islands of this layout."""
    share = chunk_steps(task, layout)
    longest: defaultdict[int, int] = defaultdict(int)
    programs = frozenset((name_of(job), _static(job)) for job in jobs)
    units = {name: Counter[str]() for name, _ in programs}
    for job in jobs:
        longest[job[1].seed] = max(longest[job[1].seed], steps_of(job))
    stream = sum(-(-steps // share) * share for steps in longest.values())
    for program in programs:
        own = [job for job in jobs if (name_of(job), _static(job)) == program]
        for horizons, final in _runs(layout, own):
            units[program[0]][STEP] += max(horizons)
            units[program[0]][VIEW] += sum(
                views_of_point(task, final, last=point in horizons)
                for point in {point for horizon in horizons for point in exams(horizon, final)}
            )
    steps = sum(own[STEP] for own in units.values())
    for own in units.values():
        own[STREAM] = round(stream * own[STEP] / steps)
    return Work(units, programs)


def name_of(job: Job) -> str:
    return job[0].optimizer.name


def steps_of(job: Job) -> int:
    return job[0].optimizer.steps(job[1].horizon)


def is_final(job: Job) -> bool:
    return job[1].seed != TUNING_SEED


def rule_id(candidate: Candidate) -> str:
    """Names an update rule's code: costs that were measured with other code do not count."""
    return f"{candidate.optimizer.name} {candidate.entry.source_sha256[:16]}"


def _static(job: Job) -> tuple[tuple[str, object], ...]:
    """The hyperparameters that shape a program. A builder that reads a float in Python is compiled
    more often than this says."""
    return tuple(sorted((k, v) for k, v in job[1].hparams.items() if not isinstance(v, float)))


def _runs(layout: LaneLayout, jobs: Sequence[Job]) -> Iterable[tuple[set[int], bool]]:
    """The horizons of the trials of each run, and whether they are finals.

    As in training/dispatch.py: a row of devices has trials of one seed, long horizons first.
    """
    rows = []
    for seed in {trial.seed for _, trial in jobs}:
        same = sorted((job for job in jobs if job[1].seed == seed), key=steps_of, reverse=True)
        rows += [same[i : i + layout.width] for i in range(0, len(same), layout.width)]
    rows.sort(key=lambda row: -steps_of(row[0]))
    for i in range(0, len(rows), layout.rows):
        run = [job for row in rows[i : i + layout.rows] for job in row]
        yield {steps_of(job) for job in run}, is_final(run[0])
