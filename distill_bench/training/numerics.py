"""A fingerprint of this machine's arithmetic: machines with different ones give other last digits.

Versions of packages do not say all. XLA and LAPACK choose their instructions by the processor, and
flags such as --xla_cpu_enable_fast_math change what they may do with them. So the arithmetic itself
is asked: a small program with the operations of a training step, whose results are hashed. Machines
with the same fingerprint may still differ: the program is small and has few operations.
"""

from __future__ import annotations

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np


@functools.cache
def fingerprint() -> str:
    """8 hex digits of the SHA-256 of the results; compiled in about a second, or read from jax's
    cache. Covered are a matrix product, elementary functions, sums and an eigendecomposition."""
    rng = np.random.default_rng(0)
    x_NK = rng.standard_normal((128, 300), np.float32)
    kernel_KM = rng.standard_normal((300, 48), np.float32)
    whole = hashlib.sha256()
    for result in _program(x_NK, kernel_KM):
        whole.update(np.asarray(result).tobytes())
    return whole.hexdigest()[:8]


@jax.jit
def _program(x_NK: jax.Array, kernel_KM: jax.Array) -> tuple[jax.Array, ...]:
    hidden_NM = jnp.tanh(x_NK @ kernel_KM / 17)
    scaled_NM = hidden_NM / (jnp.sqrt(jnp.mean(hidden_NM**2, axis=0, keepdims=True)) + 1e-8)
    total = jnp.sum(jnp.log(jnp.sum(jnp.exp(scaled_NM), axis=1)))
    eigenvectors_MM, eigenvalues_M = jax.lax.linalg.eigh(scaled_NM.T @ scaled_NM)
    return scaled_NM, total, eigenvectors_MM, eigenvalues_M
