"""One stream of (views, teacher logits) for every student of a seed.

A stream is a pure function of (task, seed, step). It is made in chunks of steps that all devices
share, and handed to all lanes: the teacher's forward, most of a step's arithmetic, is paid once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench import bit, data, datasets, networks, synthetic, teacher, views
from distill_bench.errors import UserError
from distill_bench.layout import BATCH, LANES, Layout
from distill_bench.task import Task

_STREAM, _INIT, _PROBE, _ENSEMBLE = range(4)  # the task's independent random streams


def _key(task: Task, purpose: int, seed: jax.Array | int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(task.seed), purpose), seed)


def init_student(task: Task, seed: jax.Array | int) -> bit.Params:
    """The student's first parameters, a pure function of (task, seed) and common to all optimizers."""
    return networks.init(task.student, _key(task, _INIT, seed))


class Seen(NamedTuple):
    """One training step: the student's views [batch, size, size, C]; the teacher's, None where it sees the same; which images [batch] they are of."""

    student: jax.Array
    teacher: jax.Array | None
    index: jax.Array


def step_views(task: Task, images_NHWC: jax.Array, seed: jax.Array | int, step: jax.Array | int, sizes_N2: jax.Array | None = None) -> Seen:
    """What is seen in one training step, a pure function of (task, seed, step); the images and their sizes are the train split's."""
    key = _key(task, _STREAM, seed)
    order_key, view_key = jax.random.split(key)
    index = views.batch_indices(order_key, jnp.asarray(step), len(images_NHWC), task.batch_size)
    images, key, mode = images_NHWC[index], jax.random.fold_in(view_key, step), task.teaching
    sizes = None if sizes_N2 is None else sizes_N2[index]
    student = views.make_views(key, images, task.views, sizes_N2=sizes, crop=mode.student, mixup=mode.mixup)
    if mode.same or mode.ensemble:
        return Seen(student, None, index)
    return Seen(student, views.make_views(jax.random.fold_in(key, 1), images, task.views, sizes_N2=sizes, crop=mode.teacher, mixup=mode.mixup), index)


def probe_views(task: Task, images_BNHWC: jax.Array, sizes_BN2: jax.Array | None = None) -> jax.Array:
    """Fixed views [B, N, size, size, C] of batches of images, on which losses are reported.

    Each batch has its own mixup coefficient, the coefficients stratified over [0, 1]: with one
    coefficient for all of them, losses of two probe sets could not be compared. All sets of images use
    the same key, hence the same crops and coefficients.
    """
    n = task.probe.batches
    strata_key, view_key = jax.random.split(_key(task, _PROBE, 0))
    coefficients = (jnp.arange(n) + jax.random.uniform(strata_key, (n,))) / n

    def batch(at: tuple[jax.Array, jax.Array, jax.Array | None, jax.Array]) -> jax.Array:
        i, images, sizes, coefficient = at
        return views.make_views(jax.random.fold_in(view_key, i), images, task.views, coefficient, sizes_N2=sizes)

    return lax.map(batch, (jnp.arange(n), images_BNHWC, sizes_BN2, coefficients))


DEALT = P(LANES, None, BATCH)  # how chunks lie on the devices when each row has one: [R, C, N, ...]


class Chunk(NamedTuple):
    """C steps of one stream, on every row of devices: views [1, C, N, H, W, c] and teacher logits [1, C, N, K]."""

    views: jax.Array
    logits: jax.Array


@dataclass(frozen=True)
class Source:
    """The task's arrays on the devices of a layout.

    Attributes:
      task: whose arrays these are.
      layout: the devices, and how lanes lie on them.
      train, test: the splits, on the host.
      images, sizes: the train images, and what they measured before they were squeezed, on every device.
      teacher: the teacher's frozen parameters (bit.freeze), on every device.
    """

    task: Task
    layout: Layout
    train: data.Split
    test: data.Split
    images: jax.Array
    sizes: jax.Array | None
    teacher: bit.Params


def _images(task: Task) -> tuple[data.Split, data.Split]:
    if not isinstance(task.dataset, data.TfdsDataset):
        return data.load(task.dataset)
    if task.synthetic:
        return synthetic.load(task.dataset)
    from distill_bench import prepared

    return prepared.load(task.dataset, datasets.data_dir(None))


def open_source(task: Task, layout: Layout) -> Source:
    """Loads and verifies the task's data and teacher.

    Raises:
      UserError: where either is not what the task names, or a batch cannot be shared by so many devices or cut into so many parts.
    """
    shards = layout.mesh.shape[BATCH]
    if task.batch_size % shards:
        raise UserError(f"A batch of {task.batch_size} cannot be shared equally by {shards} devices: choose a --batch_shards that divides it.")
    share = task.batch_size // shards
    if layout.microbatches < 1 or share % layout.microbatches:
        whose = f"Each device's share of {share} images" if shards > 1 else f"A batch of {share} images"
        raise UserError(f"{whose} cannot be cut into {layout.microbatches} equal parts: choose a --microbatches that divides it.")
    train, test = _images(task)
    answers = jax.jit(bit.freeze, static_argnums=1)(teacher.load(task), task.precision)
    images, sizes, params = layout.replicate((train.images, train.sizes, answers))
    return Source(task, layout, train, test, images, sizes, params)


