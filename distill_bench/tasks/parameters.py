"""The trained parameters that every student of a task starts from."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.networks.bit import BiTConfig
from distill_bench.tasks.task import Task, Teacher
from distill_bench.weights import files, lookup
from distill_bench.weights.lookup import Pretrained


def load_start(task: Task) -> bit.Params:
    """The parameters called `task.start`, on the host; with those of a fresh classifier, all zeros, where theirs is of another number of classes.

    Of a synthetic task, random ones of the same shapes.

    Raises:
      UserError: where the file cannot be had, is another than the task names, or is not of the student's network.
    """
    if not isinstance(task.student, bit.BiTConfig):
        raise UserError(
            f"--start={task.start} is a BiT network, which the student is not: leave it out."
        )
    classes = lookup.find(task.start).network.classes
    network = dataclasses.replace(task.student, classes=classes)
    params = (
        random_teacher(network)
        if task.synthetic
        else lookup.load(Pretrained(task.start, network, task.start_sha256))
    )
    if classes != task.student.classes:
        features = len(params["head"]["conv2d"]["kernel"])
        params["head"]["conv2d"] = {
            "kernel": jnp.zeros((features, task.student.classes)),
            "bias": jnp.zeros(task.student.classes),
        }
    return params


def load_teachers(task: Task) -> tuple[bit.Params, ...]:
    """The task's teachers: embedded, published, fine-tuned, or synthetic; refused with `UserError` unless they are what the task names."""
    return tuple(_load_teacher(it, task.synthetic, seed) for seed, it in enumerate(task.teachers))


def _load_teacher(teacher: Teacher, random: bool, seed: int) -> bit.Params:
    if random:
        return random_teacher(teacher.network, seed)
    if teacher.file.endswith(".npz"):
        return files.load_verified(files.EMBEDDED / teacher.file, teacher.network, teacher.sha256)
    return lookup.load(lookup.Pretrained(teacher.file, teacher.network, teacher.sha256))


def random_teacher(config: BiTConfig, seed: int = 0) -> bit.Params:
    """Fresh parameters with a random classifier, so that images get different answers."""
    key, head_key = jax.random.split(jax.random.key(seed))
    params = bit.init(config, key)
    kernel = params["head"]["conv2d"]["kernel"]
    params["head"]["conv2d"]["kernel"] = jax.random.normal(head_key, kernel.shape) / np.sqrt(
        len(kernel)
    )
    return params
