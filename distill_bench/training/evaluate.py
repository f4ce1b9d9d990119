"""How a student is measured: its distances to the teacher, agreement and accuracy.

Selection uses the probe loss alone: the distillation loss on fixed views of training images. The
other metrics, on views of test images and on the clean test images, are reported and never
selected on. A measurement looks at as much of the evaluation set as its exam asks for (exams.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.networks import bit, network
from distill_bench.training.exams import CURVE_VIEWS, EXAMS, Exam
from distill_bench.training.lane_layout import BATCH, LANES
from distill_bench.training.losses import cross_entropy, euclidean, in_top, kl_divergence
from distill_bench.training.parts import fitting, in_parts
from distill_bench.training.program import Program
from distill_bench.training.source import Source
from distill_bench.views import label_logits
from distill_bench.views.originals import scaled
from distill_bench.views.step_views import eval_view_specs

PART = 4096  # clean images prepared at once
MIN_BATCH = 128  # of an evaluation set: smaller batches leave a machine idle


class EvalSet(NamedTuple):
    """A student is evaluated on probe views, held-out views and clean test images, in this order.

    Views are ordered by their place in a batch of views. So the first ones come from all batches,
    each of which is mixed with another coefficient.

    Attributes:
      images: [B, N, H, W, C], padded. N is the smallest multiple of the task's batch size that is
        at least MIN_BATCH.
      logits: [B, N, K], the teachers' mean; [B, N, t, K] if divergences are added up. Those of
        the labels if there is no teacher.
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


def _order(source: Source) -> tuple[list[int], dict[Exam, int]]:
    """The order in which batches of the evaluation set are looked at, so that each exam needs the
    first of them only; and how many each exam looks at."""
    task, (batches, size) = source.task, _batches(source)
    n = task.probe.batches * task.probe.batch_size
    few = min(CURVE_VIEWS, n)

    def holding(first: int, last: int) -> range:
        """The batches that hold these views."""
        return range(first // size, -(-last // size))

    curve = dict.fromkeys([*holding(0, few), *holding(n, n + few)])
    probe = dict.fromkeys([*curve, *holding(0, n)])
    order = list(dict.fromkeys([*probe, *range(batches)]))
    return order, {"curve": len(curve), "probe": len(probe), "all": batches}


def exam_batches(source: Source, exam: Exam) -> int:
    """Batches of the evaluation set that an exam looks at."""
    return _order(source)[1][exam]


def eval_set_shapes(source: Source) -> EvalSet:
    """Shapes and placement of the evaluation set, for programs that are compiled before it."""
    task, (batches, size) = source.task, _batches(source)
    pixels = (task.views.size, task.views.size, task.student.channels)
    teachers = (len(task.teachers),) if task.combining == "sum" else ()
    fields = (
        ((batches, size, *pixels), task.precision, P(None, BATCH)),
        ((batches, size, *teachers, task.student.classes), "float32", P(None, BATCH)),
        (source.test.labels.shape, "int32", P()),
    )
    return EvalSet._make(
        jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(source.layout.mesh, place))
        for shape, dtype, place in fields
    )


def make_eval_set(
    sources: Sequence[Source], forwards: Sequence[Program], rows: int
) -> tuple[EvalSet, ...]:
    """Makes the fixed views and the teachers' logits, for the devices of each source.

    Each of the `forwards`, one for each source, makes a part of the logits. It takes `rows` batches
    at a time if they are as large as the task's, so that it is compiled once for steps and
    evaluation; else as few as it can. A teacher whose views have another size than the student's
    sees the clean images resized to it.
    """
    source = sources[0]
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
    if not task.teachers:
        logits = batched([label_logits.eval_logits(task, source.train, source.test)])
    else:
        views = [padded[place] for place in places]
        parts = []
        for i in range(0, batches, rows * len(sources)):
            started = [
                own.layout.replicate(
                    forward(
                        own.teachers,
                        own.layout.place(tuple(x[k : k + rows] for x in views), P(LANES, BATCH)),
                    )
                )
                for own, forward, k in zip(sources, forwards, range(i, batches, rows), strict=False)
            ]
            parts += [np.asarray(logits) for logits in started]
        logits = np.concatenate(parts)
    images = padded[0][:batches]
    return tuple(
        EvalSet(
            own.layout.place(images, P(None, BATCH)),
            own.layout.place(logits[:batches], P(None, BATCH)),
            own.layout.replicate(source.test.labels),
        )
        for own in sources
    )


