"""Eigenbases of symmetric positive semi-definite matrices, exact or by one more iteration."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from optimizers.kronecker.factors import Solver
from optimizers.kronecker.roots import RootSolution, mean_eigenvalue

BasisSolver = Literal["auto", "eigh", "qr"]


def off_diagonal(a: jax.Array, basis: jax.Array, p: Any = None) -> jax.Array:
    """||Q^T A Q without its diagonal|| / ||A||, in Frobenius norms.

    0 if the columns of Q are eigenvectors of A.
    """
    del p
    inner = jnp.matmul(
        jnp.matmul(basis.swapaxes(-1, -2), a, precision=lax.Precision.HIGHEST),
        basis,
        precision=lax.Precision.HIGHEST,
    )
    apart = inner * (1 - jnp.eye(a.shape[-1], dtype=a.dtype)).reshape(
        (1,) * (a.ndim - 2) + a.shape[-2:]
    )
    norm = jnp.linalg.norm(a, axis=(-2, -1))
    return jnp.linalg.norm(apart, axis=(-2, -1)) / jnp.where(norm == 0, 1.0, norm)


def eigenbasis(a_dd: jax.Array, _: jax.Array, p: Any) -> RootSolution:
    """Eigenvectors of one matrix, largest eigenvalue first; the identity for a zero matrix."""
    del p
    values_d, vectors_dd = jnp.linalg.eigh(a_dd / mean_eigenvalue(a_dd))
    zero = (a_dd == 0).all()
    basis = jnp.where(zero, jnp.eye(len(a_dd), dtype=a_dd.dtype), vectors_dd[:, ::-1])
    return RootSolution(
        basis,
        off_diagonal(a_dd, basis),
        jnp.where(zero, 1.0, values_d[-1] / jnp.maximum(values_d[0], 1e-12)),
    )


_FIRST_ITERATIONS = 8


def _iterate(a_dd: jax.Array, basis_dd: jax.Array, p: Any) -> RootSolution:
    """One step of orthogonal iteration from the previous basis: the Q factor of A Q.

    (Vyas et al. 2024, arXiv:2409.11321, algorithm 4.) It takes several steps from the identity.
    A small multiple of Q is added, so that directions outside the range of A stay as they are.
    """
    del p
    eye_dd = jnp.eye(len(a_dd), dtype=a_dd.dtype)
    unit_dd = a_dd / mean_eigenvalue(a_dd)

    def step(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        basis = carry[0]
        new, triangle = jnp.linalg.qr(
            jnp.matmul(unit_dd, basis, precision=lax.Precision.HIGHEST) + 1e-6 * basis
        )
        sizes = jnp.diagonal(triangle)
        return new * jnp.where(sizes < 0, -1.0, 1.0)[None], jnp.abs(sizes)

    steps = jnp.where((basis_dd == eye_dd).all(), _FIRST_ITERATIONS, 1)
    new, sizes = lax.fori_loop(0, steps, step, (basis_dd, jnp.ones(len(a_dd), a_dd.dtype)))
    return RootSolution(new, off_diagonal(a_dd, new), sizes.max() / sizes.min())


def solver(name: BasisSolver) -> Solver:
    """The solver of this name; "auto" is "eigh" on CPU and "qr" elsewhere.

    Raises:
      ValueError: if the name is unknown.
    """
    if name not in ("auto", "eigh", "qr"):
        raise ValueError(f"unknown basis solver {name!r}: use auto, eigh or qr.")
    cpu = jax.default_backend() == "cpu"
    exact = name == "eigh" or (name == "auto" and cpu)
    solve = eigenbasis if exact else _iterate
    # Off the diagonal an eigendecomposition leaves rounding errors only; an iteration leaves what
    # it has not reached yet, which is no failure.
    return Solver(
        solve if cpu else jax.vmap(solve, (0, 0, None)),
        off_diagonal,
        one_by_one=cpu,
        max_residual=0.1 if exact else float("inf"),
    )
