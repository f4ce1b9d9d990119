"""What teachers and student see: pure functions of (task, seed, step) and the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from distill_bench.tasks.task import Task
from distill_bench.tasks.view_config import MIX, Crop
from distill_bench.views import augment as views

STREAM, INIT, PROBE, ENSEMBLE = range(4)  # the task's independent random streams


def stream_key(task: Task, purpose: int, seed: jax.Array | int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(task.seed), purpose), seed)


@dataclass(frozen=True)
class ViewSpec:
    """One of the distinct views of a step.

    Attributes:
      own: it is the teachers' own crop, drawn apart from the student's.
      crop: how it is cropped.
      size: its height and width, in pixels.
    """

    own: bool
    crop: Crop
    size: int


def view_specs(task: Task) -> tuple[tuple[ViewSpec, ...], tuple[int, ...]]:
    """The distinct views of a step, the student's first, and which of them each teacher sees; none where their answers are computed beforehand."""
    mode, found, places = (
        task.teaching,
        [ViewSpec(False, task.teaching.student, task.views.size)],
        [],
    )
    for teacher in () if mode.ensemble else task.teachers:
        look = ViewSpec(not mode.same, mode.teacher, teacher.size or task.views.size)
        if look not in found:
            found.append(look)
        places.append(found.index(look))
    return tuple(found), tuple(places)


def eval_view_specs(task: Task) -> tuple[tuple[ViewSpec, ...], tuple[int, ...]]:
    """The same for the views on which losses are reported, which are those of "mix" whatever is taught."""
    return view_specs(dataclasses.replace(task, mode=MIX))


class StepViews(NamedTuple):
    """One training step: each of its `view_specs` [N, size, size, C], and which images [N] they are of."""

    views: tuple[jax.Array, ...]
    index: jax.Array

    @property
    def student(self) -> jax.Array:
        return self.views[0]


def _step_key(task: Task, seed: jax.Array | int, step: jax.Array | int) -> jax.Array:
    _, view_key = jax.random.split(stream_key(task, STREAM, seed))
    return jax.random.fold_in(view_key, step)


def _view_key(
    task: Task, look: ViewSpec, seed: jax.Array | int, step: jax.Array | int
) -> jax.Array:
    key = _step_key(task, seed, step)
    return jax.random.fold_in(key, 1) if look.own else key


def coefficient(task: Task, seed: jax.Array | int, step: jax.Array | int) -> jax.Array | None:
    """The mixup coefficient of a training step, where it is no uniform one, which `views.finish` draws itself."""
    if not task.teaching.mixup or task.teaching.alpha == 1:
        return None
    return jax.random.beta(
        jax.random.fold_in(_step_key(task, seed, step), 2), task.teaching.alpha, task.teaching.alpha
    )


def step_views(
    task: Task,
    images_NHWC: jax.Array,
    seed: jax.Array | int,
    step: jax.Array | int,
    sizes_N2: jax.Array | None = None,
) -> StepViews:
    """What is seen in one training step; the images and their sizes are the train split's."""
    order_key, _ = jax.random.split(stream_key(task, STREAM, seed))
    index = views.batch_indices(order_key, jnp.asarray(step), len(images_NHWC), task.batch_size)
    images, sizes = images_NHWC[index], None if sizes_N2 is None else sizes_N2[index]

    def view(look: ViewSpec) -> jax.Array:
        key = _view_key(task, look, seed, step)
        return views.make_views(
            key,
            images,
            task.views,
            mixing,
            sizes_N2=sizes,
            crop=look.crop,
            mixup=task.teaching.mixup,
            size=look.size,
        )

    mixing = coefficient(task, seed, step)
    return StepViews(tuple(view(look) for look in view_specs(task)[0]), index)


def finish_step(
    task: Task, crops: Sequence[jax.Array], seed: jax.Array | int, step: jax.Array | int
) -> tuple[jax.Array, ...]:
    """The views of one training step, of the crops [N, size, size, C], uint8, of each of its `view_specs`."""

    def view(look: ViewSpec, crop_NHWC: jax.Array) -> jax.Array:
        pixels = views.scaled(crop_NHWC.astype(jnp.float32), crop_NHWC.dtype)
        return views.finish(
            _view_key(task, look, seed, step),
            pixels,
            task.views,
            look.crop,
            task.teaching.mixup,
            mixing,
        )

    mixing = coefficient(task, seed, step)
    return tuple(view(*both) for both in zip(view_specs(task)[0], crops, strict=True))


def probe_keys(task: Task) -> tuple[jax.Array, jax.Array]:
    """A key and a mixup coefficient for each batch of probe views, the coefficients stratified over [0, 1].

    With one coefficient for all of them, losses of two probe sets could not be compared.
    """
    n = task.probe.batches
    strata_key, view_key = jax.random.split(stream_key(task, PROBE, 0))
    coefficients = (jnp.arange(n) + jax.random.uniform(strata_key, (n,))) / n
    return jax.vmap(lambda i: jax.random.fold_in(view_key, i))(jnp.arange(n)), coefficients


def probe_views(
    task: Task, images_BNHWC: jax.Array, sizes_BN2: jax.Array | None = None, size: int | None = None
) -> jax.Array:
    """Fixed views [B, N, size, size, C] of batches of images, on which losses are reported; `size` is the student's where it is not given.

    All sets of images use the same keys, hence the same crops and coefficients.
    """

    def batch(at: tuple[jax.Array, jax.Array, jax.Array | None, jax.Array]) -> jax.Array:
        key, images, sizes, coefficient = at
        return views.make_views(key, images, task.views, coefficient, sizes_N2=sizes, size=size)

    keys, coefficients = probe_keys(task)
    return lax.map(batch, (keys, images_BNHWC, sizes_BN2, coefficients))


def finish_probe(task: Task, crops_BNHWC: jax.Array) -> jax.Array:
    """The same, of the inception crops, uint8, of batches of images."""

    def batch(at: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        key, crops, coefficient = at
        return views.finish(
            key,
            views.scaled(crops.astype(jnp.float32), crops.dtype),
            task.views,
            "inception",
            True,
            coefficient,
        )

    keys, coefficients = probe_keys(task)
    return lax.map(batch, (keys, crops_BNHWC, coefficients))
