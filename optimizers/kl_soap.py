"""KL-SOAP: Adam in the eigenbases of KL-Shampoo's factors."""

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
    into_bases,
    no_blocks,
    observed,
    out_of_bases,
)
from optimizers.masks import kernels
from optimizers.wrappers.precision import at_least_float32


class KLSoapState(NamedTuple):
    """State of the kernels.

    Attributes:
      count: steps taken.
      momentum: averages of gradients.
      blocks: `Blocks` for each shape of block; an empty array if there are no kernels.
      square: [N, m, n] for each shape of block, averages of squared gradients in the bases, in
        units of the first gradient; an empty array if there are no kernels.
    """

    count: jax.Array
    momentum: Any
    blocks: Any
    square: Any


def _squared(blocks: Blocks, g_Nmn: jax.Array) -> jax.Array:
    """[N, m, n], float32: the square of each element of the gradients in the bases."""
    inside = into_bases(blocks, g_Nmn.astype(jnp.float32) / blocks.unit[:, None, None])
    return inside * inside


def _direction(blocks: Blocks, m_Nmn: jax.Array, v_Nmn: jax.Array, epsilon: Any) -> jax.Array:
    """M / (sqrt(V) + epsilon * its largest) in the bases, and back; 0 where V is 0."""
    root = jnp.sqrt(v_Nmn)
    floor = root + epsilon * root.max((1, 2), keepdims=True)
    inside = into_bases(blocks, m_Nmn / blocks.unit[:, None, None])
    return out_of_bases(blocks, inside / jnp.where(floor == 0, 1.0, floor))


def _scale_kernels(
    b1: Any, b2: Any, epsilon: Any, block_size: int, update_every: int
) -> optax.GradientTransformation:
    """KL-SOAP for a tree of kernels."""

    def init(params: Any) -> KLSoapState:
        leaves = jax.tree.leaves(params)
        groups = plan([leaf.shape for leaf in leaves], block_size).groups
        return KLSoapState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            tuple(map(no_blocks, groups)) if leaves else jnp.zeros(0),
            tuple(jnp.zeros((group.size, *group.block), jnp.float32) for group in groups)
            if leaves
            else jnp.zeros(0),
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, KLSoapState]:
        del params
        leaves, tree = jax.tree.flatten(updates)
        if not leaves:
            return updates, state
        cut = plan([leaf.shape for leaf in leaves], block_size)
        begun = state.count > 0  # the first gradient enters neither average: its basis comes later
        momentum = jax.tree.map(
            lambda m, g: jnp.where(begun, b1 * m + (1 - b1) * g, 0), state.momentum, updates
        )
        gradients, decay = to_blocks(leaves, cut), jnp.asarray(b2, jnp.float32)
        square = tuple(
            jnp.where(begun, decay * v + (1 - decay) * _squared(of, g), 0)
            for of, v, g in zip(state.blocks, state.square, gradients, strict=True)
        )
        entered = jnp.maximum(state.count, 1)
        m_means = to_blocks(jax.tree.leaves(optax.tree.bias_correction(momentum, b1, entered)), cut)
        v_means = optax.tree.bias_correction(square, decay, entered)
        stacks = zip(state.blocks, m_means, v_means, strict=True)
        done = from_blocks([_direction(*of, epsilon) for of in stacks], cut)
        after = tuple(
            observed(of, g, state.count, b2, update_every)
            for of, g in zip(state.blocks, gradients, strict=True)
        )
        return (
            tree.unflatten(done[i].astype(leaf.dtype) for i, leaf in enumerate(leaves)),
            KLSoapState(state.count + 1, momentum, after, square),
        )

    return optax.GradientTransformation(init, update)


def scale_by_kl_soap(
    b1: float = 0.9,
    b2: float = 0.95,
    *,
    epsilon: float = 1e-5,
    block_size: int = 128,
    update_every: int = 10,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """KL-SOAP for kernels, Adam for vectors (Lin et al. 2025, arXiv:2509.03378).

    The update of a block is Q_L (M' / sqrt(V)) Q_R^T with M' = Q_L^T M Q_R. M is the average (b1)
    of gradients, V the average (b2) of squared gradients in the bases Q_L, Q_R. These follow the
    eigenvectors of KL-Shampoo's factors, the averages (b2) of G S_R^-1 G^T / n and G^T S_L^-1 G / m
    (see `scale_by_kl_shampoo`). As in the authors' code,
    - the bases are refreshed every `update_every` steps by one step of orthogonal iteration; V
      stays as it is then, and M keeps its direction: here it is kept in the parameters' own
      coordinates, theirs is rotated from the old bases into the new ones;
    - the first gradient only begins the factors, and the first update is 0 for kernels;
    - an update uses the bases from before its gradient.

    Unlike in that code, M and V have Adam's bias correction, as in NVIDIA's
    (github.com/NVIDIA-NeMo/Emerging-Optimizers). Without it the first step would be
    (1 - b1) / sqrt(1 - b2) times as long.

    Args:
      b1: decay of the average of gradients.
      b2: decay of the averages of factors, eigenvalues and squares.
      epsilon: added to sqrt(V), relative to its largest value in the block. It keeps directions
        that hold only rounding errors small, whatever the scale of the gradients.
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
            _scale_kernels(b1, b2, epsilon, block_size, update_every),
            optax.scale_by_adam(b1, b2, eps),
        )
    )


@optimizer
def kl_soap(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
    epsilon: float = 1e-5,
    block_size: int = 128,
    update_every: int = 10,
) -> optax.GradientTransformation:
    """KL-SOAP: Adam in the eigenbases of KL-Shampoo's factors (Lin et al. 2025, arXiv:2509.03378).

    Vectors take Adam.
    """
    return optax.chain(
        scale_by_kl_soap(b1, b2, epsilon=epsilon, block_size=block_size, update_every=update_every),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
