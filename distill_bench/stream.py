"""One stream of (views, teacher logits) for every student of a seed.

A stream is a pure function of (task, seed, step). It is made in chunks of steps that all devices
share, and handed to all lanes: the teacher's forward, most of a step's arithmetic, is paid once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench import bit, data, datasets, labels, networks, start, synthetic, teacher, views
from distill_bench import feed as feed_lib
from distill_bench.errors import UserError
from distill_bench.feed import Feed
from distill_bench.layout import BATCH, LANES, Layout
from distill_bench.seen import ENSEMBLE, INIT, Seen, finish_step, looks, step_views, stream_key
from distill_bench.task import Task


def init_student(task: Task, seed: jax.Array | int) -> bit.Params:
    """A fresh student's parameters, a pure function of (task, seed) and common to all optimizers."""
    return networks.init(task.student, stream_key(task, INIT, seed))


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
      images, sizes: the train images, and what they measured before they were squeezed, on every device; None where they are streamed.
      feed: streams them.
      teachers: their frozen parameters (bit.freeze), on every device.
      start: the parameters that all students start from, on every device; None where each is fresh.
    """

    task: Task
    layout: Layout
    train: data.Split
    test: data.Split
    images: jax.Array | None
    sizes: jax.Array | None
    feed: Feed | None
    teachers: tuple[bit.Params, ...]
    start: bit.Params | None


def splits(task: Task, dataset: data.Dataset | data.TfdsDataset) -> tuple[data.Split, ...]:
    """The train split, and that of the task's exam."""
    if not isinstance(dataset, data.TfdsDataset):
        return data.load(dataset)
    if task.synthetic:
        return synthetic.load(dataset)
    from distill_bench import prepared

    return prepared.load(dataset, datasets.data_dir(None), splits=("train", task.exam))


def open_source(task: Task, layout: Layout) -> Source:
    """Loads and verifies the task's data and teachers.

    Raises:
      UserError: where either is not what the task names, a batch cannot be shared by so many devices or cut into so many parts, or grain is missing;
        the latter before anything is fetched.
    """
    shards = layout.mesh.shape[BATCH]
    if task.batch_size % shards:
        raise UserError(f"A batch of {task.batch_size} cannot be shared equally by {shards} devices: choose a --batch_shards that divides it.")
    share = task.batch_size // shards
    if layout.microbatches < 1 or share % layout.microbatches:
        whose = f"Each device's share of {share} images" if shards > 1 else f"A batch of {share} images"
        raise UserError(f"{whose} cannot be cut into {layout.microbatches} equal parts: choose a --microbatches that divides it.")
    streamed = feed_lib.is_streamed(task)
    train, test = splits(task, task.dataset)
    if task.images is not None:
        train, _ = splits(task, task.images)
    freeze = jax.jit(bit.freeze, static_argnums=1)
    teachers = tuple(layout.replicate(freeze(params, task.precision)) for params in teacher.load(task))
    first = layout.replicate(start.load(task)) if task.start else None
    feed = _feed(task, train, _rows(task, layout)) if streamed else None
    images, sizes = (None, None) if feed else layout.replicate((train.images, train.sizes))
    return Source(task, layout, train, test, images, sizes, feed, teachers, first)


def open_feed(task: Task) -> Feed:
    """Whole batches of a streamed task's images, without a device.

    Raises:
      UserError: where its images are not streamed, which is told before any is prepared, grain is missing, or they are not what the task names.
    """
    if not feed_lib.is_streamed(task):
        raise UserError(f"The images of {task.name} lie on the device: nothing is streamed. Name another task, such as sun397.")
    train, _ = splits(task, task.images or task.dataset)
    return _feed(task, train, range(task.batch_size))


def _feed(task: Task, train: data.Split, rows: range) -> Feed:
    assert not isinstance(train.images, np.ndarray)
    assert train.sizes is not None
    return Feed(task, train.images, np.asarray(train.sizes), rows)


def _rows(task: Task, layout: Layout) -> range:
    """Which of a batch lie on devices of this process."""
    held = NamedSharding(layout.mesh, P(BATCH)).addressable_devices_indices_map((task.batch_size,)).values()
    bounds = [part[0].indices(task.batch_size) for part in held if part]
    return range(min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds))


