"""Cautious rules: those that move, or decay, only where signs agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from optimizers.contract.api import Schedule, optimizer
from optimizers.contract.domains import Decay, Log
from optimizers.masks import kernels
from optimizers.wrappers.precision import at_least_float32

_LEAST_SHARE = 1e-3  # of a tensor's elements that move; it bounds the factor for the rest


def cautious(rule: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`rule` without the elements of its direction whose sign is not that of the gradient.

    Per tensor, the other elements are multiplied by 1 / max(their share, 0.001). Liang et al. 2024
    (arXiv:2411.16085), in the variant of the authors' code; the paper divides by the share plus
    1 / (number of elements), and keeps elements that are 0.

    Args:
      rule: gradients -> direction, with the sign of gradients: no learning rate, no weight decay.
    """
    inner = optax.with_extra_args_support(rule)

    def masked(direction: jax.Array, g: jax.Array) -> jax.Array:
        if not direction.size:
            return direction
        agree = jnp.sign(direction) * jnp.sign(g) > 0  # a product of tiny numbers would be 0
        share = jnp.mean(agree, dtype=jnp.float32)
        scaled = direction / jnp.maximum(share, _LEAST_SHARE)
        return jnp.where(agree, scaled, 0).astype(direction.dtype)

    def update(updates: Any, state: Any, params: Any = None, **extras: Any) -> tuple[Any, Any]:
        directions, state = inner.update(updates, state, params, **extras)
        return jax.tree.map(masked, directions, updates), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def add_cautious_weight_decay(
    weight_decay: Any, mask: Callable[[Any], Any] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Weight decay for the parameters that the direction already moves towards 0.

    u <- u + weight_decay x where u x >= 0, element by element (Chen et al. 2025, arXiv:2510.12402,
    algorithm 1). It stands where `optax.add_decayed_weights` does: after the direction, before the
    learning rate.

    Args:
      weight_decay: the factor.
      mask: parameters -> tree of booleans, which tensors decay; None for all.

    Raises:
      ValueError: from `update`, if it is called without parameters.
    """

    def decayed(u: jax.Array, x: jax.Array) -> jax.Array:
        agree = jnp.sign(u) * jnp.sign(x) >= 0
        return (u + jnp.where(agree, weight_decay * x, 0)).astype(u.dtype)

    def update(updates: Any, state: Any, params: Any = None, **extras: Any) -> tuple[Any, Any]:
        del extras
        if params is None:
            raise ValueError("Cautious weight decay needs parameters: pass params to update().")
        return jax.tree.map(decayed, updates, params), state

    rule = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    return rule if mask is None else optax.masked(rule, mask)


@optimizer
def cautious_adamw(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """C-AdamW: AdamW that moves no parameter against its gradient's sign (Liang et al. 2024).

    arXiv:2411.16085. Weight decay is not masked.
    """
    return optax.chain(
        cautious(at_least_float32(optax.scale_by_adam(b1, b2))),
        optax.add_decayed_weights(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )


@optimizer
def cautious_decay_adamw(
    lr: Annotated[Schedule, Log(1e-2, 2e-1)] = 5e-2,
    *,
    b2: Annotated[float, Decay(0.9, 0.99)] = 0.95,
    b1: Annotated[float, Decay(0.7, 0.95)] = 0.9,
    weight_decay: Annotated[float, Log(1e-3, 2e-1)] = 1e-3,
) -> optax.GradientTransformation:
    """AdamW with cautious weight decay (Chen et al. 2025, arXiv:2510.12402).

    A kernel's element decays only while Adam moves it towards 0 too.
    """
    return optax.chain(
        at_least_float32(optax.scale_by_adam(b1, b2)),
        add_cautious_weight_decay(weight_decay, kernels),
        optax.scale_by_learning_rate(lr),
    )
