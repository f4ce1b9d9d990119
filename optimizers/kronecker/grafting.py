"""One transformation's direction at another's magnitude, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

Magnitude = Literal[
    "none",
    "sgd",
    "sqrt_n",
    "adam",
    "rmsprop",
    "adagrad",
    "sgd_normalized",
    "adam_normalized",
    "rmsprop_normalized",
    "adagrad_normalized",
]


class GraftState(NamedTuple):
    """count: steps taken; and the states of both."""

    count: jax.Array
    direction: optax.OptState
    magnitude: optax.OptState


def graft(
    direction: optax.GradientTransformation,
    magnitude: optax.GradientTransformation,
    where: Callable[[Any], Any] | None = None,
    start_step: int = 0,
) -> optax.GradientTransformation:
    """For each tensor D * ||M|| / ||D||, with D of `direction` and M of `magnitude` (Agarwal et al. 2020, arXiv:2002.11803).

    Args:
      direction, magnitude: both see the same gradients, from the first step on.
      where: of the parameters, a tree of booleans; where it is False the tensor takes M itself. Default: all True.
      start_step: before this step (from 0) every tensor takes M itself, to the same bits.

    A zero D gives zero. Norms are taken in float32. To `magnitude`, a tensor that is not finite is a zero one: most rules
    would carry it in their averages for ever.
    """

    def init(params: Any) -> GraftState:
        return GraftState(jnp.zeros((), jnp.int32), direction.init(params), magnitude.init(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, GraftState]:
        d, direction_state = direction.update(updates, state.direction, params)
        finite = jax.tree.map(
            lambda u: jnp.where(jnp.isfinite(u).all(), u, jnp.zeros_like(u)), updates
        )
        m, magnitude_state = magnitude.update(finite, state.magnitude, params)

        def one(d: jax.Array, m: jax.Array, grafted: bool) -> jax.Array:
            if not grafted:
                return m
            norm_d, norm_m = (jnp.linalg.norm(x.astype(jnp.float32)) for x in (d, m))
            at_norm = (
                d.astype(jnp.float32) * (norm_m / jnp.where(norm_d == 0, 1.0, norm_d))
            ).astype(d.dtype)
            return jnp.where(state.count < start_step, m, at_norm) if start_step else at_norm

        chosen = jax.tree.map(lambda _: True, updates) if where is None else where(updates)
        grafted = jax.tree.map(one, d, m, chosen)
        return grafted, GraftState(state.count + 1, direction_state, magnitude_state)

    return optax.GradientTransformation(init, update)


def _each_to(norm: Callable[[jax.Array], Any]) -> optax.GradientTransformation:
    """Each tensor scaled to the norm that `norm` says of it; a zero tensor stays."""

    def one(u: jax.Array) -> jax.Array:
        length = jnp.linalg.norm(u.astype(jnp.float32))
        return (u.astype(jnp.float32) * (norm(u) / jnp.where(length == 0, 1.0, length))).astype(
            u.dtype
        )

    return optax.stateless(lambda updates, params: jax.tree.map(one, updates))


def magnitude_of(
    name: Magnitude, b1: Any = 0.9, b2: Any = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation | None:
    """The magnitude called `name`; None for "none".

    "sgd" is the gradient's norm, "sqrt_n" the root of a tensor's number of elements, as of a sign update; "adam", "rmsprop" (bias-corrected)
    and "adagrad" those rules' norms. "..._normalized" scales each tensor of the gradient to norm 1 first, which makes the rule's
    memory one of directions.

    Raises:
      ValueError: where there is none of that name.
    """
    if name == "none":
        return None
    if name == "sqrt_n":
        return _each_to(lambda u: u.size**0.5)
    base, _, normalized = name.partition("_")
    rules = {
        "sgd": optax.identity,
        "adam": lambda: optax.scale_by_adam(b1, b2, eps),
        "rmsprop": lambda: optax.scale_by_rms(b2, eps, bias_correction=True),
        "adagrad": lambda: optax.scale_by_rss(initial_accumulator_value=0.0, eps=eps),
    }
    if base not in rules or normalized not in ("", "normalized"):
        raise ValueError(
            f"There is no grafting magnitude {name!r}: use none, sqrt_n, or one of {', '.join(rules)}, alone or followed by _normalized."
        )
    rule = rules[base]()
    return optax.chain(_each_to(lambda u: 1.0), rule) if normalized else rule