def chunk_steps(task: Task, layout: Layout, budget: int = 2**26) -> int:
    """Steps in a chunk: as many as `budget` bytes of views hold, at most 25, on each row of devices."""
    size = task.batch_size * sum(look.size**2 for look in looks(task)[0]) * task.student.channels * 4
    return layout.rows * int(np.clip(budget // size, 1, 25))


def _share_steps(source: Source, function):
    """jit of `function(shared, steps)`: each row of devices takes its share of the steps, their batches split over BATCH."""
    mesh, manual = source.layout.mesh, source.layout.manual
    mapped = jax.shard_map(function, mesh=mesh, in_specs=(P(), P(LANES)), out_specs=P(LANES), axis_names=manual, check_vma=False)
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, P(LANES, BATCH)))


def make_forward(source: Source):
    """jit (teachers, their views [R * m, N, H, W, C] each) -> mean logits [R * m, N, K]; each of R rows of devices takes m batches."""
    task = source.task

    def answer(params: tuple[bit.Params, ...], views: tuple[jax.Array, ...]) -> jax.Array:
        logits = [bit.apply(it.network, own, seen.astype(task.precision), frozen=True) for it, own, seen in zip(task.teachers, params, views, strict=True)]
        return sum(logits[1:], start=logits[0]) / len(logits) if len(logits) > 1 else logits[0]

    def share(params: tuple[bit.Params, ...], views: tuple[jax.Array, ...]) -> jax.Array:
        return lax.map(lambda batch: answer(params, batch), views)

    return _share_steps(source, share)


def _make_answers(source: Source, forward) -> Callable[[int, np.ndarray, Seen], jax.Array]:
    """A function (seed, numbers of steps [C], what is seen in them) -> the answers [C, N, K].

    They are the teachers' logits, of their views, or the mean prediction over many crops of each image; or those of the labels.
    """
    task, spread = source.task, NamedSharding(source.layout.mesh, P(LANES, BATCH))
    if task.teaching.labels:
        known_I = source.layout.replicate(source.train.labels)
        name = jax.jit(jax.vmap(functools.partial(labels.step_logits, task), (None, None, 0, 0)), out_shardings=spread)
        return lambda seed, step_C, seen: name(known_I, seed, step_C, seen)
    if not task.teaching.ensemble:
        _, places = looks(task)
        return lambda seed, step_C, seen: forward(source.teachers, tuple(seen.views[place] for place in places))
    table_IK = _ensemble(source, forward)
    look_up = jax.jit(lambda index_CN: table_IK[index_CN], out_shardings=spread)
    return lambda seed, step_C, seen: look_up(seen.index)