def chunk_steps(task: Task, layout: Layout, budget: int = 2**26) -> int:
    """Steps in a chunk: as many as `budget` bytes of views hold, at most 25, on each row of devices."""
    size = task.batch_size * task.views.size**2 * task.student.channels * 4
    return layout.rows * int(np.clip(budget // size, 1, 25))


def _share_steps(source: Source, function):
    """jit of `function(shared, steps)`: each row of devices takes its share of the steps, their batches split over BATCH."""
    mesh, manual = source.layout.mesh, source.layout.manual
    mapped = jax.shard_map(function, mesh=mesh, in_specs=(P(), P(LANES)), out_specs=P(LANES), axis_names=manual, check_vma=False)
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, P(LANES, BATCH)))


def make_forward(source: Source):
    """jit images [R * m, N, H, W, C] -> teacher logits [R * m, N, K]; each of R rows of devices takes m batches."""

    def share(params: bit.Params, images: jax.Array) -> jax.Array:
        return lax.map(lambda batch: bit.apply(source.task.teacher, params, batch.astype(source.task.precision), frozen=True), images)

    return _share_steps(source, share)


def _make_answers(source: Source, forward) -> Callable[[Seen], jax.Array]:
    """A function from C steps to the teacher's logits [C, N, K]: of its views, or the mean prediction over many crops of each image."""
    task = source.task
    if not task.teaching.ensemble:
        return lambda seen: forward(source.teacher, seen.student if seen.teacher is None else seen.teacher)
    table_IK = _ensemble(source, forward)
    look_up = jax.jit(lambda index_CN: table_IK[index_CN], out_shardings=NamedSharding(source.layout.mesh, P(LANES, BATCH)))
    return lambda seen: look_up(seen.index)


def _ensemble(source: Source, forward) -> jax.Array:
    """For each train image [I, K]: logits whose softmax at the task's temperature is the mean of the teacher's over its crops."""
    task, layout = source.task, source.layout
    n, crops = len(source.images), task.teaching.ensemble
    batches = -(-n // task.batch_size)

    def batched(x: np.ndarray) -> np.ndarray:
        return np.resize(x, (batches * task.batch_size, *x.shape[1:])).reshape(batches, task.batch_size, *x.shape[1:])

    images, sizes = jax.tree.map(batched, (np.asarray(source.train.images), source.train.sizes))
    group = chunk_steps(task, layout)  # crops made at once

    def share(shared: tuple[jax.Array, jax.Array | None, jax.Array], crop_C: jax.Array) -> jax.Array:
        batch, sizes, i = shared
        keys = jax.vmap(lambda c: jax.random.fold_in(jax.random.fold_in(_key(task, _ENSEMBLE, 0), i), c))(crop_C)
        return lax.map(lambda key: views.make_views(key, batch, task.views, sizes_N2=sizes, crop=task.teaching.teacher, mixup=False), keys)

    make = _share_steps(source, share)

    @jax.jit
    def total(logits_CNK: jax.Array, first: jax.Array) -> jax.Array:
        counted = (first + jnp.arange(group) < crops)[:, None, None]
        return jnp.sum(jax.nn.softmax(logits_CNK / task.temperature) * counted, axis=0)

    found = []
    for i, batch in enumerate(images):
        summed = 0.0
        for first in range(0, crops, group):
            seen = make((batch, None if sizes is None else sizes[i], np.int32(i)), np.arange(first, first + group, dtype=np.int32))
            summed += np.asarray(layout.replicate(total(forward(source.teacher, seen), np.int32(first))))
        found.append(task.temperature * np.log(summed / crops))
    return layout.replicate(np.concatenate(found)[:n])


def make_chunks(source: Source, steps: int, forward):
    """A function (seed, first step) -> Chunk; each row of devices makes its share of the steps, then all get all."""
    layout = source.layout
    answers = _make_answers(source, forward)

    def share(shared: tuple[jax.Array, jax.Array | None, jax.Array], step_C: jax.Array) -> Seen:
        images, sizes, seed = shared
        return lax.map(lambda step: step_views(source.task, images, seed, step, sizes), step_C)

    make = _share_steps(source, share)

    def chunk(seed: int, first: int) -> Chunk:
        seen = make((source.images, source.sizes, np.int32(seed)), np.arange(first, first + steps, dtype=np.int32))
        both = Chunk(seen.student, answers(seen))
        return layout.place(jax.tree.map(lambda x: x[None], both), P(None, *DEALT[1:]))

    return chunk
