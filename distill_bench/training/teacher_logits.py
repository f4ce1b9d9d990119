"""The teachers' logits: of the views of a step, of the labels, or averaged over many crops of each image."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.networks import bit
from distill_bench.training.lane_layout import BATCH, LANES
from distill_bench.training.source import Source, chunk_steps, share_steps
from distill_bench.views import augment as views
from distill_bench.views import host_crops, label_logits
from distill_bench.views.step_views import (
    ENSEMBLE,
    StepViews,
    stream_key,
    view_specs,
)


def make_forward(source: Source):
    """jit (teachers, their views [R * m, N, H, W, C] each) -> mean logits [R * m, N, K]; each of R rows of devices takes m batches."""
    task = source.task

    def answer(params: tuple[bit.Params, ...], views: tuple[jax.Array, ...]) -> jax.Array:
        logits = [
            bit.apply(it.network, own, seen.astype(task.precision), frozen=True)
            for it, own, seen in zip(task.teachers, params, views, strict=True)
        ]
        return sum(logits[1:], start=logits[0]) / len(logits) if len(logits) > 1 else logits[0]

    def share(params: tuple[bit.Params, ...], views: tuple[jax.Array, ...]) -> jax.Array:
        return lax.map(lambda batch: answer(params, batch), views)

    return share_steps(source, share)


def make_answers(source: Source, forward) -> Callable[[int, np.ndarray, StepViews], jax.Array]:
    """A function (seed, numbers of steps [C], what is seen in them) -> the answers [C, N, K].

    They are the teachers' logits, of their views, or the mean prediction over many crops of each image; or those of the labels.
    """
    task, spread = source.task, NamedSharding(source.layout.mesh, P(LANES, BATCH))
    if task.teaching.labels:
        known_I = source.layout.replicate(source.train.labels)
        name = jax.jit(
            jax.vmap(functools.partial(label_logits.step_logits, task), (None, None, 0, 0)),
            out_shardings=spread,
        )
        return lambda seed, step_C, seen: name(known_I, seed, step_C, seen)
    if not task.teaching.ensemble:
        _, places = view_specs(task)
        return lambda seed, step_C, seen: forward(
            source.teachers, tuple(seen.views[place] for place in places)
        )
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
            summed += np.asarray(
                layout.replicate(
                    total(forward(source.teachers, (seen,) * len(task.teachers)), np.int32(first))
                )
            )
        found.append(task.temperature * np.log(np.maximum(summed / crops, label_logits.FLOOR)))
    return layout.replicate(np.concatenate(found)[:n])


def _make_ensemble_views(source: Source) -> Callable[[int, np.ndarray, np.ndarray], jax.Array]:
    """A function (number of the batch, its images [N], numbers of crops [C]) -> views [C, N, size, size, c]."""
    task, train = source.task, source.train

    def keys(i: jax.Array, crop_C: jax.Array) -> jax.Array:
        return jax.vmap(
            lambda c: jax.random.fold_in(jax.random.fold_in(stream_key(task, ENSEMBLE, 0), i), c)
        )(crop_C)

    if source.feed is None:

        def crop(
            shared: tuple[jax.Array, jax.Array | None, jax.Array], crop_C: jax.Array
        ) -> jax.Array:
            batch, sizes, i = shared
            return lax.map(
                lambda key: views.make_views(
                    key, batch, task.views, sizes_N2=sizes, crop=task.teaching.teacher, mixup=False
                ),
                keys(i, crop_C),
            )

        make, images = share_steps(source, crop), np.asarray(train.images)
        return lambda i, index, crop_C: make(
            (images[index], None if train.sizes is None else train.sizes[index], np.int32(i)),
            crop_C,
        )

    def finish(i: jax.Array, at: tuple[jax.Array, jax.Array]) -> jax.Array:
        crop_C, crops = at
        pixels = views.scaled(crops.astype(jnp.float32), crops.dtype)
        return jax.vmap(
            lambda key, own: views.flip_and_mix(key, own, task.views, task.teaching.teacher, False)
        )(keys(i, crop_C), pixels)

    finished, feed = share_steps(source, finish), source.feed
    return lambda i, index, crop_C: finished(
        np.int32(i),
        (
            crop_C,
            host_crops.ensemble_crops(
                task, feed.files, feed.sizes, index, int(crop_C[0]), len(crop_C)
            ),
        ),
    )
