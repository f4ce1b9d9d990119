"""Inverse p-th roots of stacks of symmetric positive semi-definite matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def inverse_root(stack_Nbb: jax.Array, p: float, ridge: float) -> jax.Array:
    """(A + ridge * largest eigenvalue * I)^(-1/p) of each matrix A of the stack, float32.

    Each matrix is divided by its mean eigenvalue first, so that the result is as exact at a scale of 1e-12 as
    at 1. A zero matrix gives the identity; a matrix that is not finite gives a result that is not finite.

    The eigendecompositions run one by one in a loop: a batched LAPACK call deadlocks on XLA:CPU (jax 0.10.2)
    as soon as two of them can run at once.
    """
    size = stack_Nbb.shape[-1]
    scale_N = jnp.trace(stack_Nbb, axis1=1, axis2=2) / size
    zero_N = scale_N == 0
    unit_N = jnp.where(zero_N, 1.0, scale_N)
    values_Nb, vectors_Nbb = lax.map(jnp.linalg.eigh, stack_Nbb / unit_N[:, None, None])
    values_Nb = jnp.maximum(values_Nb, 0.0)
    values_Nb = values_Nb + ridge * values_Nb.max(axis=1, keepdims=True)
    power_Nb = jnp.where(zero_N[:, None], 1.0, values_Nb ** (-1 / p) * unit_N[:, None] ** (-1 / p))
    return jnp.einsum("nij,nj,nkj->nik", vectors_Nbb, power_Nb, vectors_Nbb, precision=lax.Precision.HIGHEST)