def _ensemble(source: Source, forward) -> jax.Array:
    """For each train image [I, K]: logits whose softmax at the task's temperature is the mean of the teacher's over its crops."""
    task, layout = source.task, source.layout
    n, crops = len(source.train.images), task.teaching.ensemble
    batches = np.resize(np.arange(n), (-(-n // task.batch_size), task.batch_size))
    group = chunk_steps(task, layout)  # crops made at once
    make = _make_ensemble_views(source)

    @jax.jit
    def total(logits_CNK: jax.Array, first: jax.Array) -> jax.Array:
        counted = (first + jnp.arange(group) < crops)[:, None, None]
        return jnp.sum(jax.nn.softmax(logits_CNK / task.temperature) * counted, axis=0)

    found = []
    for i, index in enumerate(batches):
        summed = 0.0
        for first in range(0, crops, group):
            seen = make(i, index, np.arange(first, first + group, dtype=np.int32))
            summed += np.asarray(layout.replicate(total(forward(source.teachers, (seen,) * len(task.teachers)), np.int32(first))))
        found.append(task.temperature * np.log(np.maximum(summed / crops, labels.FLOOR)))
    return layout.replicate(np.concatenate(found)[:n])


def _make_ensemble_views(source: Source) -> Callable[[int, np.ndarray, np.ndarray], jax.Array]:
    """A function (number of the batch, its images [N], numbers of crops [C]) -> views [C, N, size, size, c]."""
    task, train = source.task, source.train

    def keys(i: jax.Array, crop_C: jax.Array) -> jax.Array:
        return jax.vmap(lambda c: jax.random.fold_in(jax.random.fold_in(stream_key(task, ENSEMBLE, 0), i), c))(crop_C)

    if source.feed is None:

        def crop(shared: tuple[jax.Array, jax.Array | None, jax.Array], crop_C: jax.Array) -> jax.Array:
            batch, sizes, i = shared
            return lax.map(lambda key: views.make_views(key, batch, task.views, sizes_N2=sizes, crop=task.teaching.teacher, mixup=False), keys(i, crop_C))

        make, images = _share_steps(source, crop), np.asarray(train.images)
        return lambda i, index, crop_C: make((images[index], None if train.sizes is None else train.sizes[index], np.int32(i)), crop_C)

    def finish(i: jax.Array, at: tuple[jax.Array, jax.Array]) -> jax.Array:
        crop_C, crops = at
        pixels = views.scaled(crops.astype(jnp.float32), crops.dtype)
        return jax.vmap(lambda key, own: views.finish(key, own, task.views, task.teaching.teacher, False))(keys(i, crop_C), pixels)

    finished, feed = _share_steps(source, finish), source.feed
    return lambda i, index, crop_C: finished(np.int32(i), (crop_C, feed_lib.ensemble_crops(task, feed.files, feed.sizes, index, int(crop_C[0]), len(crop_C))))


def make_chunks(source: Source, steps: int, forward) -> Callable[[int, int], Chunk]:
    """A function (seed, first step) -> Chunk; each row of devices makes its share of the steps, then all get all."""
    layout = source.layout
    answers = _make_answers(source, forward)
    make = _make_steps(source)

    def chunk(seed: int, first: int) -> Chunk:
        step_C = np.arange(first, first + steps, dtype=np.int32)
        seen = make(seed, step_C)
        both = Chunk(seen.student, answers(seed, step_C, seen))
        return layout.place(jax.tree.map(lambda x: x[None], both), P(None, *DEALT[1:]))

    return chunk


def _make_steps(source: Source) -> Callable[[int, np.ndarray], Seen]:
    """A function (seed, numbers of steps [C]) -> what is seen in them, in the precision of the networks, which no network exceeds."""
    task, layout, feed = source.task, source.layout, source.feed

    def rounded(views: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(view.astype(task.precision) for view in views)

    def seen_in(images: jax.Array, seed: jax.Array, step: jax.Array, sizes: jax.Array | None) -> Seen:
        seen = step_views(task, images, seed, step, sizes)
        return Seen(rounded(seen.views), seen.index)

    if feed is None:

        def share(shared: tuple[jax.Array, jax.Array | None, jax.Array], step_C: jax.Array) -> Seen:
            images, sizes, seed = shared
            return lax.map(lambda step: seen_in(images, seed, step, sizes), step_C)

        make = _share_steps(source, share)
        return lambda seed, step_C: make((source.images, source.sizes, np.int32(seed)), step_C)

    def finish(seed: jax.Array, at: tuple[jax.Array, tuple[jax.Array, ...]]) -> tuple[jax.Array, ...]:
        return lax.map(lambda one: rounded(finish_step(task, one[1], seed, one[0])), at)

    finished = _share_steps(source, finish)

    def spread(crops: np.ndarray) -> jax.Array:
        """The crops [C, rows, ...] of this process, as an array of all processes."""
        shape = (len(crops), task.batch_size, *crops.shape[2:])
        first = feed.rows.start

        def part(place: tuple[slice, ...] | None) -> np.ndarray:
            assert place is not None
            start, stop, _ = place[1].indices(task.batch_size)
            return crops[place[0], start - first : stop - first]

        return jax.make_array_from_callback(shape, NamedSharding(layout.mesh, P(LANES, BATCH)), part)

    def streamed(seed: int, step_C: np.ndarray) -> Seen:
        first, steps = int(step_C[0]), len(step_C)
        crops = tuple(spread(one) for one in feed.read(seed, first, steps))
        return Seen(finished(np.int32(seed), (step_C, crops)), layout.place(feed.index(seed, first, steps), P(LANES, BATCH)))

    return streamed
