"""A task opened on the devices of a layout: its images, teachers and start parameters."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.data import datasets, synthetic
from distill_bench.data.dataset import Dataset, Split, TfdsDataset, load_embedded
from distill_bench.errors import UserError
from distill_bench.networks import bit, network
from distill_bench.tasks.parameters import load_start, load_teachers
from distill_bench.tasks.task import Task
from distill_bench.training.lane_layout import BATCH, LANES, LaneLayout
from distill_bench.views import host_crops
from distill_bench.views.host_crops import HostCrops
from distill_bench.views.step_views import (
    INIT,
    stream_key,
    view_specs,
)


def init_student(task: Task, seed: jax.Array | int) -> bit.Params:
    """A fresh student's parameters, a pure function of (task, seed) and common to all optimizers."""
    return network.init(task.student, stream_key(task, INIT, seed))


@dataclass(frozen=True)
class Source:
    """The task's arrays on the devices of a layout.

    Attributes:
      task: whose arrays these are.
      layout: the devices, and how lanes lie on them.
      train, test: the splits, on the host.
      images, sizes: the train images, and what they measured before they were squeezed, on every device; None where they are streamed.
      feed: streams them.
      teachers: their frozen parameters (bit.freeze), on every device.
      start: the parameters that all students start from, on every device; None where each is fresh.
    """

    task: Task
    layout: LaneLayout
    train: Split
    test: Split
    images: jax.Array | None
    sizes: jax.Array | None
    feed: HostCrops | None
    teachers: tuple[bit.Params, ...]
    start: bit.Params | None


def splits(task: Task, dataset: Dataset | TfdsDataset) -> tuple[Split, ...]:
    """The train split, and that of the task's eval_set."""
    if not isinstance(dataset, TfdsDataset):
        return load_embedded(dataset)
    if task.synthetic:
        return synthetic.load(dataset)
    from distill_bench.data import prepared

    return prepared.load(dataset, datasets.data_dir(None), splits=("train", task.eval_split))


def open_source(task: Task, layout: LaneLayout) -> Source:
    """Loads and verifies the task's data and teachers.

    Raises:
      UserError: where either is not what the task names, a batch cannot be shared by so many devices or cut into so many parts, or grain is missing;
        the latter before anything is fetched.
    """
    shards = layout.mesh.shape[BATCH]
    if task.batch_size % shards:
        raise UserError(
            f"A batch of {task.batch_size} cannot be shared equally by {shards} devices: choose a --batch_shards that divides it."
        )
    share = task.batch_size // shards
    if layout.microbatches < 1 or share % layout.microbatches:
        whose = (
            f"Each device's share of {share} images" if shards > 1 else f"A batch of {share} images"
        )
        raise UserError(
            f"{whose} cannot be cut into {layout.microbatches} equal parts: choose a --microbatches that divides it."
        )
    streamed = host_crops.is_streamed(task)
    train, test = splits(task, task.dataset)
    if task.images is not None:
        train, _ = splits(task, task.images)
    freeze = jax.jit(bit.freeze, static_argnums=1)
    teachers = tuple(
        layout.replicate(freeze(params, task.precision)) for params in load_teachers(task)
    )
    first = layout.replicate(load_start(task)) if task.start else None
    feed = _feed(task, train, _rows(task, layout)) if streamed else None
    images, sizes = (None, None) if feed else layout.replicate((train.images, train.sizes))
    return Source(task, layout, train, test, images, sizes, feed, teachers, first)


def open_feed(task: Task) -> HostCrops:
    """Whole batches of a streamed task's images, without a device.

    Raises:
      UserError: where its images are not streamed, which is told before any is prepared, grain is missing, or they are not what the task names.
    """
    if not host_crops.is_streamed(task):
        raise UserError(
            f"The images of {task.name} lie on the device: nothing is streamed. Name another task, such as sun397."
        )
    train, _ = splits(task, task.images or task.dataset)
    return _feed(task, train, range(task.batch_size))


def _feed(task: Task, train: Split, rows: range) -> HostCrops:
    assert not isinstance(train.images, np.ndarray)
    assert train.sizes is not None
    return HostCrops(task, train.images, np.asarray(train.sizes), rows)


def _rows(task: Task, layout: LaneLayout) -> range:
    """Which of a batch lie on devices of this process."""
    held = (
        NamedSharding(layout.mesh, P(BATCH))
        .addressable_devices_indices_map((task.batch_size,))
        .values()
    )
    bounds = [part[0].indices(task.batch_size) for part in held if part]
    return range(min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds))


def chunk_steps(task: Task, layout: LaneLayout, budget: int = 2**26) -> int:
    """Steps in a chunk: as many as `budget` bytes of views hold, at most 25, on each row of devices."""
    size = (
        task.batch_size
        * sum(look.size**2 for look in view_specs(task)[0])
        * task.student.channels
        * 4
    )
    return layout.rows * int(np.clip(budget // size, 1, 25))


def share_steps(source: Source, function):
    """jit of `function(shared, steps)`: each row of devices takes its share of the steps, their batches split over BATCH."""
    mesh, manual = source.layout.mesh, source.layout.manual
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(P(), P(LANES)),
        out_specs=P(LANES),
        axis_names=manual,
        check_vma=False,
    )
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, P(LANES, BATCH)))
