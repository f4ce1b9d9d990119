"""Rules in float32 or wider, whatever the precision of the parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax


def refuse_complex(params: Any) -> None:
    """Raises a ValueError that names the way out if a parameter is complex."""
    if any(jnp.issubdtype(p.dtype, jnp.complexfloating) for p in jax.tree.leaves(params)):
        raise ValueError(
            "Complex parameters are not supported: wrap the optimizer in "
            "optax.contrib.split_real_and_imaginary."
        )


def at_least_float32(
    rule: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """`rule` with its state and arithmetic in float32 if parameters are narrower.

    Gradients and parameters in bfloat16 or float16 are widened, and updates are cast back. Those in
    float32 or float64 pass as they are. Complex parameters are refused.
    """
    inner = optax.with_extra_args_support(rule)

    def widened(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)

    def init(params: Any) -> Any:
        refuse_complex(params)
        return inner.init(widened(params))

    def update(updates: Any, state: Any, params: Any = None, **extras: Any) -> tuple[Any, Any]:
        at = None if params is None else widened(params)
        new, state = inner.update(widened(updates), state, at, **extras)
        return jax.tree.map(lambda u, g: u.astype(g.dtype), new, updates), state

    return optax.GradientTransformationExtraArgs(init, update)
