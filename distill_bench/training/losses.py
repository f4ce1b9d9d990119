"""The distillation loss. It never uses labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def kl_divergence(
    teacher_NK: jax.Array, student_NK: jax.Array, temperature: float = 1.0
) -> jax.Array:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the batch, in nats.

    Hinton et al. 2015, arXiv:1503.02531; Beyer et al. 2021, arXiv:2106.05237, section 3.
    """
    teacher = jax.nn.log_softmax(teacher_NK / temperature)
    student = jax.nn.log_softmax(student_NK / temperature)
    return temperature**2 * jnp.mean(jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1))
