"""One transformation's direction at another's magnitude, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class GraftState(NamedTuple):
    direction: optax.OptState
    magnitude: optax.OptState


def graft(
    direction: optax.GradientTransformation,
    magnitude: optax.GradientTransformation,
    where: Callable[[Any], Any],
) -> optax.GradientTransformation:
    """For each tensor D * ||M|| / ||D||, with D of `direction` and M of `magnitude` (Agarwal et al. 2020, arXiv:2002.11803).

    `where(params)` is a tree of booleans; where it is False the tensor takes M itself. A zero D gives zero.
    """

    def init(params: Any) -> GraftState:
        return GraftState(direction.init(params), magnitude.init(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, GraftState]:
        d, direction_state = direction.update(updates, state.direction, params)
        m, magnitude_state = magnitude.update(updates, state.magnitude, params)

        def one(d: jax.Array, m: jax.Array, grafted: bool) -> jax.Array:
            if not grafted:
                return m
            norm = jnp.linalg.norm(d)
            return d * (jnp.linalg.norm(m) / jnp.where(norm == 0, 1.0, norm)).astype(d.dtype)

        return jax.tree.map(one, d, m, where(updates)), GraftState(direction_state, magnitude_state)

    return optax.GradientTransformation(init, update)
