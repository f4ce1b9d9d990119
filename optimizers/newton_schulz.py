"""Orthogonalisation of kernels by the quintic Newton-Schulz iteration."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from optimizers.muon import COEFFICIENTS


def orthogonalise(kernel: jax.Array, steps: int = 5) -> jax.Array:
    """About U V^T for a kernel U S V^T, which [..., O] is folded to the matrix [rest, O] for.

    X <- a X + b X X^T X + c (X X^T)^2 X, from the kernel over its Frobenius norm, with the
    coefficients of Jordan et al. 2024 (kellerjordan.github.io/posts/muon). The result does not
    depend on the scale of the kernel, and is 0 for a zero kernel.

    Args:
      kernel: at least two axes, and not empty.
      steps: iterations.
    """
    a, b, c = COEFFICIENTS["jordan"]
    x_mn = kernel.reshape(-1, kernel.shape[-1])
    largest = jnp.abs(x_mn).max()
    x_mn = x_mn / jnp.where(largest == 0, 1.0, largest)  # the squares of tiny numbers vanish
    norm = jnp.linalg.norm(x_mn)
    x_mn = x_mn / jnp.where(norm == 0, 1.0, norm)
    tall = x_mn.shape[0] > x_mn.shape[1]
    x_mn = x_mn.T if tall else x_mn
    for _ in range(steps):
        gram_mm = x_mn @ x_mn.T
        x_mn = a * x_mn + (b * gram_mm + c * gram_mm @ gram_mm) @ x_mn
    return (x_mn.T if tall else x_mn).reshape(kernel.shape)
