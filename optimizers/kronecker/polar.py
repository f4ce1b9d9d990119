"""Inverse p-th roots of stacks of matrices by minimax polynomials, as Polar Express does for signs.

The polynomials are computed in float64 numpy when a program is traced.
"""

from __future__ import annotations

import functools
import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optimizers.kronecker.newton import power, product, whole_order
from optimizers.kronecker.roots import RootSolution, mean_eigenvalue

# A polynomial that is the best on all of [l, 1] takes some of the largest eigenvalues almost down
# to l, where rounding errors of float32 are a large part of them. So none is fitted below this:
# smaller eigenvalues then grow a little less in each step, and large ones keep their digits.
_CUSHION = 0.5
_WIDEST = 0.99  # of intervals, so that the equations for the coefficients stay well-posed
_ERROR = 3e-6  # of the composition; float32 alone leaves 1e-6 if a matrix is well-conditioned
_FLOAT32_EPS = 2.0**-23


def best_polynomial(p: int, low: float) -> tuple[np.ndarray, float]:
    """(c [3], E): s h(s^p) with h(m) = c_0 + c_1 m + c_2 m^2 is within E of 1 on [low, 1].

    No other c has a smaller E: the error is -E, E, -E, E at four points (Chebyshev), which are
    found by Remez's exchange: solve for c and E at four points, then move those to the extrema.

    Args:
      p: order of the root, 1 or more.
      low: between 0 and 1.
    """
    degrees = 1 + p * np.arange(3)
    signs = (-1.0) ** np.arange(4)
    points = (1 + low) / 2 - (1 - low) / 2 * np.cos(np.pi * np.arange(4) / 3)
    for _ in range(100):
        *c, error = np.linalg.solve(
            np.column_stack([points[:, None] ** degrees, signs]), np.ones(4)
        )
        # Where the derivative vanishes: c_0 + (1 + p) c_1 m + (1 + 2p) c_2 m^2 = 0.
        inner = np.sort(np.roots((c * degrees)[::-1]).real) ** (1 / p)
        moved = np.array([low, *inner, 1.0])
        if np.abs(moved - points).max() < 1e-12:
            break
        points = moved
    return np.array(c), abs(error)


@functools.cache
def polynomials(p: int, lowest: float) -> np.ndarray:
    """[steps, 3], the coefficients c of each step s <- s h(s^p), from s in [lowest^(1/p), 1] to 1.

    Each is the best on the interval that the one before it leaves (Amsel et al. 2025,
    arXiv:2505.16932, section 3, for p = 2), but for the cushion above. All but the last are
    scaled so that no s is larger than 1. The last leaves s within 3e-6 of 1.

    Args:
      p: order of the root, 1 or more.
      lowest: smallest eigenvalue, between 0 and 1.
    """
    steps, low = [], lowest ** (1 / p)
    while True:
        c, error = best_polynomial(p, min(max(low, _CUSHION), _WIDEST))
        if error < _ERROR:
            return np.stack([*steps, c])
        grown = low * np.polyval(c[::-1], low**p)
        low = min(grown, 1 - error) / (1 + error)
        steps.append(c / (1 + error))


def _bounds(a_Ndd: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[N, 1, 1] each: the largest eigenvalue, a few percent too low at most, and a bound above it.

    From the sums of the eigenvalues' 12th and 16th powers, by three products: a power iteration is
    many short steps in a row, and its estimate is not a bound. This one is at most d^(1/16) times
    too high.
    """
    norm_N = jnp.linalg.norm(a_Ndd, axis=(1, 2), keepdims=True)
    a4 = power(a_Ndd / norm_N, 4)
    a8 = product(a4, a4)
    sum16 = jnp.sum(a8 * a8, (1, 2), keepdims=True)
    sum12 = jnp.sum(a4 * a8, (1, 2), keepdims=True)
    return norm_N * (sum16 / sum12) ** (1 / 4), norm_N * sum16 ** (1 / 16)


def polar_root(stack_Ndd: jax.Array, p: int, ridge: jax.Array | float) -> RootSolution:
    """The roots of a stack by a coupled iteration with minimax polynomials.

    X <- X h(M), M <- h(M)^p M from X = I and M = A / bound, where the polynomials h of degree 2
    take M to I as fast as possible (see `polynomials`). For p = 2 the steps are those of Polar
    Express on the square roots of M's eigenvalues; the same is done for other p. M is multiplied
    from both sides, h^(p/2) M h^(p/2), which keeps it symmetric: errors in small eigenvalues then
    do not spread to the large ones. There are matrix products only, and their number is fixed: 42
    for p = 4 and for p = 2, with a ridge of 1e-6 and d = 128.

    The residual is the largest element of |M - I|.

    Args:
      stack_Ndd: [N, d, d], symmetric positive semi-definite.
      p: a whole number.
      ridge: relative to the largest eigenvalue. A smaller one takes more steps. If it is traced,
        smaller ones than float32 resolves (1.2e-7) give a large residual.

    Raises:
      ValueError: if `p` is not a whole number above 0.
    """
    order = whole_order(p, "polar")
    d = stack_Ndd.shape[-1]
    known = float(ridge) if isinstance(ridge, numbers.Real) and ridge > 0 else _FLOAT32_EPS
    steps_k3 = polynomials(order, known / (known + d ** (1 / 16)))
    ridge = jnp.asarray(ridge, stack_Ndd.dtype)
    eye_dd = jnp.eye(d, dtype=stack_Ndd.dtype)[None]
    scale_N = mean_eigenvalue(stack_Ndd)[:, None, None]
    zero_N = (stack_Ndd == 0).all((1, 2), keepdims=True)
    unit_Ndd = jnp.where(zero_N, eye_dd, stack_Ndd / scale_N)
    largest_N, bound_N = _bounds(unit_Ndd)
    ridge_N = jnp.where(zero_N, 0.0, ridge * largest_N)
    bound_N = bound_N + ridge_N

    def factor(m: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
        """h(M) and the next M."""
        h = c[0] * eye_dd + c[1] * m + c[2] * product(m, m)
        if order > 1:
            half = power(h, order // 2)
            m = product(half, product(m, half))
        if order % 2:
            m = product(m, h)
        return h, (m + m.swapaxes(1, 2)) / 2

    def step(
        carry: tuple[jax.Array, jax.Array], c: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, m = carry
        h, m = factor(m, c)
        return (product(x, h), m), None

    coefficients = jnp.asarray(steps_k3, stack_Ndd.dtype)
    first = factor((unit_Ndd + ridge_N * eye_dd) / bound_N, coefficients[0])
    (x, m), _ = lax.scan(step, first, coefficients[1:])
    x = (x + x.swapaxes(1, 2)) / 2
    smallest_N = bound_N / _bounds(power(x, order))[0]
    root = x * (bound_N * jnp.where(zero_N, 1.0, scale_N)) ** (-1 / order)
    return RootSolution(
        root,
        jnp.abs(m - eye_dd).max((1, 2)),
        ((largest_N + ridge_N) / smallest_N)[:, 0, 0],
    )
