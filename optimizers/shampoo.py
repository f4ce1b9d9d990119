"""Shampoo: Kronecker-factored preconditioning in blocks."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optimizers.api import Choice, Log, Schedule, optimizer
from optimizers.blocking import from_blocks, plan, to_blocks
from optimizers.grafting import graft
from optimizers.masks import kernels
from optimizers.roots import inverse_root


class Factors(NamedTuple):
    """A pair for each group of blocks: left [N, m, m] and right [N, n, n]."""

    left: tuple[jax.Array, ...]
    right: tuple[jax.Array, ...]


class ShampooState(NamedTuple):
    """count: steps taken; momentum: average of gradients; stats: averages of G G^T and G^T G; roots: their inverse roots."""

    count: jax.Array
    momentum: Any
    stats: Factors
    roots: Factors


def _refresh(stats: Factors, old: Factors, correction: jax.Array, p: float, ridge: float) -> Factors:
    """Roots of all statistics, the matrices of one size in one stack; a root that is not finite keeps its old value."""
    stacks, fallbacks = jax.tree.leaves(stats), jax.tree.leaves(old)
    by_size: dict[int, list[int]] = {}
    for i, stack in enumerate(stacks):
        by_size.setdefault(stack.shape[-1], []).append(i)
    roots = list(fallbacks)
    for members in by_size.values():
        stack = inverse_root(jnp.concatenate([stacks[i] for i in members]) / correction, p, ridge)
        start = 0
        for i in members:
            new = stack[start : start + len(stacks[i])]
            good = jnp.isfinite(new).all(axis=(1, 2), keepdims=True)
            roots[i] = jnp.where(good, new, fallbacks[i])
            start += len(stacks[i])
    return jax.tree.unflatten(jax.tree.structure(stats), roots)


def scale_by_shampoo(
    b1: float = 0.9,
    b2: float = 0.95,
    *,
    epsilon: float = 1e-6,
    block_size: int = 128,
    update_every: int = 10,
) -> optax.GradientTransformation:
    """L^(-1/4) M R^(-1/4) for each block (Gupta et al. 2018, arXiv:1802.09568, algorithm 1).

    M is the bias-corrected average (b1) of gradients G, L and R the bias-corrected averages (b2) of G G^T and
    G^T G. No learning rate or weight decay. Kernels [..., O] fold to matrices [rest, O] and split into
    blocks of at most `block_size`; tensors with fewer than two axes take M.

    Args:
      b1: decay of the average of gradients; 0 for none.
      b2: decay of the averages of statistics.
      epsilon: ridge of a root, relative to the largest eigenvalue.
      block_size: largest side of a block.
      update_every: steps between refreshes of the roots; the first step is one.
    """

    def init(params: Any) -> ShampooState:
        groups = plan([p.shape for p in jax.tree.leaves(params)], block_size)
        stats = Factors(*(tuple(jnp.zeros((g.size, g.block[side], g.block[side])) for g in groups) for side in (0, 1)))
        eyes = jax.tree.map(lambda s: jnp.broadcast_to(jnp.eye(s.shape[-1]), s.shape), stats)
        momentum = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        return ShampooState(jnp.zeros((), jnp.int32), momentum, stats, eyes)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ShampooState]:
        del params
        leaves, tree = jax.tree.flatten(updates)
        groups = plan([leaf.shape for leaf in leaves], block_size)
        count = state.count + 1
        gradients = [leaf.astype(jnp.float32) for leaf in leaves]
        # What is not finite enters no average: a whole tensor of the gradients, a whole matrix of the statistics.
        momentum = [jnp.where(jnp.isfinite(g).all(), b1 * m + (1 - b1) * g, m) for m, g in zip(jax.tree.leaves(state.momentum), gradients, strict=True)]

        def average(stack_Nbb: jax.Array, new_Nbb: jax.Array) -> jax.Array:
            finite = jnp.isfinite(new_Nbb).all(axis=(1, 2), keepdims=True)
            return jnp.where(finite, b2 * stack_Nbb + (1 - b2) * new_Nbb, stack_Nbb)

        blocks = [to_blocks(gradients, group) for group in groups]
        stats = Factors(
            tuple(average(s, jnp.einsum("nij,nkj->nik", g, g)) for s, g in zip(state.stats.left, blocks, strict=True)),
            tuple(average(s, jnp.einsum("nji,njk->nik", g, g)) for s, g in zip(state.stats.right, blocks, strict=True)),
        )
        roots = lax.cond(
            state.count % update_every == 0,
            lambda: _refresh(stats, state.roots, 1 - b2**count, 4.0, epsilon),
            lambda: state.roots,
        )
        directions = [m / (1 - b1**count) for m in momentum]
        for group, left, right in zip(groups, roots.left, roots.right, strict=True):
            stack = jnp.einsum("nij,njk,nkl->nil", left, to_blocks(directions, group), right)
            for index, leaf in from_blocks(stack, group).items():
                directions[index] = leaf
        directions = [d.astype(leaf.dtype) for d, leaf in zip(directions, leaves, strict=True)]
        return jax.tree.unflatten(tree, directions), ShampooState(count, jax.tree.unflatten(tree, momentum), stats, roots)

    return optax.GradientTransformation(init, update)


@optimizer
def shampoo(
    lr: Annotated[Schedule, Log(1e-2, 3e-1)] = 5e-2,
    *,
    b2: Annotated[float, Choice(0.95, 0.99)] = 0.95,
    b1: float = 0.9,
    weight_decay: float = 1e-3,
    epsilon: float = 1e-6,
    block_size: int = 128,
    update_every: int = 10,
) -> optax.GradientTransformation:
    """Shampoo (Gupta et al. 2018, arXiv:1802.09568) at the magnitude of Adam's update, tensor by tensor."""
    return optax.chain(
        graft(
            scale_by_shampoo(b1, b2, epsilon=epsilon, block_size=block_size, update_every=update_every),
            optax.scale_by_adam(b1, b2),
            where=kernels,
        ),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
