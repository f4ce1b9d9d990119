"""SPlus: signs in Shampoo's eigenbasis, with averaged parameters for evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.kronecker.bases import eigenbasis, off_diagonal
from optimizers.kronecker.blocking import from_blocks, plan, to_blocks
from optimizers.kronecker.factors import Cadence, Solver
from optimizers.kronecker.kronecker import Kronecker
from optimizers.masks import kernels
from optimizers.wrappers.precision import at_least_float32


class SPlusState(NamedTuple):
    """State of `scale_by_splus`.

    Attributes:
      count: steps taken.
      momentum: averages of gradients.
      factors: averages of G G^T and G^T G of each block, with their eigenvectors; an empty array if
        there are no parameters.
      average: weighted sums of the parameters.
      weight: sum of their weights; average / weight are the averaged parameters.
    """

    count: jax.Array
    momentum: Any
    factors: Any
    average: Any
    weight: jax.Array


# One at a time on every device: LAPACK needs it, and bases are refreshed rarely.
_SOLVER = Solver(eigenbasis, off_diagonal, one_by_one=True)


def _scaled(sign: jax.Array, vector_scale: Any) -> jax.Array:
    """2 / (m + n) times the signs of a kernel that folds to [m, n]; a constant times a vector's."""
    if sign.ndim < 2:
        return sign * vector_scale
    return sign * (2 / max(1, math.prod(sign.shape[:-1]) + sign.shape[-1]))


def scale_by_splus(
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.999,
    *,
    block_size: int = 128,
    update_every: int = 100,
    vector_scale: float = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    """Signs of the averaged gradient in Shampoo's eigenbases (Frans et al. 2025, arXiv:2506.07254).

    The update of each block is 2 / (m + n) Q_L sign(Q_L^T M Q_R) Q_R^T, with M the average (b1) of
    gradients and Q_L, Q_R eigenvectors of the averages (b2) of G G^T and G^T G; [m, n] is the
    folded kernel of which the block is a part. As in the authors' code, a step takes the bases that
    stood before it, which at the first step are identities: in its own eigenbasis a gradient is
    diagonal, and the other signs would be those of rounding errors. Vectors, and tensors without
    two axes longer than 1, are not rotated.

    The parameters that each step starts from are averaged (b3), for `splus_eval_params`.

    Args:
      b1, b2, b3: decays of the averages of gradients, of their products and of parameters.
      block_size: longest side of a block; kernels [..., O] are folded to [rest, O] first. (The
        paper does not cut them.)
      update_every: steps between refreshes of the bases; the first step is one.
      vector_scale: scale of the signs of vectors.

    Raises:
      ValueError: if `update_every` is below 1; from `update`, if it is called without parameters.
    """
    if update_every < 1:
        raise ValueError(f"update_every={update_every} is not a number of steps: use 1 or more.")
    cadence = Cadence(update_every)

    def kronecker(leaves: Sequence[jax.Array]) -> Kronecker:
        return Kronecker(plan([leaf.shape for leaf in leaves], block_size), lambda axes: 1.0)

    def init(params: Any) -> SPlusState:
        leaves = jax.tree.leaves(params)
        factors = kronecker(leaves).init() if leaves else jnp.zeros(0)
        return SPlusState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(jnp.zeros_like, params),
            factors,
            jax.tree.map(jnp.zeros_like, params),
            jnp.zeros((), jnp.float32),
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, SPlusState]:
        if params is None:
            raise ValueError("SPlus averages the parameters: pass params to update().")
        leaves, tree = jax.tree.flatten(updates)
        if not leaves:
            return updates, state
        blocks = kronecker(leaves)
        momentum = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.momentum, updates)
        means = jax.tree.leaves(momentum)
        rotated = blocks.apply(state.factors, to_blocks(means, blocks.plan), transpose=True)
        signs = dict(enumerate(jnp.sign(m) for m in means))
        signs |= from_blocks(
            blocks.apply(state.factors, [jnp.sign(r) for r in rotated]), blocks.plan
        )
        done = [_scaled(signs[i], vector_scale).astype(g.dtype) for i, g in enumerate(leaves)]
        factors = blocks.observe(state.factors, to_blocks(leaves, blocks.plan), b2)
        factors = blocks.refresh(factors, state.count, cadence, _SOLVER)
        average = jax.tree.map(lambda a, p: b3 * a + (1 - b3) * p, state.average, params)
        weight = (b3 * state.weight + (1 - b3)).astype(state.weight.dtype)
        return jax.tree.unflatten(tree, done), SPlusState(
            state.count + 1, momentum, factors, average, weight
        )

    return at_least_float32(optax.GradientTransformation(init, update))


def splus_eval_params(state: Any, params: Any) -> Any:
    """The averaged parameters of `scale_by_splus`, found anywhere in an optimizer's state.

    They are `params` before the first step.

    Raises:
      ValueError: if the state holds no averages of SPlus.
    """

    def is_splus(x: Any) -> bool:
        return isinstance(x, SPlusState)

    for found in filter(is_splus, jax.tree.leaves(state, is_leaf=is_splus)):
        return jax.tree.map(
            lambda a, p, w=found.weight: jnp.where(
                w == 0, p, (a / jnp.where(w == 0, 1.0, w)).astype(p.dtype)
            ),
            found.average,
            params,
        )
    raise ValueError("This state has no averages of SPlus: give the state that SPlus returned.")


@optimizer(eval_params=splus_eval_params)
def splus(
    lr: Annotated[Schedule, Log(1e-1, 5.0)] = 0.5,
    *,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    b2: Annotated[float, Decay(0.9, 0.999)] = 0.99,
    b3: Annotated[float, Decay(0.8, 0.99)] = 0.95,
    vector_scale: float = 1e-3,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
    block_size: int = 128,
    update_every: int = 10,
) -> optax.GradientTransformation:
    """SPlus: signs in Shampoo's eigenbasis (Frans et al. 2025, arXiv:2506.07254).

    Averaged parameters are evaluated; `b3` is the decay of their average. Weight decay, on kernels,
    is not scaled by shape. The learning rate is that of a matrix: vectors take `vector_scale` of
    it.
    """
    return optax.chain(
        scale_by_splus(
            b1, b2, b3, block_size=block_size, update_every=update_every, vector_scale=vector_scale
        ),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
