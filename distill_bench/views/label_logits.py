"""Labels in place of a teacher's predictions, as logits at temperature 1.

KL(p || student) = cross-entropy(p, student) - H(p). The entropy H of a label is 0, and that of
mixed labels does not depend on the student, so training on these logits is training on the labels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from distill_bench.data.dataset import Split
from distill_bench.tasks.task import Task
from distill_bench.views import augment
from distill_bench.views.step_views import StepViews, mixup_coefficient, probe_keys

FLOOR = 1e-30  # probability of a wrong class: the logarithm of 0 would not be finite


def logits(task: Task, labels_N: jax.Array, coefficient: jax.Array | None = None) -> jax.Array:
    """Log probabilities [N, K] of labels, mixed like their views if a coefficient is given."""
    hot_NK = jax.nn.one_hot(labels_N, task.student.classes)
    mixed_NK = hot_NK if coefficient is None else augment.mix(hot_NK, coefficient)
    return jnp.log(jnp.maximum(mixed_NK, FLOOR))


def step_logits(
    task: Task, labels_I: jax.Array, seed: jax.Array | int, step: jax.Array | int, views: StepViews
) -> jax.Array:
    """Logits [N, K] of one training step's views; `labels_I` are all labels of the train split."""
    return logits(task, labels_I[views.index], mixup_coefficient(task, seed, step))


def eval_logits(task: Task, train: Split, test: Split) -> np.ndarray:
    """Logits [probe views + held-out views + clean images, K], in the order of `EvalSet`."""
    n, size = task.probe.batches, task.probe.batch_size
    coefficient_B = probe_keys(task)[1] if task.views.mixup else None

    def probe(split: Split) -> jax.Array:
        index_BN = jnp.arange(n * size).reshape(n, size) % len(split.labels)
        labels_BN = jnp.asarray(split.labels)[index_BN]
        logits_BNK = jax.vmap(lambda labels, coefficient: logits(task, labels, coefficient))(
            labels_BN, coefficient_B
        )
        return logits_BNK.swapaxes(0, 1).reshape(n * size, -1)

    return np.concatenate([probe(train), probe(test), logits(task, jnp.asarray(test.labels))])
