"""The networks that a student can be: one way to make, apply and count each."""

from __future__ import annotations

import jax

from distill_bench import bit
from distill_bench.bit import BiTConfig, Params

NetworkConfig = BiTConfig


def init(config: NetworkConfig, key: jax.Array) -> Params:
    """Fresh parameters."""
    return bit.init(config, key)


def apply(config: NetworkConfig, params: Params, images_NHWC: jax.Array, remat: bool = False) -> jax.Array:
    """Logits [N, classes], float32, of `images_NHWC`, in whose precision the network computes; remat: see bit.apply."""
    return bit.apply(config, params, images_NHWC, remat=remat)


def macs(config: NetworkConfig, image_size: int) -> int:
    """Multiply-accumulates of one image's forward pass."""
    return bit.macs(config, image_size)
