"""Inverse p-th roots of stacks of symmetric positive semi-definite matrices.

Each matrix is divided by its mean eigenvalue first, so that results are as exact at a scale of
1e-12 as at 1. The ridge is relative to the largest eigenvalue. There are two solvers: the
eigendecomposition, one matrix after another, and the coupled Newton iteration, on whole stacks.

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


def eigh_root(a_dd: jax.Array, p: jax.Array | float, ridge: jax.Array | float) -> RootSolution:
    """The root of one matrix by its eigendecomposition; the identity for a zero matrix.

    The residual is ||A V - V diag(w)|| / ||A||, in Frobenius norms.
    """
    scale, ridge = mean_eigenvalue(a_dd), jnp.asarray(ridge, a_dd.dtype)
    unit_dd = a_dd / scale
    values_d, vectors_dd = jnp.linalg.eigh(unit_dd)
    wrong = jnp.linalg.norm(
        jnp.matmul(unit_dd, vectors_dd, precision=_HIGHEST) - vectors_dd * values_d[None]
    )
    norm = jnp.linalg.norm(unit_dd)
    ridged_d = jnp.maximum(values_d, 0.0) + ridge * values_d[-1]
    zero = norm == 0
    power_d = jnp.where(zero, 1.0, (jnp.where(zero, 1.0, ridged_d) * scale) ** (-1 / p))
    root = jnp.matmul(vectors_dd * power_d[None], vectors_dd.T, precision=_HIGHEST)
    return RootSolution(
        root, wrong / jnp.where(zero, 1.0, norm), jnp.where(zero, 1.0, ridged_d[-1] / ridged_d[0])
    )


def largest_eigenvalue(stack_Ndd: jax.Array, iterations: int = 30) -> jax.Array:
    """[N], by power iteration from a fixed start: a few percent too low at most."""
    n, d, _ = stack_Ndd.shape
    start_d = 1 + jnp.arange(d, dtype=jnp.float32) / d  # unlikely to be an eigenvector of anything

    def multiply(_: int, v_Nd: jax.Array) -> jax.Array:
        v_Nd = jnp.einsum("nij,nj->ni", stack_Ndd, v_Nd, precision=_HIGHEST)
        return v_Nd / jnp.maximum(jnp.linalg.norm(v_Nd, axis=1, keepdims=True), 1e-30)

    v_Nd = lax.fori_loop(
        0, iterations, multiply, jnp.broadcast_to(start_d, (n, d)) / jnp.linalg.norm(start_d)
    )
    return jnp.einsum("ni,nij,nj->n", v_Nd, stack_Ndd, v_Nd, precision=_HIGHEST)


def newton_root(
    stack_Ndd: jax.Array, p: int, ridge: jax.Array | float, iterations: int = 30
) -> RootSolution:
    """The roots of a stack by the coupled Newton iteration.

    X <- X T, M <- T^p M with T = ((p + 1) I - M) / p, from X = z^(1/p) I, M = z A and
    z = (p + 1) / (2 ||A||) (Guo & Higham 2006, equation 3.4; Anil et al. 2020, arXiv:2002.09018).
    The number of iterations is fixed; a matrix that has converged no longer changes. The residual
    is the largest element of |M - I|.

    Raises:
      ValueError: if `p` is not a whole number above 0.
    """
    if p != int(p) or p < 1:
        raise ValueError(
            f"The Newton iteration takes whole orders only, not p={p}: use the eigh solver for "
            "other exponents."
        )
    order, ridge = int(p), jnp.asarray(ridge, stack_Ndd.dtype)
    d = stack_Ndd.shape[-1]
    eye_dd = jnp.eye(d, dtype=jnp.float32)[None]
    scale_N = mean_eigenvalue(stack_Ndd)[:, None, None]
    zero_N = (stack_Ndd == 0).all((1, 2), keepdims=True)
    unit_Ndd = jnp.where(zero_N, eye_dd, stack_Ndd / scale_N)
    largest_N = largest_eigenvalue(unit_Ndd)[:, None, None]
    unit_Ndd = unit_Ndd + jnp.where(zero_N, 0.0, ridge * largest_N) * eye_dd
    z_N = (order + 1) / (2 * 1.1 * largest_N)  # the power iteration is too low

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b, precision=_HIGHEST)

    def power(t: jax.Array) -> jax.Array:
        out, exponent = None, order
        while exponent:
            if exponent % 2:
                out = t if out is None else product(out, t)
            exponent //= 2
            t = product(t, t) if exponent else t
        assert out is not None
        return out

    def error(m: jax.Array) -> jax.Array:
        return jnp.abs(m - eye_dd).max((1, 2), keepdims=True)

    def step(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, m = carry
        t = ((order + 1) * eye_dd - m) / order
        better_x, better_m = product(x, t), product(power(t), m)
        # Once it is as accurate as it gets, the iteration would drift away again.
        better = ~(error(better_m) >= error(m)) | (error(m) > 0.1)
        return jnp.where(better, better_x, x), jnp.where(better, better_m, m)

    x, m = lax.fori_loop(0, iterations, step, (z_N ** (1 / order) * eye_dd, z_N * unit_Ndd))
    x = (x + x.swapaxes(1, 2)) / 2
    condition_N = largest_N[:, 0, 0] * largest_eigenvalue(x) ** order
    return RootSolution(
        x * jnp.where(zero_N, 1.0, scale_N) ** (-1 / order), error(m)[:, 0, 0], condition_N
    )
