"""What some rules of optax need to keep the contract."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax


def keep_dtypes(rule: Any) -> optax.GradientTransformationExtraArgs:
    """`rule` with updates of the gradients' dtypes, and a state whose dtypes never change (a weakly typed number becomes a plain one)."""

    def strong(tree: Any, like: Any) -> Any:
        return jax.tree.map(lambda x, y: lax.convert_element_type(x, y.dtype), tree, like)

    def init(params: Any) -> Any:
        state = rule.init(params)
        return strong(state, state)

    def update(updates: Any, state: Any, params: Any = None, **extras: Any) -> tuple[Any, Any]:
        new, after = optax.with_extra_args_support(rule).update(updates, state, params, **extras)
        return strong(new, updates), strong(after, state)

    return optax.GradientTransformationExtraArgs(init, update)


def scalars_as_vectors(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """`rule`, which sees scalars as vectors of one element."""

    def seen(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(1) if x.ndim == 0 else x, tree)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        new, state = rule.update(seen(updates), state, None if params is None else seen(params))
        return jax.tree.map(lambda x, y: x.reshape(y.shape), new, updates), state

    return optax.GradientTransformation(lambda params: rule.init(seen(params)), update)


def skip_what_is_not_finite(rule: Any) -> optax.GradientTransformation:
    """`rule`, but where its update is not finite nothing moves, neither parameters nor state."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        new, after = rule.update(updates, state, params)
        finite = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(new)]).all()
        keep = jax.tree.map(
            lambda x, y: jnp.where(finite, x, y),
            (new, after),
            (jax.tree.map(jnp.zeros_like, new), state),
        )
        return keep

    return optax.GradientTransformation(rule.init, update)
