"""KL-Shampoo: Kronecker factors that estimate a covariance by Kullback-Leibler divergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.kronecker.blocking import BlockPlan, from_blocks, plan, to_blocks
from optimizers.kronecker.roots import mean_eigenvalue
from optimizers.masks import kernels
from optimizers.wrappers.precision import at_least_float32

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


class KLShampooState(NamedTuple):
    """State of `scale_by_kl_shampoo`.

    Attributes:
      count: steps taken.
      momentum: averages of gradients.
      square: averages of squared gradients of tensors that are not cut into blocks; empty arrays
        for the others.
      blocks: `Blocks` for each shape of block; an empty array if there are no parameters.
    """

    count: jax.Array
    momentum: Any
    square: Any
    blocks: Any


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


def _gain(side: Side) -> jax.Array:
    """[N, d], 1 / sqrt(eigenvalue), at most max(10, d)."""
    most = max(_MOST_GAIN, side.eigenvalue.shape[-1])
    return 1 / jnp.sqrt(jnp.maximum(side.eigenvalue, most**-2.0))


def _learned(side: Side, rows: jax.Array, other: Side, b2: Any) -> Side:
    """`side` with one more gradient, whose `rows` [N, d, k] belong to this side.

    factor <- average of G S^-1 G^T / k, with S = Q diag(eigenvalues) Q^T of the other side.
    """
    k = rows.shape[-1]
    half = _times(rows, other.basis) * _gain(other)[:, None]  # G S^-1/2
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


def _whitened(blocks: Blocks, m_Nmn: jax.Array) -> jax.Array:
    """S_rows^-1/2 M S_columns^-1/2 of each block, for gradients in units of the first."""
    rows, columns = blocks.rows, blocks.columns
    inside = _times(_times(_swapped(rows.basis), m_Nmn), columns.basis)
    inside = inside * _gain(rows)[:, :, None] * _gain(columns)[:, None]
    return _times(_times(rows.basis, inside), _swapped(columns.basis)) / blocks.unit[:, None, None]


def _observed(blocks: Blocks, g_Nmn: jax.Array, count: jax.Array, b2: Any, every: int) -> Blocks:
    """The blocks' factors with one more gradient; their bases are refreshed every few steps."""

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


def _no_side(n: int, d: int) -> Side:
    return Side(
        jnp.zeros((n, d, d), jnp.float32),
        jnp.zeros((n, d, d), jnp.float32) + jnp.eye(d, dtype=jnp.float32)[None],
        jnp.full((n, d), _FIRST_EIGENVALUE, jnp.float32),
    )


def scale_by_kl_shampoo(
    b1: float = 0.9,
    b2: float = 0.98,
    *,
    block_size: int = 128,
    update_every: int = 10,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """KL-Shampoo for kernels, Adam for vectors (Lin et al. 2025, arXiv:2509.03378).

    The update of a block is S_L^-1/2 M S_R^-1/2, with M the average (b1) of gradients and S_L, S_R
    averages (b2) of G S_R^-1 G^T / n and G^T S_L^-1 G / m: the Kronecker product that has the least
    Kullback-Leibler divergence from the covariance of gradients. As in the authors' code,
    - S is Q diag(eigenvalues) Q^T: the eigenvalues are averaged at every step, and the bases Q are
      refreshed every `update_every` steps by one step of orthogonal iteration;
    - the first gradient only begins the factors, and the first update is 0 for kernels;
    - 1 / sqrt(eigenvalue) is at most max(10, side), and M has no bias correction;
    - an update uses the factors from before its gradient.

    Eigenvalues start at 0.1, as theirs do, but in units of the block's first root mean square, so
    that updates do not depend on the scale of gradients.

    Args:
      b1: decay of the average of gradients.
      b2: decay of the factors' and eigenvalues' averages, and of Adam's second moment.
      block_size: longest side of a block; kernels [..., O] are folded to [rest, O] first. (The
        paper does not cut them.)
      update_every: steps between refreshes of the bases.
      eps: Adam's, for vectors and for tensors without two axes longer than 1.

    Raises:
      ValueError: if `update_every` is below 1.
    """
    if update_every < 1:
        raise ValueError(f"update_every={update_every} is not a number of steps: use 1 or more.")

    def cut(leaves: Sequence[jax.Array]) -> BlockPlan:
        return plan([leaf.shape for leaf in leaves], block_size)

    def init(params: Any) -> KLShampooState:
        leaves, tree = jax.tree.flatten(params)
        blocks = cut(leaves)
        squares = [
            jnp.zeros_like(p) if form is None else jnp.zeros(0, p.dtype)
            for p, form in zip(leaves, blocks.folded, strict=True)
        ]
        stacks = tuple(
            Blocks(
                jnp.ones(group.size, jnp.float32),
                *(_no_side(group.size, side) for side in group.block),
            )
            for group in blocks.groups
        )
        return KLShampooState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.unflatten(tree, squares),
            stacks if leaves else jnp.zeros(0),
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, KLShampooState]:
        del params
        leaves, tree = jax.tree.flatten(updates)
        if not leaves:
            return updates, state
        blocks = cut(leaves)
        count = state.count + 1
        momentum = jax.tree.map(
            # The first gradient of a kernel does not enter: its basis comes later.
            lambda m, g, v: jnp.where((state.count == 0) & (v.size == 0), 0, b1 * m + (1 - b1) * g),
            state.momentum,
            updates,
            state.square,
        )
        square = jax.tree.map(
            lambda v, g: b2 * v + (1 - b2) * g * g if v.shape == g.shape else v,
            state.square,
            updates,
        )
        means = optax.tree.bias_correction(momentum, b1, count)
        squares = optax.tree.bias_correction(square, b2, count)
        done = [
            m / (jnp.sqrt(v) + eps) if v.shape == m.shape else m
            for m, v in zip(jax.tree.leaves(means), jax.tree.leaves(squares), strict=True)
        ]
        stacks = to_blocks(jax.tree.leaves(momentum), blocks)
        whitened = [_whitened(*of) for of in zip(state.blocks, stacks, strict=True)]
        for index, kernel in from_blocks(whitened, blocks).items():
            done[index] = kernel.astype(leaves[index].dtype)
        decay = jnp.asarray(b2, jnp.float32)
        after = [
            _observed(of, g.astype(jnp.float32), state.count, decay, update_every)
            for of, g in zip(state.blocks, to_blocks(leaves, blocks), strict=True)
        ]
        return jax.tree.unflatten(tree, done), KLShampooState(count, momentum, square, tuple(after))

    return at_least_float32(optax.GradientTransformation(init, update))


@optimizer
def kl_shampoo(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
    block_size: int = 128,
    update_every: int = 10,
) -> optax.GradientTransformation:
    """KL-Shampoo: Shampoo without grafting (Lin et al. 2025, arXiv:2509.03378).

    Vectors take Adam.
    """
    return optax.chain(
        scale_by_kl_shampoo(b1, b2, block_size=block_size, update_every=update_every),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
