"""A small streamed task: pictures of several sizes, one of them damaged, and two small teachers."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import jax
from PIL import Image

from distill_bench import machine
from distill_bench.data import prepared
from distill_bench.data.dataset import TfdsDataset
from distill_bench.networks import bit
from distill_bench.tasks.catalogue import SUN
from distill_bench.tasks.task import ProbeConfig, Task, Teacher
from distill_bench.weights import files
from support import small_tfds

COUNT = 20  # undamaged pictures
SEEDS = (1, 2)  # of the teachers
TEACHER = dataclasses.replace(SUN.teacher, depths=(1,), width=8, groups=4, classes=5)


def from_environment() -> Task:
    """The task that `make` prepared in $TFDS_DATA_DIR, for a script in another process."""
    return _task(Path(os.environ[machine.DATA]))


def make(root: Path) -> Task:
    """Writes and prepares the data set, writes the teachers, and returns the task.

    root: the data folder; $TFDS_DATA_DIR must point there.
    """
    pictures = [
        (small_tfds.encode(Image.fromarray(small_tfds.picture(40 + 3 * i, 64 - 2 * i, seed=i))), i)
        for i in range(COUNT)
    ]
    pictures.insert(3, (b"no picture", 77))
    small_tfds.write(
        root,
        {"train": pictures, "validation": pictures[:5], "test": pictures[5:14]},
        name="sun397/tfds",
    )
    for seed in SEEDS:
        params = bit.init(TEACHER, jax.random.key(seed))
        params["head"]["conv2d"]["kernel"] = jax.random.normal(
            jax.random.key(seed), params["head"]["conv2d"]["kernel"].shape
        )
        _teacher_path(root, seed).write_bytes(files.dumps(params))
    task = _task(root)
    prepared.prepare(task.dataset, root, lambda text: None)
    return task


def _teacher_path(root: Path, seed: int) -> Path:
    return root / f"teacher{seed}.npz"


def _task(root: Path) -> Task:
    first, second = (
        Teacher(TEACHER, str(path), hashlib.sha256(path.read_bytes()).hexdigest(), size=size)
        for path, size in ((_teacher_path(root, 1), None), (_teacher_path(root, 2), 24))
    )
    return dataclasses.replace(
        SUN,
        dataset=TfdsDataset(
            "sun397/tfds", "train", "validation", "test", COUNT + 1, 5, 9, side=None, clean=(20, 16)
        ),
        teacher=first.network,
        teacher_file=first.file,
        teacher_sha256=first.sha256,
        more_teachers=(second,),
        student=dataclasses.replace(SUN.student, depths=(1,), width=8, groups=4, classes=5),
        views=dataclasses.replace(SUN.views, size=16),
        batch_size=8,
        temperature=1.0,
        precision="float32",
        probe=ProbeConfig(batches=2, batch_size=4),
    )
