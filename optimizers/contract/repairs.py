"""Wrappers for those rules of optax that do not fit the contract as they are (see api.py)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from optax import contrib


def keep_dtypes(rule: Any) -> optax.GradientTransformationExtraArgs:
    """`rule` with updates in the gradients' dtypes and a state whose dtypes never change.

    A weakly typed number in the state becomes a plain array.
    """

    def cast(tree: Any, like: Any) -> Any:
        return jax.tree.map(lambda x, y: lax.convert_element_type(x, y.dtype), tree, like)

    def init(params: Any) -> Any:
        state = rule.init(params)
        return cast(state, state)

    def update(updates: Any, state: Any, params: Any = None, **extras: Any) -> tuple[Any, Any]:
        new, after = optax.with_extra_args_support(rule).update(updates, state, params, **extras)
        return cast(new, updates), cast(after, state)

    return optax.GradientTransformationExtraArgs(init, update)


def with_own_buffers(rule: Any) -> optax.GradientTransformationExtraArgs:
    """`rule`, whose fresh state shares no buffer with the parameters or within itself.

    So both can be donated.
    """

    def init(params: Any) -> Any:
        seen = {id(leaf) for leaf in jax.tree.leaves(params)}

        def own(x: Any) -> Any:
            if not isinstance(x, jax.Array):
                return x
            copied = jnp.copy(x) if id(x) in seen else x
            seen.add(id(copied))
            return copied

        return jax.tree.map(own, rule.init(params))

    return optax.GradientTransformationExtraArgs(init, optax.with_extra_args_support(rule).update)


def scalars_as_vectors(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """`rule`, which is given each scalar as a vector of one element."""

    def vectors(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(1) if x.ndim == 0 else x, tree)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        at = None if params is None else vectors(params)
        new, state = rule.update(vectors(updates), state, at)
        return jax.tree.map(lambda x, y: x.reshape(y.shape), new, updates), state

    return optax.GradientTransformation(lambda params: rule.init(vectors(params)), update)


def skip_non_finite_updates(rule: Any) -> optax.GradientTransformation:
    """`rule`, but if its update has NaN or infinity, parameters and state stay as they are."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        new, after = rule.update(updates, state, params)
        finite = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(new)]).all()
        kept = jax.tree.map(
            lambda x, y: jnp.where(finite, x, y),
            (new, after),
            (jax.tree.map(jnp.zeros_like, new), state),
        )
        return kept

    return optax.GradientTransformation(rule.init, update)


def schedule_free_eval_params(state: Any, params: Any) -> Any:
    """The averaged parameters of Schedule-Free, or `params` if `state` holds no such average."""

    def is_free(x: Any) -> bool:
        return isinstance(x, contrib.ScheduleFreeState)

    for found in filter(is_free, jax.tree.leaves(state, is_leaf=is_free)):
        return contrib.schedule_free_eval_params(found, params)
    return params
