"""The solvers of inverse roots, by name, and how far a root is out of date."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from optimizers.kronecker.factors import Solver
from optimizers.kronecker.newton import newton_root
from optimizers.kronecker.polar import polar_root
from optimizers.kronecker.roots import eigh_root, pseudo_inverse_root

RootSolver = Literal["auto", "eigh", "newton", "polar", "pseudo_inverse"]

_PROBES = 4


def _signs(a: jax.Array) -> jax.Array:
    """A few fixed vectors [d, 4] to try matrices [.., d, d] on."""
    shape = (a.shape[-1], _PROBES)
    return jnp.where(jax.random.bernoulli(jax.random.key(0), shape=shape), 1.0, -1.0)


def _distance_from_root(a: jax.Array, root: jax.Array, p: Any) -> jax.Array:
    """||X^p A V - V|| / ||V|| for a few fixed vectors V [d, 4]; p is rounded to a whole number.

    0 if X is the inverse p-th root of A.
    """
    return _distance(a, root, p, _signs(a))


def _distance_from_pseudo_inverse(a: jax.Array, root: jax.Array, p: Any) -> jax.Array:
    """The same for vectors in the range of A: beyond it, a pseudo-inverse is 0."""
    return _distance(a, root, p, jnp.matmul(a, _signs(a)))


def _distance(a: jax.Array, root: jax.Array, p: Any, vectors: jax.Array) -> jax.Array:
    v = jnp.matmul(a, vectors)
    for _ in range(round(p)):
        v = jnp.matmul(root, v)
    norm = jnp.linalg.norm(vectors, axis=(-2, -1))
    return jnp.linalg.norm(v - vectors, axis=(-2, -1)) / jnp.where(norm == 0, 1.0, norm)


def solver(name: RootSolver, epsilon: Any) -> Solver:
    """The solver of this name; "auto" is "eigh" on CPU and "polar" elsewhere.

    Args:
      name: see `scale_by_shampoo`.
      epsilon: ridge, or the threshold of a pseudo-inverse, relative to the largest eigenvalue.

    Raises:
      ValueError: if the name is unknown.
    """
    if name not in get_args(RootSolver):
        known = ", ".join(get_args(RootSolver))
        raise ValueError(f"unknown root solver {name!r}: use one of {known}.")
    if name == "auto":
        # An eigendecomposition costs as much as 20 matrix products on CPU, and hundreds elsewhere.
        name = "eigh" if jax.default_backend() == "cpu" else "polar"
    solve = {
        "eigh": eigh_root,
        "newton": newton_root,
        "polar": polar_root,
        "pseudo_inverse": pseudo_inverse_root,
    }[name]
    return Solver(
        lambda a, _, p: solve(a, p, epsilon),
        _distance_from_pseudo_inverse if name == "pseudo_inverse" else _distance_from_root,
        one_by_one=name in ("eigh", "pseudo_inverse"),
    )
