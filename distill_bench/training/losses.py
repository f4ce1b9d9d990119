"""The distillation loss, and other distances between logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def kl_divergence(teacher: jax.Array, student_NK: jax.Array, temperature: float = 1.0) -> jax.Array:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the batch, in nats.

    Hinton et al. 2015, arXiv:1503.02531; Beyer et al. 2021, arXiv:2106.05237, section 3.

    teacher: logits [N, K]; or those of several teachers [N, t, K], for the sum of their
      divergences, which is what the paper's released code minimises.
    """
    if teacher.ndim > student_NK.ndim:
        return teacher.shape[1] * kl_divergence(teacher, student_NK[:, None], temperature)
    teacher = jax.nn.log_softmax(teacher / temperature)
    student = jax.nn.log_softmax(student_NK / temperature)
    return temperature**2 * jnp.mean(jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1))


def cross_entropy(labels_N: jax.Array, student_NK: jax.Array) -> jax.Array:
    """-log softmax(student)[label], mean over the batch, in nats.

    A label that is not a class counts as the last class: distillation needs no labels, so a task's
    may be unusable, and NaN would end the run as diverged.
    """
    own_N1 = jnp.take_along_axis(student_NK, labels_N[:, None], axis=-1, mode="clip")
    return jnp.mean(jax.nn.logsumexp(student_NK, axis=-1) - own_N1[:, 0])


def euclidean(teacher_NK: jax.Array, student_NK: jax.Array) -> jax.Array:
    """sqrt(|teacher - student|^2 + 1e-12), mean over the batch: the distance between logits that
    big_vision reports.

    A shift of all logits of an image changes it, although it changes no probability.
    """
    difference = teacher_NK - student_NK
    # Squares of differences above 1e19 would overflow, and end a run as diverged.
    scale = jnp.maximum(jnp.max(jnp.abs(difference), axis=-1, keepdims=True), 1.0)
    squares = jnp.sum((difference / scale) ** 2, axis=-1, keepdims=True)
    return jnp.mean(scale * jnp.sqrt(squares + 1e-12 / scale / scale))


def in_top(k: int, classes_N: jax.Array, student_NK: jax.Array) -> jax.Array:
    """The fraction of the batch whose class is among the student's `k` likeliest classes.

    Of equal logits, the class with the lower number is the likelier one.
    """
    own_N1 = jnp.take_along_axis(student_NK, classes_N[:, None], axis=-1)
    earlier = jnp.arange(student_NK.shape[-1])[None] < classes_N[:, None]
    ahead = (student_NK > own_N1) | ((student_NK == own_N1) & earlier)
    return jnp.mean(jnp.sum(ahead, axis=-1) < k, dtype=jnp.float32)
