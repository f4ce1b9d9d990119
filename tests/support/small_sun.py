"""A small streamed task: pictures of several sizes in array_record, one of them damaged, and two small teachers."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import jax
from PIL import Image

from distill_bench.data import prepared
from distill_bench.data.dataset import TfdsDataset
from distill_bench.networks import bit
from distill_bench.tasks.catalogue import SUN
from distill_bench.tasks.task import ProbeConfig, Task, Teacher
from distill_bench.weights import files as checkpoints
from support import small_tfds

COUNT = 20


def make(root: Path) -> Task:
    """The task, prepared in `root`, where $TFDS_DATA_DIR has to point."""
    files = [
        (small_tfds.encode(Image.fromarray(small_tfds.picture(40 + 3 * i, 64 - 2 * i, seed=i))), i)
        for i in range(COUNT)
    ]
    files.insert(3, (b"no picture", 77))
    small_tfds.write(
        root, {"train": files, "validation": files[:5], "test": files[5:14]}, name="sun397/tfds"
    )
    network = dataclasses.replace(SUN.teacher, depths=(1,), width=8, groups=4, classes=5)
    taught = []
    for seed in (1, 2):
        params = bit.init(network, jax.random.key(seed))
        params["head"]["conv2d"]["kernel"] = jax.random.normal(
            jax.random.key(seed), params["head"]["conv2d"]["kernel"].shape
        )
        (root / f"teacher{seed}.npz").write_bytes(content := checkpoints.dumps(params))
        taught.append(
            Teacher(
                network,
                str(root / f"teacher{seed}.npz"),
                hashlib.sha256(content).hexdigest(),
                size=24 if seed == 2 else None,
            )
        )
    task = dataclasses.replace(
        SUN,
        dataset=TfdsDataset(
            "sun397/tfds", "train", "validation", "test", COUNT + 1, 5, 9, side=None, clean=(20, 16)
        ),
        teacher=network,
        teacher_file=taught[0].file,
        teacher_sha256=taught[0].sha256,
        more_teachers=(taught[1],),
        student=dataclasses.replace(SUN.student, depths=(1,), width=8, groups=4, classes=5),
        views=dataclasses.replace(SUN.views, size=16),
        batch_size=8,
        temperature=1.0,
        precision="float32",
        probe=ProbeConfig(batches=2, batch_size=4),
    )
    prepared.prepare(task.dataset, root, lambda text: None)
    return task
