"""The trained parameters that every student of a task starts from."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from distill_bench import bit, pretrained, synthetic
from distill_bench.errors import UserError
from distill_bench.pretrained import Pretrained
from distill_bench.task import Task


def load(task: Task) -> bit.Params:
    """The parameters called `task.start`, on the host; with those of a fresh classifier, all zeros, where theirs is of another number of classes.

    Of a synthetic task, random ones of the same shapes.

    Raises:
      UserError: where the file cannot be had, is another than the task names, or is not of the student's network.
    """
    if not isinstance(task.student, bit.BiTConfig):
        raise UserError(f"--start={task.start} is a BiT network, which the student is not: leave it out.")
    classes = pretrained.find(task.start).network.classes
    network = dataclasses.replace(task.student, classes=classes)
    params = synthetic.teacher(network) if task.synthetic else pretrained.load(Pretrained(task.start, network, task.start_sha256))
    if classes != task.student.classes:
        features = len(params["head"]["conv2d"]["kernel"])
        params["head"]["conv2d"] = {"kernel": jnp.zeros((features, task.student.classes)), "bias": jnp.zeros(task.student.classes)}
    return params
