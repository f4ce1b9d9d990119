"""The tiny task: the digits, with a teacher of one unit and a student of one unit.

The same of Fashion-MNIST has the first images only.

Scripts under test find it as an installed package's task (support/installed), in this module.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import jax

from distill_bench.networks import bit
from distill_bench.tasks.catalogue import DIGITS, FASHION
from distill_bench.tasks.task import ProbeConfig, Task
from distill_bench.weights import files

# Environment variables: the teacher's file and its digest.
TEACHER, SHA256 = "TINY_TEACHER", "TINY_TEACHER_SHA256"
NETWORK = dataclasses.replace(DIGITS.teacher, depths=(1,), width=8, groups=4)
FASHION_IMAGES = 512


def make(path: Path) -> Task:
    """Writes a teacher of random weights to `path`, and returns the task."""
    return _task(str(path), _write_teacher(path, NETWORK))


def make_fashion(path: Path) -> Task:
    """The same of Fashion-MNIST."""
    network = dataclasses.replace(FASHION.teacher, depths=(1,), width=8, groups=4)
    cut = dataclasses.replace(FASHION.dataset, train_size=FASHION_IMAGES, test_size=64)
    varied = _small(FASHION, network, str(path), _write_teacher(path, network))
    return dataclasses.replace(varied, name="tiny-fashion", dataset=cut)


def _write_teacher(path: Path, network: bit.BiTConfig) -> str:
    """Returns the file's sha256."""
    params = bit.init(network, jax.random.key(1))
    params["head"]["conv2d"]["kernel"] = jax.random.normal(
        jax.random.key(2), params["head"]["conv2d"]["kernel"].shape
    )
    content = files.dumps(params)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def environment(task: Task) -> dict[str, str]:
    """The variables with which `from_environment` returns `task` in another process."""
    return {TEACHER: task.teacher_file, SHA256: task.teacher_sha256}


def from_environment() -> Task:
    return _task(os.environ[TEACHER], os.environ[SHA256])


def _task(teacher_file: str, teacher_sha256: str) -> Task:
    return dataclasses.replace(_small(DIGITS, NETWORK, teacher_file, teacher_sha256), name="tiny")


def _small(task: Task, teacher: bit.BiTConfig, teacher_file: str, teacher_sha256: str) -> Task:
    return dataclasses.replace(
        task,
        teacher=teacher,
        teacher_file=teacher_file,
        teacher_sha256=teacher_sha256,
        student=dataclasses.replace(task.student, depths=(1,), width=4, groups=2),
        batch_size=16,
        probe=ProbeConfig(batches=4, batch_size=8),
    )
