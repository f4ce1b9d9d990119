"""Batches cut into parts: gradients in the memory of a part, activations that stay in the cache.

Part j of a batch holds the images j, j + parts, j + 2 parts, ... If consecutive images lie on
different devices, each device has its share of every part, and no image moves. So the number of
parts must divide the batch, and each device's share of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from distill_bench.networks import network
from distill_bench.networks.network import NetworkConfig
from distill_bench.training.lane_layout import BATCH, LaneLayout

# The second-level cache of many CPU cores, in bytes. On one with 2 MiB, the teacher of `fashion`
# takes 84 ms for 128 images by parts that fit, and 157 ms at once; its student's gradient 22
# instead of 33 ms. The student of `digits` fits as a whole.
CACHE = 2 * 2**20

# (parameters, batch of arrays [N, ...]) -> mean loss over its images
LossOf = Callable[[Any, Any], jax.Array]


def fitting(
    layout: LaneLayout, config: NetworkConfig, image_size: int, images: int, least: int = 1
) -> int:
    """In how many parts a network computes fastest on a batch of `images` images.

    On a CPU, the fewest whose largest array, the patches of a convolution, fits into CACHE; 1
    elsewhere, or if those of a single image do not fit. But not fewer than `least`.
    """
    if layout.mesh.devices.flat[0].platform != "cpu":
        return least
    share = images // layout.mesh.shape[BATCH]
    size = network.patch_bytes(config, image_size)
    parts = (n for n in range(1, share + 1) if share % n == 0 and share // n * size <= CACHE)
    return max(least, next(parts, 1))


def _cut(x: jax.Array, parts: int) -> jax.Array:
    """[N, ...] -> [N / parts, parts, ...]."""
    return x.reshape(-1, parts, *x.shape[1:])


def in_parts(function: Callable[[jax.Array], jax.Array], parts: int) -> Callable:
    """`function`, which maps images [N, ...] to rows [N, ...], computed part by part.

    A row must not depend on other images.
    """
    if parts == 1:
        return function

    def joined(x: jax.Array) -> jax.Array:
        rows = lax.map(function, jnp.moveaxis(_cut(x, parts), 1, 0))
        return jnp.moveaxis(rows, 0, 1).reshape(len(x), *rows.shape[2:])

    return joined


def accumulated(loss_of: LossOf, parts: int) -> LossOf:
    """`loss_of`, computed as the mean over equal parts of the batch, one after another.

    Its gradient by the parameters is computed in the same pass, part by part, so that no activation
    outlives its part. The loss of an image must not depend on the others; then the results differ
    only by rounding.
    """
    if parts == 1:
        return loss_of

    def mean(function: Callable[[Any, Any], Any], params: Any, batch: Any) -> Any:
        cut = jax.tree.map(lambda x: _cut(x, parts), batch)

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

    @jax.custom_jvp
    def loss(params: Any, batch: Any) -> jax.Array:
        return mean(loss_of, params, batch)

    @loss.defjvp
    def _(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
        value, gradients = mean(jax.value_and_grad(loss_of), *primals)
        products = jax.tree.map(jnp.vdot, gradients, tangents[0])
        return value, jax.tree.reduce(jnp.add, products)

    return loss
