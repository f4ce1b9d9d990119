"""Gradient accumulation: the gradient of a batch, in the memory that a part of the batch needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# (parameters, batch of arrays [N, ...]) -> mean loss over its images
LossOf = Callable[[Any, Any], jax.Array]


def accumulated(loss_of: LossOf, parts: int) -> LossOf:
    """`loss_of`, computed as the mean over `parts` equal parts of the batch, one after another.

    Its gradient is computed in the same pass, part by part, so it must be taken in reverse mode.
    The loss of an image must not depend on the others; then the results differ only by rounding.

    Part j holds the images j, j + parts, j + 2 parts, ... If consecutive images lie on different
    devices, each device has its share of every part, and no image moves. `parts` must divide the
    batch, and each device's share of it.
    """
    if parts == 1:
        return loss_of

    def mean(function: Callable[[Any, Any], Any], params: Any, batch: Any) -> Any:
        cut = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]), batch)

        def part(j: jax.Array | int) -> Any:
            return function(
                params,
                jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, j, 1, keepdims=False), cut),
            )

        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(part, 0))
        total = lax.fori_loop(
            0, parts, lambda j, total: jax.tree.map(jnp.add, total, part(j)), zeros
        )
        return jax.tree.map(lambda x: x / parts, total)

    @jax.custom_vjp
    def loss(params: Any, batch: Any) -> jax.Array:
        return mean(loss_of, params, batch)

    def forward(params: Any, batch: Any) -> tuple[jax.Array, Any]:
        return mean(jax.value_and_grad(loss_of), params, batch)  # no activation outlives its part

    def backward(gradients: Any, cotangent: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(lambda g: cotangent * g, gradients), None

    loss.defvjp(forward, backward)
    return loss
