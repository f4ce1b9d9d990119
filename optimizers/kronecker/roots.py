"""Inverse p-th roots of stacks of symmetric positive semi-definite matrices.

Each matrix is divided by its mean eigenvalue first, so that results are as exact at a scale of
1e-12 as at 1. The ridge is relative to the largest eigenvalue. Here is the eigendecomposition, one
matrix after another; newton.py and polar.py iterate on whole stacks.

On CPU, LAPACK is called for one matrix at a time: batched calls deadlock on XLA:CPU (jax 0.10.2) as
soon as two of them can run at once.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_HIGHEST = lax.Precision.HIGHEST


class RootSolution(NamedTuple):
    """The result of a solver.

    Attributes:
      root: [.., d, d], (A + ridge * largest eigenvalue * I)^(-1/p).
      residual: [..], relative error; NaN or large if the root must not be used.
      condition: [..], largest over smallest eigenvalue of A with its ridge.
    """

    root: jax.Array
    residual: jax.Array
    condition: jax.Array


def mean_eigenvalue(a: jax.Array) -> jax.Array:
    """Mean eigenvalue [..] of matrices [.., d, d]; 1 for a zero matrix, to divide by it safely."""
    mean = jnp.trace(a, axis1=-2, axis2=-1) / a.shape[-1]
    return jnp.where(mean == 0, 1.0, mean)


def _eigh(a_dd: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Mean eigenvalue; eigenvalues over it, ascending; eigenvectors; residual; whether A is 0.

    The residual is ||A V - V diag(w)|| / ||A||, in Frobenius norms.
    """
    scale = mean_eigenvalue(a_dd)
    unit_dd = a_dd / scale
    values_d, vectors_dd = jnp.linalg.eigh(unit_dd)
    wrong = jnp.linalg.norm(
        jnp.matmul(unit_dd, vectors_dd, precision=_HIGHEST) - vectors_dd * values_d[None]
    )
    norm = jnp.linalg.norm(unit_dd)
    zero = norm == 0
    return scale, values_d, vectors_dd, wrong / jnp.where(zero, 1.0, norm), zero


def eigh_root(a_dd: jax.Array, p: jax.Array | float, ridge: jax.Array | float) -> RootSolution:
    """The root of one matrix by its eigendecomposition; the identity for a zero matrix.

    The residual is ||A V - V diag(w)|| / ||A||, in Frobenius norms.
    """
    scale, values_d, vectors_dd, residual, zero = _eigh(a_dd)
    ridged_d = jnp.maximum(values_d, 0.0) + jnp.asarray(ridge, a_dd.dtype) * values_d[-1]
    power_d = jnp.where(zero, 1.0, (jnp.where(zero, 1.0, ridged_d) * scale) ** (-1 / p))
    root = jnp.matmul(vectors_dd * power_d[None], vectors_dd.T, precision=_HIGHEST)
    return RootSolution(root, residual, jnp.where(zero, 1.0, ridged_d[-1] / ridged_d[0]))


def pseudo_inverse_root(
    a_dd: jax.Array, p: jax.Array | float, threshold: jax.Array | float
) -> RootSolution:
    """The root of A's Moore-Penrose inverse, A^+^(1/p); the identity for a zero matrix.

    Directions outside the range of A get 0, where `eigh_root` gives them most. There is no ridge.

    Args:
      a_dd: [d, d], symmetric positive semi-definite.
      p: order of the root.
      threshold: eigenvalues of at most this, relative to the largest, count as 0. Rounding errors
        make eigenvalues of up to 3e-7 (measured, for sides of up to 256).

    Returns:
      As `eigh_root`; the condition is that of A within its range.
    """
    scale, values_d, vectors_dd, residual, zero = _eigh(a_dd)
    kept_d = zero | (values_d > jnp.asarray(threshold, a_dd.dtype) * values_d[-1])
    safe_d = jnp.where(zero | ~kept_d, 1.0, values_d)
    power_d = jnp.where(kept_d, (safe_d * jnp.where(zero, 1.0, scale)) ** (-1 / p), 0.0)
    root = jnp.matmul(vectors_dd * power_d[None], vectors_dd.T, precision=_HIGHEST)
    smallest = jnp.where(kept_d, values_d, jnp.inf).min()
    return RootSolution(root, residual, jnp.where(zero, 1.0, values_d[-1] / smallest))
