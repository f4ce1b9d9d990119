"""The logits that a student learns from: the teachers', averaged over crops, or the labels'.

They have the shape [..., K], or [..., t, K] if the divergences from t teachers are added up.
"""

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
from distill_bench.tasks.task import Teacher
from distill_bench.training.lane_layout import BATCH, LANES
from distill_bench.training.parts import fitting, in_parts
from distill_bench.training.program import Program
from distill_bench.training.source import Source, chunk_steps
from distill_bench.views import label_logits
from distill_bench.views.step_views import StepViews, view_specs


def make_forward(source: Source) -> Program:
    """Program (teachers, views [R * m, N, H, W, C] for each teacher) -> their logits [R * m, N, K].

    The logits are the teachers' mean, or [R * m, N, t, K] if the task adds up the divergences from
    its t teachers. Each of R rows of devices takes m batches.
    """
    task, layout = source.task, source.layout

    def logits_of(teacher: Teacher, params: bit.Params, views_NHWC: jax.Array) -> jax.Array:
        n, size = views_NHWC.shape[:2]
        network = functools.partial(bit.apply, teacher.network, params, frozen=True)
        parts = fitting(layout, teacher.network, size, n)
        return in_parts(network, parts)(views_NHWC.astype(task.precision))

    def joint_logits(params: tuple[bit.Params, ...], views: tuple[jax.Array, ...]) -> jax.Array:
        logits = [
            logits_of(teacher, own, own_views)
            for teacher, own, own_views in zip(task.teachers, params, views, strict=True)
        ]
        if task.combining == "sum":
            return jnp.stack(logits, axis=1)
        return sum(logits[1:], start=logits[0]) / len(logits) if len(logits) > 1 else logits[0]

    def share(params: tuple[bit.Params, ...], views: tuple[jax.Array, ...]) -> jax.Array:
        return lax.map(lambda batch: joint_logits(params, batch), views)

    return layout.share_steps(share)


def make_step_logits(
    source: Source, forward: Program, table_IK: np.ndarray | None
) -> Callable[[int, np.ndarray, StepViews], jax.Array]:
    """Returns a function (seed, step numbers [C], their views) -> logits [C, N, K].

    They are the teachers' logits of their views, the teachers' mean prediction over many crops of
    each image, or the logits of the labels, as the task's mode says. Logits of teachers have one
    more axis if the divergences are added up, see `make_forward`.

    table_IK: see `ensemble_table`.
    """
    task, spread = source.task, NamedSharding(source.layout.mesh, P(LANES, BATCH))
    if task.teaching.labels:
        labels_I = source.layout.replicate(source.train.labels)
        of_labels = jax.jit(
            jax.vmap(functools.partial(label_logits.step_logits, task), (None, None, 0, 0)),
            out_shardings=spread,
        )
        return lambda seed, step_C, views: of_labels(labels_I, seed, step_C, views)
    if table_IK is None:
        _, places = view_specs(task)
        return lambda seed, step_C, views: forward(
            source.teachers, tuple(views.views[place] for place in places)
        )
    on_devices = source.layout.replicate(table_IK)
    look_up = jax.jit(lambda table_IK, index_CN: table_IK[index_CN], out_shardings=spread)
    return lambda seed, step_C, views: look_up(on_devices, views.index)


def ensemble_table(source: Source, forward: Program) -> np.ndarray | None:
    """Logits [I, K] of every train image's mean prediction; None if the task's mode needs none.

    Their softmax at the task's temperature is the mean of the teacher's over the image's crops;
    [I, t, K] if the divergences from t teachers are added up.
    """
    task, layout = source.task, source.layout
    n, crops = len(source.train.images), task.teaching.ensemble
    if task.teaching.labels or not crops:
        return None
    batches = np.resize(np.arange(n), (-(-n // task.batch_size), task.batch_size))
    group = chunk_steps(task, layout)  # crops made at once
    make_views = source.train_images.make_ensemble_views()

    @jax.jit
    def total(logits: jax.Array, first: jax.Array) -> jax.Array:
        counted = jnp.expand_dims(first + jnp.arange(group) < crops, tuple(range(1, logits.ndim)))
        return jnp.sum(jax.nn.softmax(logits / task.temperature) * counted, axis=0)

    table = []
    for i, index in enumerate(batches):
        summed = 0.0
        for first in range(0, crops, group):
            views = make_views(i, index, np.arange(first, first + group, dtype=np.int32))
            logits = forward(source.teachers, (views,) * len(task.teachers))
            summed += np.asarray(layout.replicate(total(logits, np.int32(first))))
        table.append(task.temperature * np.log(np.maximum(summed / crops, label_logits.FLOOR)))
    return np.concatenate(table)[:n]
