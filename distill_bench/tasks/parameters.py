"""Parameters of a task's teachers, and those that its students start from."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.networks.bit import BiTConfig
from distill_bench.tasks.task import Task, Teacher
from distill_bench.weights import files, lookup
from distill_bench.weights.lookup import Pretrained


def load_teachers(task: Task) -> tuple[bit.Params, ...]:
    """Parameters of the task's teachers, on the host; random ones for a synthetic task.

    Raises:
      UserError: if a file is missing, damaged or not the one that the task was made with.
    """
    if task.synthetic:
        return tuple(
            random_params(teacher.network, seed) for seed, teacher in enumerate(task.teachers)
        )
    return tuple(_load_teacher(teacher) for teacher in task.teachers)


def _load_teacher(teacher: Teacher) -> bit.Params:
    if teacher.file.endswith(".npz"):
        return files.load_verified(files.EMBEDDED / teacher.file, teacher.network, teacher.sha256)
    return lookup.load(Pretrained(teacher.file, teacher.network, teacher.sha256))


def load_start(task: Task) -> bit.Params:
    """The parameters called `task.start`, on the host; random ones for a synthetic task.

    The classifier is all zeros if the file's has another number of classes than the task.

    Raises:
      UserError: if the file is missing, damaged, not the one that the task was made with, or not a
        network like the student's.
    """
    if not isinstance(task.student, BiTConfig):
        raise UserError(
            f"--start={task.start} holds a BiT network, but the student is not a BiT: leave it out."
        )
    classes = lookup.find(task.start).network.classes
    network = dataclasses.replace(task.student, classes=classes)
    if task.synthetic:
        params = random_params(network)
    else:
        params = lookup.load(Pretrained(task.start, network, task.start_sha256))
    if classes != task.student.classes:
        features = len(params["head"]["conv2d"]["kernel"])
        params["head"]["conv2d"] = {
            "kernel": np.zeros((features, task.student.classes), np.float32),
            "bias": np.zeros(task.student.classes, np.float32),
        }
    return params


def random_params(network: BiTConfig, seed: int = 0) -> bit.Params:
    """He-normal kernels, and a random classifier instead of zeros, so that images differ in their
    logits. A pure function of (network, seed). NumPy draws it, so nothing has to be compiled."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key != "kernel":
            return np.full(leaf.shape, path[-1].key == "gamma", np.float32)
        values = rng.standard_normal(leaf.shape, np.float32)
        values *= np.sqrt((2 if leaf.ndim == 4 else 1) / math.prod(leaf.shape[:-1]))
        return values

    shapes = jax.eval_shape(lambda: bit.init(network, jax.random.key(0)))
    return jax.tree.map_with_path(draw, shapes)
