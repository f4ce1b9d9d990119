"""How a student is measured: probe loss, held-out KL, test KL, agreement, accuracy.

Selection uses the probe loss alone: the distillation loss on fixed views of training images. The
other metrics, on views of test images and on the clean test images, are reported and never
selected on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.networks import bit, network
from distill_bench.training.lane_layout import BATCH
from distill_bench.training.losses import kl_divergence
from distill_bench.training.source import Source
from distill_bench.views import label_logits
from distill_bench.views.originals import scaled
from distill_bench.views.step_views import eval_view_specs

METRICS = ("probe_loss", "heldout_kl", "test_kl", "agreement", "accuracy")


PART = 4096  # clean images prepared at once
MIN_BATCH = 128  # of an evaluation set: smaller batches leave a machine idle


class EvalSet(NamedTuple):
    """A student is evaluated on probe views, held-out views and clean test images, in this order.

    Attributes:
      images: [B, N, H, W, C], padded. N is the smallest multiple of the task's batch size that is
        at least MIN_BATCH.
      logits: [B, N, K], the teacher's.
      labels: [test size], of the clean test images.
    """

    images: jax.Array
    logits: jax.Array
    labels: jax.Array


def _batches(source: Source) -> tuple[int, int]:
    """Number of an evaluation set's batches, and the size of each."""
    task = source.task
    size = task.batch_size * -(-MIN_BATCH // task.batch_size)
    images = 2 * task.probe.batches * task.probe.batch_size + len(_clean_test_images(source))
    return -(-images // size), size


def eval_set_shapes(source: Source) -> EvalSet:
    """Shapes and placement of the evaluation set, for programs that are compiled before it."""
    task, (batches, size) = source.task, _batches(source)
    pixels = (task.views.size, task.views.size, task.student.channels)
    fields = (
        ((batches, size, *pixels), task.precision, P(None, BATCH)),
        ((batches, size, task.student.classes), "float32", P(None, BATCH)),
        (source.test.labels.shape, "int32", P()),
    )
    return EvalSet._make(
        jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(source.layout.mesh, place))
        for shape, dtype, place in fields
    )


def make_eval_set(source: Source, forward, rows: int) -> EvalSet:
    """Makes the fixed views and the teachers' logits.

    `forward` takes `rows` batches at a time if they are as large as the task's, so that it is
    compiled once for steps and evaluation; else as few as it can. A teacher whose views have
    another size than the student's sees the clean images resized to it.
    """
    task, layout = source.task, source.layout
    specs, places = eval_view_specs(task)
    batches, size = _batches(source)
    rows = rows if size == task.batch_size else layout.rows

    def batched(parts: Iterable[np.ndarray]) -> np.ndarray:
        """Joins parts into batches, padded to a multiple of `rows`."""
        # Each part is copied only once: ImageNet's are gigabytes.
        joined, done = np.empty(0), 0
        for part in parts:
            if not done:
                joined = np.zeros(((batches + -batches % rows) * size, *part.shape[1:]), part.dtype)
            joined[done : done + len(part)] = part
            done += len(part)
        return joined.reshape(-1, size, *joined.shape[1:])

    padded = [batched(_eval_images(source, spec.size)) for spec in specs]
    if task.teaching.labels:
        logits = batched([label_logits.eval_logits(task, source.train, source.test)])
    else:
        views = [padded[place] for place in places]
        logits = np.concatenate(
            [
                np.asarray(
                    layout.replicate(
                        forward(source.teachers, tuple(x[i : i + rows] for x in views))
                    )
                )
                for i in range(0, batches, rows)
            ]
        )
    images, logits = layout.place((padded[0][:batches], logits[:batches]), P(None, BATCH))
    return EvalSet(images, logits, layout.replicate(source.test.labels))


def _eval_images(source: Source, size: int) -> Iterator[np.ndarray]:
    """Probe views, held-out views and clean test images, in several parts [n, size, size, C].

    Pixels are in [-1, 1], in the task's precision.
    """
    for images in (source.train_images, source.test_images):
        views_BN = images.probe_views(size)
        yield views_BN.reshape(-1, *views_BN.shape[2:])
    yield from _clean_parts(source, size)


def _clean_test_images(source: Source) -> np.ndarray:
    images = source.test.images if source.test.clean is None else source.test.clean
    assert isinstance(images, np.ndarray)
    return images


def _clean_parts(source: Source, size: int) -> Iterator[np.ndarray]:
    """The clean test images as networks see them."""
    clean = _clean_test_images(source)

    @jax.jit
    def resized(part: jax.Array) -> jax.Array:
        images = scaled(part.astype(jnp.float32), part.dtype)
        if size != images.shape[1]:
            images = jax.image.resize(images, (len(images), size, size, images.shape[-1]), "linear")
        return images.astype(source.task.precision)

    for i in range(0, len(clean), PART):
        yield np.asarray(resized(clean[i : i + PART]))


def make_evaluate(source: Source) -> Callable[[bit.Params, EvalSet], dict[str, jax.Array]]:
    """Returns a pure function (student parameters, eval_set) -> float32 scalar for each of METRICS.

    probe_loss and heldout_kl are at the task's temperature, test_kl at temperature 1, all in
    nats. agreement is the fraction of clean test images that student and teacher put into the
    same class.

    All metrics are NaN if a parameter is not finite. Logits may still be finite then: weights are
    standardised, and compiled code may return zero as the larger of NaN and zero.
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
        predicted = jnp.argmax(student[clean], -1)
        values = (
            kl_divergence(teacher[:n], student[:n], task.temperature),
            kl_divergence(teacher[n : 2 * n], student[n : 2 * n], task.temperature),
            kl_divergence(teacher[clean], student[clean]),
            jnp.mean(predicted == jnp.argmax(teacher[clean], -1), dtype=jnp.float32),
            jnp.mean(predicted == eval_set.labels, dtype=jnp.float32),
        )
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()
        return {
            name: jnp.where(finite, value, jnp.nan)
            for name, value in zip(METRICS, values, strict=True)
        }

    return evaluate
