"""The Kronecker factors that KL-Shampoo and KL-SOAP share (Lin et al. 2025, arXiv:2509.03378).

Each side of a block averages G S^-1 G^T / k, with S the other side's estimate and k its length. S
is Q diag(eigenvalues) Q^T: the eigenvalues are averaged at every step, and the bases Q are
refreshed every few steps by one step of orthogonal iteration.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optimizers.kronecker.blocking import Group, plan
from optimizers.kronecker.roots import mean_eigenvalue

_HIGHEST = lax.Precision.HIGHEST
_FIRST_EIGENVALUE = 0.1  # of the authors' code, for gradients with a root mean square of 1
_MOST_GAIN = 10.0  # of 1 / sqrt(eigenvalue), for sides of up to 10


class Side(NamedTuple):
    """One side of a stack of N blocks.

    Attributes:
      factor: [N, d, d], average of the other side's whitened products.
      basis: [N, d, d], approximate eigenvectors of the factor.
      eigenvalue: [N, d], average of the factor's diagonal in the basis.
    """

    factor: jax.Array
    basis: jax.Array
    eigenvalue: jax.Array


class Blocks(NamedTuple):
    """A stack of N blocks [N, m, n]; unit: [N], the root mean square of their first gradients."""

    unit: jax.Array
    rows: Side
    columns: Side


def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=_HIGHEST)


def _swapped(x: jax.Array) -> jax.Array:
    return x.swapaxes(-1, -2)


@jax.custom_batching.sequential_vmap
def _first_basis(a_dd: jax.Array) -> jax.Array:
    """Eigenvectors, largest eigenvalue first."""
    return jnp.linalg.eigh(a_dd / mean_eigenvalue(a_dd))[1][:, ::-1]


@jax.custom_batching.sequential_vmap
def _next_basis(a_dd: jax.Array, basis_dd: jax.Array) -> jax.Array:
    """One step of orthogonal iteration from the previous basis.

    A little of the basis is added, so that directions outside the range of A stay as they are.
    """
    return jnp.linalg.qr(_times(a_dd / mean_eigenvalue(a_dd), basis_dd) + 1e-6 * basis_dd)[0]


def gain(side: Side) -> jax.Array:
    """[N, d], 1 / sqrt(eigenvalue), at most max(10, d)."""
    most = max(_MOST_GAIN, side.eigenvalue.shape[-1])
    return 1 / jnp.sqrt(jnp.maximum(side.eigenvalue, most**-2.0))


def into_bases(blocks: Blocks, x_Nmn: jax.Array) -> jax.Array:
    """Q_rows^T X Q_columns of each block."""
    return _times(_times(_swapped(blocks.rows.basis), x_Nmn), blocks.columns.basis)


def out_of_bases(blocks: Blocks, x_Nmn: jax.Array) -> jax.Array:
    """Q_rows X Q_columns^T of each block, the inverse of `into_bases`."""
    return _times(_times(blocks.rows.basis, x_Nmn), _swapped(blocks.columns.basis))


def _learned(side: Side, rows: jax.Array, other: Side, b2: Any) -> Side:
    """`side` with one more gradient, whose `rows` [N, d, k] belong to this side.

    factor <- average of G S^-1 G^T / k, with S = Q diag(eigenvalues) Q^T of the other side.
    """
    k = rows.shape[-1]
    half = _times(rows, other.basis) * gain(other)[:, None]  # G S^-1/2
    factor = b2 * side.factor + (1 - b2) / k * _times(half, _swapped(half))
    inside = _times(_swapped(side.basis), half)
    eigenvalue = b2 * side.eigenvalue + (1 - b2) * jnp.mean(inside * inside, -1)
    return Side(factor, side.basis, eigenvalue)


def _begun(side: Side, rows: jax.Array, b2: Any) -> Side:
    """`side` after the first gradient: Shampoo's factor and its eigenvectors."""
    factor = (1 - b2) / rows.shape[-1] * _times(rows, _swapped(rows))
    return Side(factor, lax.map(_first_basis, factor), side.eigenvalue)


def _refreshed(side: Side) -> Side:
    return side._replace(basis=lax.map(lambda of: _next_basis(*of), side[:2]))


def observed(blocks: Blocks, g_Nmn: jax.Array, count: jax.Array, b2: Any, every: int) -> Blocks:
    """The factors with one more gradient.

    The first gradient only begins the factors. Bases are refreshed at steps that `every` divides.

    Args:
      blocks: the stack before the step.
      g_Nmn: gradients of its blocks.
      count: steps taken before.
      b2: decay of the averages.
      every: steps between refreshes of the bases.
    """
    b2 = jnp.asarray(b2, jnp.float32)
    g_Nmn = g_Nmn.astype(jnp.float32)

    def begin() -> Blocks:
        rms = jnp.sqrt(jnp.mean(g_Nmn * g_Nmn, (1, 2)))
        unit = jnp.where(rms == 0, 1.0, rms)
        g = g_Nmn / unit[:, None, None]
        return Blocks(unit, _begun(blocks.rows, g, b2), _begun(blocks.columns, _swapped(g), b2))

    def go_on() -> Blocks:
        g = g_Nmn / blocks.unit[:, None, None]
        rows = _learned(blocks.rows, g, blocks.columns, b2)
        columns = _learned(blocks.columns, _swapped(g), blocks.rows, b2)
        rows, columns = lax.cond(
            count % every == 0,
            lambda: (_refreshed(rows), _refreshed(columns)),
            lambda: (rows, columns),
        )
        return Blocks(blocks.unit, rows, columns)

    return lax.cond(count == 0, begin, go_on)


def no_blocks(group: Group) -> Blocks:
    """A stack before its first gradient."""
    return Blocks(
        jnp.ones(group.size, jnp.float32), *(_no_side(group.size, side) for side in group.block)
    )


def _no_side(n: int, d: int) -> Side:
    return Side(
        jnp.zeros((n, d, d), jnp.float32),
        jnp.zeros((n, d, d), jnp.float32) + jnp.eye(d, dtype=jnp.float32)[None],
        jnp.full((n, d), _FIRST_EIGENVALUE, jnp.float32),
    )


def for_kernels(
    rule: optax.GradientTransformation, others: optax.GradientTransformation
) -> optax.GradientTransformation:
    """`rule` for the tensors that `blocking.plan` cuts into blocks, `others` for the others."""

    def kinds(params: Any) -> Any:
        leaves, tree = jax.tree.flatten(params)
        folded = plan([leaf.shape for leaf in leaves]).folded
        return tree.unflatten("other" if form is None else "kernel" for form in folded)

    return optax.partition({"kernel": rule, "other": others}, kinds)
