"""Grafting: the direction of one update rule with the magnitude of another, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """count: steps taken; direction, magnitude: states of the two rules."""

    count: jax.Array
    direction: optax.OptState
    magnitude: optax.OptState


def graft(
    direction: optax.GradientTransformation,
    magnitude: optax.GradientTransformation,
    axes: Callable[[Any], Sequence[tuple[int, ...] | None]] | None = None,
    start_step: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """The update D * ||M|| / ||D|| of each tensor (Agarwal et al. 2020, arXiv:2002.11803).

    D is the update of `direction`, M that of `magnitude`. A zero D gives a zero update. Norms are
    taken in float32. `magnitude` gets zeros in place of a gradient with NaN or infinity: most rules
    would keep it in their averages for ever.

    Args:
      direction, magnitude: the two rules; both get the same gradients from the first step on.
      axes: parameters -> for each tensor, in the order of `jax.tree.leaves`, the axes over which
        its norms are taken; None for a tensor that takes M itself. Without it, all axes of all.
      start_step: before this step (from 0) every tensor takes M itself, bit for bit.
    """
    direction, magnitude = map(optax.with_extra_args_support, (direction, magnitude))

    def init(params: Any) -> GraftState:
        return GraftState(jnp.zeros((), jnp.int32), direction.init(params), magnitude.init(params))

    def update(
        updates: Any, state: Any, params: Any = None, **extras: Any
    ) -> tuple[Any, GraftState]:
        d, direction_state = direction.update(updates, state.direction, params, **extras)
        finite = jax.tree.map(
            lambda u: jnp.where(jnp.isfinite(u).all(), u, jnp.zeros_like(u)), updates
        )
        m, magnitude_state = magnitude.update(finite, state.magnitude, params, **extras)

        def one(d: jax.Array, m: jax.Array, over: tuple[int, ...] | None) -> jax.Array:
            if over is None:
                return m
            norm_d, norm_m = (_norm(x, over) for x in (d, m))
            at_norm = (
                d.astype(jnp.float32) * (norm_m / jnp.where(norm_d == 0, 1.0, norm_d))
            ).astype(d.dtype)
            return jnp.where(state.count < start_step, m, at_norm) if start_step else at_norm

        leaves, tree = jax.tree.flatten(d)
        over = [tuple(range(leaf.ndim)) for leaf in leaves] if axes is None else axes(updates)
        grafted = map(one, leaves, jax.tree.leaves(m), over)
        return tree.unflatten(grafted), GraftState(
            state.count + 1, direction_state, magnitude_state
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _norm(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The norm over these axes, in float32; with all of them, a scalar."""
    x = x.astype(jnp.float32)
    if len(axes) == x.ndim:
        return jnp.linalg.norm(x)
    return jnp.sqrt(jnp.sum(x * x, axes, keepdims=True))


def _each_to(norm: Callable[[jax.Array], Any]) -> optax.GradientTransformation:
    """Scales each tensor to the norm that `norm` gives for it; a zero tensor stays zero."""

    def one(u: jax.Array) -> jax.Array:
        length = jnp.linalg.norm(u.astype(jnp.float32))
        return (u.astype(jnp.float32) * (norm(u) / jnp.where(length == 0, 1.0, length))).astype(
            u.dtype
        )

    return optax.stateless(lambda updates, params: jax.tree.map(one, updates))


def magnitude_of(
    name: Magnitude, b1: Any = 0.9, b2: Any = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation | None:
    """The rule whose norm is grafted; None for "none".

    "sgd" has the norm of the gradient, "sqrt_n" the square root of the number of elements, as a
    sign update has; "adam", "rmsprop" (bias-corrected) and "adagrad" have the norms of those rules.
    "..._normalized" scales each gradient tensor to norm 1 first.

    Args:
      name: one of `Magnitude`.
      b1, b2, eps: settings of the rule, if it has them.

    Raises:
      ValueError: if `name` is unknown.
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
            f"unknown grafting magnitude {name!r}: use none, sqrt_n, or one of {', '.join(rules)}, "
            "alone or followed by _normalized."
        )
    rule = rules[base]()
    return optax.chain(_each_to(lambda u: 1.0), rule) if normalized else rule
