"""What is measured of a student: probe loss, held-out loss, agreement, accuracy.

Selection uses the probe loss alone: the distillation loss on fixed held-in views. The held-out metrics,
on views of test images and on the clean test images, are reported and never selected on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

from distill_bench.data.dataset import Split
from distill_bench.networks import bit, network
from distill_bench.tasks.task import Task
from distill_bench.training.lane_layout import BATCH
from distill_bench.training.losses import kl_divergence
from distill_bench.training.source import Source
from distill_bench.views import host_crops
from distill_bench.views import label_logits as labels
from distill_bench.views.augment import scaled
from distill_bench.views.step_views import eval_view_specs, probe_views, probe_views_from_crops

METRICS = ("probe_loss", "heldout_kl", "test_kl", "agreement", "accuracy")


PART = 4096  # clean images made ready at once
MIN_BATCH = 128  # of an eval_set: smaller ones leave a machine idle


class EvalSet(NamedTuple):
    """All that a student is asked, in order: probe views, held-out views, clean test images, padding.

    images [B, N, H, W, C] in batches of the task's size, or of a multiple of it that is MIN_BATCH or more; the teacher's logits [B, N, K]; the clean images'
    labels [test size].
    """

    images: jax.Array
    logits: jax.Array
    labels: jax.Array


def make_eval_set(source: Source, forward, rows: int) -> EvalSet:
    """Computes the fixed views and the teachers' answers, once; `forward` takes `rows` batches at a time.

    A teacher whose views are of another size than the student's sees the clean images resized to it.
    """
    task, layout = source.task, source.layout
    found, places = eval_view_specs(task)
    size = task.batch_size * -(-MIN_BATCH // task.batch_size)
    batches = -(-(2 * task.probe.batches * task.probe.batch_size + len(_whole(source))) // size)

    def batched(parts: Iterable[np.ndarray]) -> np.ndarray:
        """In batches, padded to a multiple of `rows` of them; each part is copied once, since ImageNet's are gigabytes."""
        made, done = np.empty(0), 0
        for part in parts:
            if not done:
                made = np.zeros(((batches + -batches % rows) * size, *part.shape[1:]), part.dtype)
            made[done : done + len(part)] = part
            done += len(part)
        return made.reshape(-1, size, *made.shape[1:])

    padded = [batched(_asked(source, look.size)) for look in found]
    if task.teaching.labels:
        logits = batched([labels.eval_logits(task, source.train, source.test)])
    else:
        seen = [padded[place] for place in places]
        logits = np.concatenate(
            [
                np.asarray(
                    layout.replicate(forward(source.teachers, tuple(x[i : i + rows] for x in seen)))
                )
                for i in range(0, batches, rows)
            ]
        )
    asked, logits = layout.place((padded[0][:batches], logits[:batches]), P(None, BATCH))
    return EvalSet(asked, logits, layout.replicate(source.test.labels))


def _asked(source: Source, size: int) -> Iterator[np.ndarray]:
    """Probe views, held-out views and clean test images [n, size, size, C], in [-1, 1] and the task's precision, a part at a time."""
    for split in (source.train, source.test):
        views_BN = _probe(source.task, split, size)
        yield views_BN.reshape(-1, *views_BN.shape[2:])
    yield from _clean(source, size)


def _whole(source: Source) -> np.ndarray:
    whole = source.test.images if source.test.clean is None else source.test.clean
    assert isinstance(whole, np.ndarray)
    return whole


def _probe(task: Task, split: Split, size: int) -> np.ndarray:
    """Probe views [B, N, size, size, C] of a split's images in their order, each as often as needed."""
    if not isinstance(split.images, np.ndarray):
        assert split.sizes is not None
        made = jax.jit(probe_views_from_crops, static_argnums=0)(
            task, host_crops.probe_crops(task, split.images, split.sizes, size)
        )
        return np.asarray(made.astype(task.precision))
    shape = (task.probe.batches, task.probe.batch_size)
    index = np.arange(math.prod(shape)).reshape(shape) % len(split.images)
    sizes = None if split.sizes is None else split.sizes[index]
    return np.asarray(
        jax.jit(probe_views, static_argnums=(0, 3))(task, split.images[index], sizes, size).astype(
            task.precision
        )
    )


def _clean(source: Source, size: int) -> Iterator[np.ndarray]:
    """The clean test images."""
    whole = _whole(source)

    @jax.jit
    def shown(part: jax.Array) -> jax.Array:
        images = scaled(part.astype(jnp.float32), part.dtype)
        if size != images.shape[1]:
            images = jax.image.resize(images, (len(images), size, size, images.shape[-1]), "linear")
        return images.astype(source.task.precision)

    for i in range(0, len(whole), PART):
        yield np.asarray(shown(whole[i : i + PART]))


def make_evaluate(source: Source) -> Callable[[bit.Params, EvalSet], dict[str, jax.Array]]:
    """A pure function (student parameters, eval_set) -> one float32 scalar for each of METRICS.

    probe_loss and heldout_kl are at the task's temperature, test_kl at temperature 1, in nats; agreement is
    the fraction of clean test images on which student and teacher name the same class. All are NaN where a parameter is not finite: logits may be
    finite all the same, since weights are standardised, and compiled code may take the larger of NaN and zero for zero.
    """
    task = source.task
    n = task.probe.batches * task.probe.batch_size

    def evaluate(params: bit.Params, eval_set: EvalSet) -> dict[str, jax.Array]:
        def flat(x: jax.Array) -> jax.Array:
            return x.reshape(-1, x.shape[-1])

        student = flat(
            lax.map(
                lambda x: network.apply(task.student, params, x.astype(task.precision)),
                eval_set.images,
            )
        )
        teacher = flat(eval_set.logits)
        clean = slice(2 * n, 2 * n + len(eval_set.labels))
        answer = jnp.argmax(student[clean], -1)
        values = (
            kl_divergence(teacher[:n], student[:n], task.temperature),
            kl_divergence(teacher[n : 2 * n], student[n : 2 * n], task.temperature),
            kl_divergence(teacher[clean], student[clean]),
            jnp.mean(answer == jnp.argmax(teacher[clean], -1), dtype=jnp.float32),
            jnp.mean(answer == eval_set.labels, dtype=jnp.float32),
        )
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()
        return {
            name: jnp.where(finite, value, jnp.nan)
            for name, value in zip(METRICS, values, strict=True)
        }

    return evaluate
