"""Labels as answers: logits with which the distillation loss is the cross-entropy.

KL(p || student) = cross-entropy(p, student) - H(p); the entropy of a label is 0, that of mixed labels does not depend on the student.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from distill_bench.data.dataset import Split
from distill_bench.tasks.task import Task
from distill_bench.views import augment
from distill_bench.views.step_views import StepViews, coefficient, probe_keys

FLOOR = 1e-30  # probability of the classes that are not the label's: above zero, whose logarithm is not finite


def logits(task: Task, labels_N: jax.Array, mixing: jax.Array | None = None) -> jax.Array:
    """Logarithms [N, K] of the labels' distributions, mixed as `views.mix` mixes the views of a batch where there is a coefficient for it."""
    hot_NK = jax.nn.one_hot(labels_N, task.student.classes)
    return jnp.log(jnp.maximum(hot_NK if mixing is None else augment.mix(hot_NK, mixing), FLOOR))


def step_logits(
    task: Task, labels_I: jax.Array, seed: jax.Array | int, step: jax.Array | int, seen: StepViews
) -> jax.Array:
    """Of what is seen in a training step [N, K]; `labels_I` are the train split's."""
    return logits(task, labels_I[seen.index], coefficient(task, seed, step))


def eval_logits(task: Task, train: Split, test: Split) -> np.ndarray:
    """Of all that a student is asked [probe views + held-out views + clean images, K], in the order of `evaluate.EvalSet`."""
    n, size = task.probe.batches, task.probe.batch_size
    mixing_B = probe_keys(task)[1] if task.views.mixup else None

    def probe(split: Split) -> jax.Array:
        labels_BN = jnp.asarray(split.labels)[
            jnp.arange(n * size).reshape(n, size) % len(split.labels)
        ]
        answers_BNK = jax.vmap(lambda own, mixing: logits(task, own, mixing))(labels_BN, mixing_B)
        return answers_BNK.reshape(n * size, -1)

    return np.concatenate([probe(train), probe(test), logits(task, jnp.asarray(test.labels))])
