"""What is measured of a student: probe loss, held-out loss, agreement, accuracy.

Selection uses the probe loss alone: the distillation loss on fixed held-in views. The held-out metrics,
on views of test images and on the clean test images, are reported and never selected on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from distill_bench import bit
from distill_bench.losses import kl_divergence
from distill_bench.stream import AXIS, Source, probe_views

METRICS = ("probe_loss", "heldout_kl", "test_kl", "agreement", "accuracy")
_BATCH = 128  # images of one forward: the activations stay in cache


class Exam(NamedTuple):
    """All that a student is asked, in order: probe views, held-out views, clean test images, padding.

    images [B, 128, H, W, C]; the teacher's logits [B, 128, K]; the clean images' labels [test size].
    """

    images: jax.Array
    logits: jax.Array
    labels: jax.Array


def make_exam(source: Source) -> Exam:
    """Computes the fixed views and the teacher's answers once, shared among the devices of the mesh."""
    test = jnp.asarray(source.test.images)
    parts = [jax.jit(probe_views, static_argnums=0)(source.task, jnp.asarray(x)) for x in (source.train.images, test)]
    images = jnp.concatenate([*parts, test])
    rows = -(-len(images) // (_BATCH * source.mesh.size)) * source.mesh.size
    images = jnp.pad(images, ((0, rows * _BATCH - len(images)), (0, 0), (0, 0), (0, 0)))
    images = images.reshape(rows, _BATCH, *images.shape[1:])

    def share(params: bit.Params, images: jax.Array) -> jax.Array:
        return lax.map(lambda x: bit.apply(source.task.teacher, params, x), images)

    spread = jax.jit(jax.shard_map(share, mesh=source.mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS)))
    return source.replicate(Exam(images, spread(source.teacher, images), jnp.asarray(source.test.labels)))


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

        student = flat(lax.map(lambda x: bit.apply(task.student, params, x), exam.images))
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
