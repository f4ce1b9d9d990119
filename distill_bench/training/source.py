"""A task opened on the devices of a layout: its images, teachers and start parameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import numpy as np

from distill_bench.data import datasets, fashion_mnist, synthetic
from distill_bench.data.dataset import (
    AnyDataset,
    Dataset,
    FashionMnist,
    Split,
    load_embedded,
)
from distill_bench.errors import UserError
from distill_bench.networks import bit, network
from distill_bench.tasks.parameters import load_start, load_teachers
from distill_bench.tasks.task import Task
from distill_bench.training.images import Images, open_images
from distill_bench.training.lane_layout import BATCH, LaneLayout
from distill_bench.views import host_crops
from distill_bench.views.host_crops import HostCrops
from distill_bench.views.step_views import INIT, stream_key, view_specs

# Multiply-accumulates of a chunk's teacher logits on one row of CPU devices: about a second.
CPU_CHUNK_MACS = 2**35


def init_student(task: Task, seed: jax.Array | int) -> bit.Params:
    """A fresh student's parameters: a pure function of (task, seed), whatever the optimizer."""
    return network.init(task.student, stream_key(task, INIT, seed))


@dataclass(frozen=True)
class Source:
    """A task's data and parameters, ready for the devices of a layout.

    Attributes:
      task: the task.
      layout: the devices, and how lanes lie on them.
      train, test: the splits, on the host.
      train_images, test_images: make the views of each split's images.
      teachers: frozen parameters of each teacher (bit.freeze), on every device.
      start: parameters that all students start from, on every device; None if each starts fresh.
    """

    task: Task
    layout: LaneLayout
    train: Split
    test: Split
    train_images: Images
    test_images: Images
    teachers: tuple[bit.Params, ...]
    start: bit.Params | None

    def on(self, layout: LaneLayout) -> Source:
        """The same task on the devices of another layout, read from disk only once."""
        teachers, start = layout.replicate(jax.tree.map(np.asarray, (self.teachers, self.start)))
        return dataclasses.replace(
            self,
            layout=layout,
            train_images=self.train_images.on(layout),
            test_images=self.test_images.on(layout),
            teachers=teachers,
            start=start,
        )


def splits(task: Task, dataset: AnyDataset) -> tuple[Split, ...]:
    """The train split and the split that the task is evaluated on."""
    if isinstance(dataset, Dataset):
        return load_embedded(dataset)
    if isinstance(dataset, FashionMnist):
        return fashion_mnist.splits(dataset, datasets.data_dir(None))
    if task.synthetic:
        return synthetic.load(dataset)
    from distill_bench.data import prepared

    return prepared.load(dataset, datasets.data_dir(None), splits=("train", task.eval_split))


def open_source(task: Task, layout: LaneLayout) -> Source:
    """Loads and verifies the task's data and teachers.

    Raises:
      UserError: if data or teachers differ from those of the task; and, before anything is fetched,
        if the layout cannot divide a batch equally or grain is missing.
    """
    _check_division(task, layout)
    host_crops.is_streamed(task)  # raises if grain is missing
    train, test = splits(task, task.dataset)
    if task.images is not None:
        train, _ = splits(task, task.images)
    freeze = jax.jit(bit.freeze, static_argnums=1)
    with layout.as_default():
        teachers = tuple(
            layout.replicate(freeze(params, task.precision)) for params in load_teachers(task)
        )
    start = layout.replicate(load_start(task)) if task.start else None
    train_images = open_images(task, layout, task.images or task.dataset, train)
    test_images = open_images(task, layout, task.dataset, _probed(task, test))
    return Source(task, layout, train, test, train_images, test_images, teachers, start)


def _probed(task: Task, split: Split) -> Split:
    """The images of which probe views are made: the first of the split."""
    if isinstance(split.images, np.ndarray):
        return split
    number = task.probe.batches * task.probe.batch_size
    return dataclasses.replace(split, sizes=np.asarray(split.sizes)[:number])


def _check_division(task: Task, layout: LaneLayout) -> None:
    shards = layout.mesh.shape[BATCH]
    if task.batch_size % shards:
        raise UserError(
            f"A batch of {task.batch_size} images cannot be divided equally among {shards} "
            "devices: choose a --batch_shards that divides it."
        )
    share = task.batch_size // shards
    if layout.microbatches < 1 or share % layout.microbatches:
        whose = f"Each device's share of {share}" if shards > 1 else f"A batch of {share}"
        raise UserError(
            f"{whose} images cannot be cut into {layout.microbatches} equal parts: "
            "choose a --microbatches that divides it."
        )


def open_feed(task: Task) -> HostCrops:
    """Whole batches of a streamed task's crops, made without a device.

    Raises:
      UserError: if the task's images are not streamed or grain is missing (both before any data is
        prepared), or if the data differ from those of the task.
    """
    if not host_crops.is_streamed(task):
        raise UserError(
            f"The images of {task.name} lie on the device, so nothing is streamed: "
            "name another task, such as sun397."
        )
    train, _ = splits(task, task.images or task.dataset)
    assert not isinstance(train.images, np.ndarray)
    assert train.sizes is not None
    return HostCrops(task, train.images, np.asarray(train.sizes), range(task.batch_size))


def chunk_steps(task: Task, layout: LaneLayout, budget: int = 2**26) -> int:
    """Steps in a chunk.

    Each row of devices makes as many as fit into `budget` bytes of views, and 25 at most. On a CPU,
    the teachers' forward passes also count: a large teacher would keep the first step waiting.
    """
    size = (
        task.batch_size
        * sum(spec.size**2 for spec in view_specs(task)[0])
        * task.student.channels
        * 4
    )
    steps = budget // size
    if layout.mesh.devices.flat[0].platform == "cpu" and (macs := task.teacher_macs):
        steps = min(steps, CPU_CHUNK_MACS // (task.batch_size * macs))
    return layout.rows * int(np.clip(steps, 1, 25))
