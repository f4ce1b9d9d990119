"""What is measured of a student: probe loss, held-out loss, agreement, accuracy.

Selection uses the probe loss alone: the distillation loss on fixed held-in views. The held-out metrics,
on views of test images and on the clean test images, are reported and never selected on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

from distill_bench import bit, networks
from distill_bench.layout import BATCH
from distill_bench.losses import kl_divergence
from distill_bench.stream import Source, probe_views
from distill_bench.views import scaled

METRICS = ("probe_loss", "heldout_kl", "test_kl", "agreement", "accuracy")


MIN_BATCH = 128  # of an exam: smaller ones leave a machine idle


class Exam(NamedTuple):
    """All that a student is asked, in order: probe views, held-out views, clean test images, padding.

    images [B, N, H, W, C] in batches of the task's size, or of MIN_BATCH where that is more; the teacher's logits [B, N, K]; the clean images'
    labels [test size].
    """

    images: jax.Array
    logits: jax.Array
    labels: jax.Array


def make_exam(source: Source, forward, rows: int) -> Exam:
    """Computes the fixed views and the teacher's answers, once; `forward` takes `rows` batches at a time."""
    task, probe = source.task, source.task.probe
    shape = (probe.batches, probe.batch_size)
    # Images in the order of their split, each as often as needed.

    def batched(x: np.ndarray) -> np.ndarray:
        return x[np.arange(math.prod(shape)) % len(x)].reshape(*shape, *x.shape[1:])

    make = jax.jit(probe_views, static_argnums=0)
    made = [np.asarray(make(task, *jax.tree.map(batched, (split.images, split.sizes)))) for split in (source.train, source.test)]
    whole = source.test.images if source.test.clean is None else source.test.clean
    clean = np.asarray(scaled(jnp.asarray(whole, jnp.float32), whole.dtype))
    images = np.concatenate([*(x.reshape(-1, *x.shape[2:]) for x in made), clean])
    size = max(task.batch_size, MIN_BATCH)
    batches = -(-len(images) // size)
    images = np.pad(images, ((0, batches * size - len(images)), *[(0, 0)] * 3))
    images = images.reshape(batches, size, *images.shape[1:])
    padded = np.pad(images, ((0, -batches % rows), *[(0, 0)] * 4))
    layout = source.layout
    logits = np.concatenate([np.asarray(layout.replicate(forward(source.teacher, padded[i : i + rows]))) for i in range(0, batches, rows)])
    images, logits = layout.place((images, logits[:batches]), P(None, BATCH))
    return Exam(images, logits, layout.replicate(source.test.labels))


def make_evaluate(source: Source) -> Callable[[bit.Params, Exam], dict[str, jax.Array]]:
    """A pure function (student parameters, exam) -> one float32 scalar for each of METRICS.

    probe_loss and heldout_kl are at the task's temperature, test_kl at temperature 1, in nats; agreement is
    the fraction of clean test images on which student and teacher name the same class.
    """
    task = source.task
    n = task.probe.batches * task.probe.batch_size

    def evaluate(params: bit.Params, exam: Exam) -> dict[str, jax.Array]:
        def flat(x: jax.Array) -> jax.Array:
            return x.reshape(-1, x.shape[-1])

        student = flat(lax.map(lambda x: networks.apply(task.student, params, x.astype(task.precision)), exam.images))
        teacher = flat(exam.logits)
        clean = slice(2 * n, 2 * n + len(exam.labels))
        answer = jnp.argmax(student[clean], -1)
        values = (
            kl_divergence(teacher[:n], student[:n], task.temperature),
            kl_divergence(teacher[n : 2 * n], student[n : 2 * n], task.temperature),
            kl_divergence(teacher[clean], student[clean]),
            jnp.mean(answer == jnp.argmax(teacher[clean], -1), dtype=jnp.float32),
            jnp.mean(answer == exam.labels, dtype=jnp.float32),
        )
        return dict(zip(METRICS, values, strict=True))

    return evaluate
