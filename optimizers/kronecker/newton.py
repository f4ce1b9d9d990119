"""Inverse p-th roots of stacks of matrices by the coupled Newton iteration."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optimizers.kronecker.roots import RootSolution, mean_eigenvalue

_HIGHEST = lax.Precision.HIGHEST


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """The products of two stacks of matrices, in full precision on every device."""
    return jnp.matmul(a, b, precision=_HIGHEST)


def power(a: jax.Array, exponent: int) -> jax.Array:
    """The whole powers of a stack of matrices, by repeated squaring; exponent: 1 or more."""
    out = None
    while exponent:
        if exponent % 2:
            out = a if out is None else product(out, a)
        exponent //= 2
        a = product(a, a) if exponent else a
    assert out is not None
    return out


def whole_order(p: Any, iteration: str) -> int:
    """The order as a Python int.

    Raises:
      ValueError: if it is not a whole number above 0, or is traced; the message says who wants it.
    """
    try:
        order = int(p)
    except TypeError:  # traced
        order = 0
    if order < 1 or p != order:
        raise ValueError(
            f"The {iteration} iteration takes whole orders only, not p={p}: use the eigh solver "
            "for other exponents."
        )
    return order


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
    order, ridge = whole_order(p, "Newton"), jnp.asarray(ridge, stack_Ndd.dtype)
    d = stack_Ndd.shape[-1]
    eye_dd = jnp.eye(d, dtype=jnp.float32)[None]
    scale_N = mean_eigenvalue(stack_Ndd)[:, None, None]
    zero_N = (stack_Ndd == 0).all((1, 2), keepdims=True)
    unit_Ndd = jnp.where(zero_N, eye_dd, stack_Ndd / scale_N)
    largest_N = largest_eigenvalue(unit_Ndd)[:, None, None]
    unit_Ndd = unit_Ndd + jnp.where(zero_N, 0.0, ridge * largest_N) * eye_dd
    z_N = (order + 1) / (2 * 1.1 * largest_N)  # the power iteration is too low

    def error(m: jax.Array) -> jax.Array:
        return jnp.abs(m - eye_dd).max((1, 2), keepdims=True)

    def step(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, m = carry
        t = ((order + 1) * eye_dd - m) / order
        better_x, better_m = product(x, t), product(power(t, order), m)
        # Once it is as accurate as it gets, the iteration would drift away again.
        better = ~(error(better_m) >= error(m)) | (error(m) > 0.1)
        return jnp.where(better, better_x, x), jnp.where(better, better_m, m)

    x, m = lax.fori_loop(0, iterations, step, (z_N ** (1 / order) * eye_dd, z_N * unit_Ndd))
    x = (x + x.swapaxes(1, 2)) / 2
    condition_N = largest_N[:, 0, 0] * largest_eigenvalue(x) ** order
    return RootSolution(
        x * jnp.where(zero_N, 1.0, scale_N) ** (-1 / order), error(m)[:, 0, 0], condition_N
    )
