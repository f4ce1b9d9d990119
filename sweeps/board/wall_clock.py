"""Speed-ups in wall-clock time: fewer steps, each of which takes longer."""

from __future__ import annotations

import functools

from distill_bench.networks import network
from distill_bench.tasks import catalogue
from distill_bench.tasks.task import Task
from sweeps.board.entries import Cost

PAPER = "flowers102"  # has the teacher, student and batch of the paper's smaller data sets


def per_step(cost: Cost, task: Task, at: Task | None = None) -> float:
    """The time of the optimizer's whole step over that of the baseline's.

    A whole step is the teacher's forward pass, the student's forward and backward pass and the
    update.

    Args:
      cost: what was measured on `task`.
      task: the task that the entry ran on.
      at: the task to judge; None for the same. The baseline's whole step is assumed to grow with
        the multiplications that it makes, what the optimizer adds to it with the student's
        parameters. This is not a measurement.
    """
    added = cost.relative - 1
    if at is not None:
        added *= (_parameters(at) / _parameters(task)) / (_work(at) / _work(task))
    return 1 + added


def paper_task() -> Task:
    """The paper's setting, with which speed-ups at its sizes are judged."""
    return catalogue.get(PAPER)


def _work(task: Task) -> float:
    """Multiplications of a step, without the update."""
    macs = task.teacher_macs + 3 * network.macs(task.student, task.views.size)
    return float(task.batch_size) * macs


@functools.cache
def _parameters(task: Task) -> float:
    import jax

    from distill_bench.training.source import init_student

    shapes = jax.eval_shape(lambda: init_student(task, 0))
    return float(sum(leaf.size for leaf in jax.tree.leaves(shapes)))
