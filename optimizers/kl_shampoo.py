"""KL-Shampoo: Kronecker factors that estimate a covariance by Kullback-Leibler divergence."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.kronecker.blocking import from_blocks, plan, to_blocks
from optimizers.kronecker.kl_factors import (
    Blocks,
    for_kernels,
    gain,
    into_bases,
    no_blocks,
    observed,
    out_of_bases,
)
from optimizers.masks import kernels
from optimizers.wrappers.precision import at_least_float32


class KLShampooState(NamedTuple):
    """State of the kernels.

    Attributes:
      count: steps taken.
      momentum: averages of gradients.
      blocks: `Blocks` for each shape of block; an empty array if there are no kernels.
    """

    count: jax.Array
    momentum: Any
    blocks: Any


def _whitened(blocks: Blocks, m_Nmn: jax.Array) -> jax.Array:
    """S_rows^-1/2 M S_columns^-1/2 of each block, for gradients in units of the first."""
    inside = into_bases(blocks, m_Nmn)
    inside = inside * gain(blocks.rows)[:, :, None] * gain(blocks.columns)[:, None]
    return out_of_bases(blocks, inside) / blocks.unit[:, None, None]


def _scale_kernels(
    b1: Any, b2: Any, block_size: int, update_every: int
) -> optax.GradientTransformation:
    """KL-Shampoo for a tree of kernels."""

    def init(params: Any) -> KLShampooState:
        leaves = jax.tree.leaves(params)
        groups = plan([leaf.shape for leaf in leaves], block_size).groups
        return KLShampooState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            tuple(map(no_blocks, groups)) if leaves else jnp.zeros(0),
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, KLShampooState]:
        del params
        leaves, tree = jax.tree.flatten(updates)
        if not leaves:
            return updates, state
        cut = plan([leaf.shape for leaf in leaves], block_size)
        momentum = jax.tree.map(
            # The first gradient does not enter: its basis comes later.
            lambda m, g: jnp.where(state.count == 0, 0, b1 * m + (1 - b1) * g),
            state.momentum,
            updates,
        )
        stacks = to_blocks(jax.tree.leaves(momentum), cut)
        done = from_blocks([_whitened(*of) for of in zip(state.blocks, stacks, strict=True)], cut)
        after = tuple(
            observed(of, g, state.count, b2, update_every)
            for of, g in zip(state.blocks, to_blocks(leaves, cut), strict=True)
        )
        return (
            tree.unflatten(done[i].astype(leaf.dtype) for i, leaf in enumerate(leaves)),
            KLShampooState(state.count + 1, momentum, after),
        )

    return optax.GradientTransformation(init, update)


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

    return at_least_float32(
        for_kernels(
            _scale_kernels(b1, b2, block_size, update_every), optax.scale_by_adam(b1, b2, eps)
        )
    )


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