def _eval_images(source: Source, size: int) -> Iterator[np.ndarray]:
    """Probe views, held-out views and clean test images, in several parts [n, size, size, C].

    Pixels are in [-1, 1], in the task's precision.
    """
    for images in (source.train_images, source.test_images):
        views_BN = images.probe_views(size)
        yield views_BN.swapaxes(0, 1).reshape(-1, *views_BN.shape[2:])
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


def make_evaluate(
    source: Source,
) -> Callable[[jax.Array | int, bit.Params, EvalSet], dict[str, jax.Array]]:
    """Returns a pure function (batches, student parameters, eval_set) -> float32 scalars.

    It looks at the first `batches` batches in the order of `_order`. Only the metrics of an exam
    that looks at no more of them mean anything, see `EXAMS` and `exam_batches`.

    On probe and held-out views: probe_loss and heldout_kl, the distillation loss at the task's
    temperature, in nats; also if the student learns from labels. On the first CURVE_VIEWS of
    each: curve_loss and curve_heldout_kl, the same losses. On clean test images, against the
    teachers' mean logits:

      test_kl: KL divergence at temperature 1, in nats.
      agreement: fraction of images that student and teacher put into the same class.
      agreement5: fraction whose likeliest class by the teacher is among the student's five.
      accuracy: fraction that the student puts into the label's class.
      label_xent: cross-entropy to the labels at temperature 1, in nats.
      euclidean: euclidean distance between the logits, mean over images.

    All metrics are NaN if a parameter is not finite. Logits may still be finite then: weights are
    standardised, and compiled code may return zero as the larger of NaN and zero.
    """
    task, order = source.task, np.array(_order(source)[0], np.int32)
    parts = fitting(source.layout, task.student, task.views.size, _batches(source)[1])
    n = task.probe.batches * task.probe.batch_size
    few = min(CURVE_VIEWS, n)

    def evaluate(
        batches: jax.Array | int, params: bit.Params, eval_set: EvalSet
    ) -> dict[str, jax.Array]:
        def flat(x: jax.Array) -> jax.Array:
            return x.reshape(-1, *x.shape[2:])

        def one_batch(i: jax.Array, logits_BNK: jax.Array) -> jax.Array:
            b = jnp.asarray(order)[i]
            images = eval_set.images[b].astype(task.precision)
            logits_of = in_parts(functools.partial(network.apply, task.student, params), parts)
            return logits_BNK.at[b].set(logits_of(images))

        unseen_BNK = jnp.zeros((*eval_set.images.shape[:2], task.student.classes))
        student = flat(lax.fori_loop(0, batches, one_batch, unseen_BNK))
        teacher = flat(eval_set.logits)
        clean = slice(2 * n, 2 * n + len(eval_set.labels))
        student_NK, teacher_NK = student[clean], teacher[clean]
        if teacher.ndim > student.ndim:
            teacher_NK = jnp.mean(teacher_NK, axis=1)
        best_N = jnp.argmax(teacher_NK, -1)
        predicted_N = jnp.argmax(student_NK, -1)
        values = (
            kl_divergence(teacher[:few], student[:few], task.temperature),
            kl_divergence(teacher[n : n + few], student[n : n + few], task.temperature),
            kl_divergence(teacher[:n], student[:n], task.temperature),
            kl_divergence(teacher[n : 2 * n], student[n : 2 * n], task.temperature),
            kl_divergence(teacher_NK, student_NK),
            jnp.mean(predicted_N == best_N, dtype=jnp.float32),
            jnp.mean(predicted_N == eval_set.labels, dtype=jnp.float32),
            in_top(5, best_N, student_NK),
            cross_entropy(eval_set.labels, student_NK),
            euclidean(teacher_NK, student_NK),
        )
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()
        return {
            name: jnp.where(finite, value, jnp.nan)
            for name, value in zip(EXAMS["all"], values, strict=True)
        }

    return evaluate
