"""The views that teachers and student see: pure functions of (task, seed, step) and the images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from distill_bench.tasks.task import Task
from distill_bench.tasks.view_config import MIX, Crop
from distill_bench.views import augment
from distill_bench.views.originals import Originals, scaled

# A task's independent random streams: training views, fresh students, probe views, and the crops
# over which a teacher's predictions are averaged.
STREAM, INIT, PROBE, ENSEMBLE = range(4)


def stream_key(task: Task, purpose: int, seed: jax.Array | int) -> jax.Array:
    """The key of one of the task's random streams, such as STREAM."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(task.seed), purpose), seed)


@dataclass(frozen=True)
class ViewSpec:
    """Describes one of the distinct views of a step.

    Attributes:
      independent: the view has its own random numbers; otherwise it shares the student's.
      crop: kind of crop.
      size: height and width, in pixels.
    """

    independent: bool
    crop: Crop
    size: int


def view_specs(task: Task) -> tuple[tuple[ViewSpec, ...], tuple[int, ...]]:
    """The distinct views of a step, the student's first, and the index of each teacher's view.

    There are no indices if the teachers' predictions are averaged beforehand, or if the student
    learns from labels.
    """
    mode = task.teaching
    specs = [ViewSpec(False, mode.student, task.views.size)]
    teacher_index = []
    for teacher in () if mode.ensemble or mode.labels else task.teachers:
        spec = ViewSpec(not mode.same, mode.teacher, teacher.size or task.views.size)
        if spec not in specs:
            specs.append(spec)
        teacher_index.append(specs.index(spec))
    return tuple(specs), tuple(teacher_index)


def eval_view_specs(task: Task) -> tuple[tuple[ViewSpec, ...], tuple[int, ...]]:
    """Like `view_specs`, for the views on which losses are reported: always those of mode "mix"."""
    return view_specs(dataclasses.replace(task, mode=MIX))


class StepViews(NamedTuple):
    """The views of one training step.

    Attributes:
      views: [N, size, size, C] for each of the `view_specs`.
      index: [N], which images they show.
    """

    views: tuple[jax.Array, ...]
    index: jax.Array

    @property
    def student(self) -> jax.Array:
        return self.views[0]


def _step_key(task: Task, seed: jax.Array | int, step: jax.Array | int) -> jax.Array:
    _, view_key = jax.random.split(stream_key(task, STREAM, seed))
    return jax.random.fold_in(view_key, step)


def _view_key(
    task: Task, spec: ViewSpec, seed: jax.Array | int, step: jax.Array | int
) -> jax.Array:
    key = _step_key(task, seed, step)
    return jax.random.fold_in(key, 1) if spec.independent else key


def mixup_coefficient(task: Task, seed: jax.Array | int, step: jax.Array | int) -> jax.Array | None:
    """The mixup coefficient of a training step, where labels are mixed with it too.

    None without mixup, and if `flip_and_mix` alone draws and uses a uniform one.
    """
    mode, key = task.teaching, _step_key(task, seed, step)
    if not (mode.labels and mode.mixup and task.views.mixup):
        return None
    if mode.alpha == 1:
        # The number that `flip_and_mix` draws, so that the views are those of mode "mix".
        return jax.random.uniform(jax.random.split(key, 3)[2])
    return jax.random.beta(jax.random.fold_in(key, 2), mode.alpha, mode.alpha)


def step_index(task: Task, images: int, seed: jax.Array | int, step: jax.Array | int) -> jax.Array:
    """Which of the train split's `images` a training step shows, [N]."""
    return steps_index(task, images, seed, step, 1)[0]


def steps_index(
    task: Task, images: int, seed: jax.Array | int, first: jax.Array | int, steps: int
) -> jax.Array:
    """`step_index` of `steps` steps from `first` on, [steps, N]."""
    order_key, _ = jax.random.split(stream_key(task, STREAM, seed))
    return augment.batches_indices(order_key, jnp.asarray(first), steps, images, task.batch_size)


def step_views(
    task: Task, originals: Originals, seed: jax.Array | int, step: jax.Array | int
) -> StepViews:
    """The views of one training step, from all images of the train split."""
    index = step_index(task, originals.number, seed, step)
    return StepViews(views_of_batch(task, originals.take(index), seed, step), index)


def views_of_batch(
    task: Task, batch: Originals, seed: jax.Array | int, step: jax.Array | int
) -> tuple[jax.Array, ...]:
    """The views of one training step, from the images of its batch."""

    def view(spec: ViewSpec) -> jax.Array:
        return augment.make_views(
            _view_key(task, spec, seed, step),
            batch,
            task.views,
            coefficient,
            crop=spec.crop,
            mixup=task.teaching.mixup,
            size=spec.size,
        )

    coefficient = mixup_coefficient(task, seed, step)
    return tuple(view(spec) for spec in view_specs(task)[0])


def step_views_from_crops(
    task: Task, crops: Sequence[jax.Array], seed: jax.Array | int, step: jax.Array | int
) -> tuple[jax.Array, ...]:
    """The views of one training step, from crops [N, size, size, C], uint8, for each view spec."""

    def view(spec: ViewSpec, crop_NHWC: jax.Array) -> jax.Array:
        pixels = scaled(crop_NHWC.astype(jnp.float32), crop_NHWC.dtype)
        return augment.flip_and_mix(
            _view_key(task, spec, seed, step),
            pixels,
            task.views,
            spec.crop,
            task.teaching.mixup,
            coefficient,
        )

    coefficient = mixup_coefficient(task, seed, step)
    return tuple(view(*pair) for pair in zip(view_specs(task)[0], crops, strict=True))


def probe_keys(task: Task) -> tuple[jax.Array, jax.Array]:
    """A key and a mixup coefficient for each batch of probe views.

    The coefficients are stratified over [0, 1]. If all batches had one coefficient, the losses of
    two probe sets could not be compared.
    """
    n = task.probe.batches
    strata_key, view_key = jax.random.split(stream_key(task, PROBE, 0))
    coefficients = (jnp.arange(n) + jax.random.uniform(strata_key, (n,))) / n
    return jax.vmap(lambda i: jax.random.fold_in(view_key, i))(jnp.arange(n)), coefficients


def probe_views(task: Task, originals: Originals, size: int | None = None) -> jax.Array:
    """Fixed views [B, N, size, size, C] of a split's images, for reporting losses.

    The images are taken in the split's order, and repeated if the split has too few. `size` is the
    student's by default. The keys do not depend on the images, so all sets of images have the same
    crops and coefficients.
    """

    def batch(inputs: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        key, index, coefficient = inputs
        return augment.make_views(key, originals.take(index), task.views, coefficient, size=size)

    keys, coefficients = probe_keys(task)
    shape = (task.probe.batches, task.probe.batch_size)
    index_BN = jnp.arange(math.prod(shape)).reshape(shape) % originals.number
    return lax.map(batch, (keys, index_BN, coefficients))


def probe_views_from_crops(task: Task, crops_BNHWC: jax.Array) -> jax.Array:
    """Like `probe_views`, from inception crops, uint8, that were made on the host."""

    def batch(inputs: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        key, crops, coefficient = inputs
        return augment.flip_and_mix(
            key,
            scaled(crops.astype(jnp.float32), crops.dtype),
            task.views,
            "inception",
            True,
            coefficient,
        )

    keys, coefficients = probe_keys(task)
    return lax.map(batch, (keys, crops_BNHWC, coefficients))
