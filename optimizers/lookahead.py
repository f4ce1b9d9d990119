"""Lookahead: slow weights that follow the fast weights of another rule."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Choice, Decay, Log
from optimizers.masks import kernels


class LookaheadState(NamedTuple):
    """count: steps taken; slow: the weights to evaluate; fast: the state of the inner rule."""

    count: jax.Array
    slow: Any
    fast: optax.OptState


def follow(
    inner: optax.GradientTransformation, every: int, pull: float
) -> optax.GradientTransformation:
    """Wraps `inner`; every `every` steps, slow <- slow + pull (fast - slow) and fast <- slow.

    Zhang et al. 2019, algorithm 1. optax.lookahead needs a training loop that holds fast and slow
    parameters. Here the slow parameters are part of the state.
    """

    def init(params: Any) -> LookaheadState:
        return LookaheadState(
            jnp.zeros((), jnp.int32), jax.tree.map(jnp.array, params), inner.init(params)
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, LookaheadState]:
        updates, fast = inner.update(updates, state.fast, params)
        count = state.count + 1
        sync = count % every == 0
        moved = optax.apply_updates(params, updates)
        slow = jax.tree.map(
            lambda s, m: jnp.where(sync, s + pull * (m - s), s).astype(s.dtype), state.slow, moved
        )
        updates = jax.tree.map(
            lambda u, s, p: jnp.where(sync, s - p, u).astype(u.dtype), updates, slow, params
        )
        return updates, LookaheadState(count, slow, fast)

    return optax.GradientTransformation(init, update)


def slow_params(state: Any, params: Any) -> Any:
    """The slow weights, which are evaluated."""
    del params
    return state.slow


@optimizer(eval_params=slow_params)
def lookahead(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    pull: Annotated[float, Choice(0.5, 0.8)] = 0.5,
    every: int = 5,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    b2: float = 0.95,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """Lookahead around AdamW: slow weights follow the fast weights (Zhang et al. 2019).

    arXiv:1907.08610. The slow weights are evaluated. `pull` is the size of a slow step.
    """
    return follow(optax.adamw(lr, b1, b2, weight_decay=weight_decay, mask=kernels), every, pull)
