"""A short real training of a plan's optimizers, to measure what they cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

from distill_bench.data import datasets, fashion_mnist
from distill_bench.data.dataset import AnyDataset, Dataset, FashionMnist
from distill_bench.tasks.task import Task
from distill_bench.training.engine import open_engine
from distill_bench.training.lane_layout import LaneLayout
from distill_bench.training.train import train
from sweeps.planning.costs import Costs
from sweeps.planning.plan import Candidate, Job
from sweeps.planning.stopwatch import Stopwatch, flops
from sweeps.planning.study import TUNING_SEED
from sweeps.planning.workload import STEP, STREAM

CHEAP_FLOPS = 2e10  # of a step: a core takes a fifth of a second for it, and a minute to open
CHUNKS = 3  # of the training


def is_cheap(task: Task) -> bool:
    """Whether a short training takes seconds, and nothing is downloaded for it."""
    work = flops(task)
    here = all(_is_here(images) for images in (task.dataset, task.images) if images)
    return (here or task.synthetic) and work[STREAM] + work[STEP] < CHEAP_FLOPS


def _is_here(dataset: AnyDataset) -> bool:
    if isinstance(dataset, FashionMnist):
        return fashion_mnist.is_here(datasets.data_dir(None))
    return isinstance(dataset, Dataset)


def measure(
    task: Task, layouts: Sequence[LaneLayout], candidates: Sequence[Candidate], cache: str | None
) -> Costs | None:
    """Trains two runs of each candidate for CHUNKS chunks and keeps what they cost in `cache`.

    A candidate whose update rule raises an exception has no costs afterwards.
    """
    began = time.perf_counter()
    engine = open_engine(task, *layouts)
    stopwatch = Stopwatch(task, layouts, cache, time.perf_counter() - began)
    horizon = CHUNKS * engine.steps
    jobs: list[Job] = [
        (candidate, candidate.trial(candidate.first, horizon, TUNING_SEED))
        for candidate in candidates
        for _ in range(2 * engine.layout.lanes * len(layouts))
    ]
    lanes = [candidate.lane(trial) for candidate, trial in jobs]
    for _ in stopwatch.watch(jobs, train(engine, lanes)):
        pass
    return stopwatch.costs
