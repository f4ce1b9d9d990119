"""The networks that a student can be: one way to make, apply and count each."""

from __future__ import annotations

import jax

from distill_bench.networks import bit, mobilenet
from distill_bench.networks.bit import BiTConfig
from distill_bench.networks.layers import Params
from distill_bench.networks.mobilenet import MobileNetConfig

NetworkConfig = BiTConfig | MobileNetConfig


def init(config: NetworkConfig, key: jax.Array) -> Params:
    """Fresh parameters."""
    return (
        mobilenet.init(config, key)
        if isinstance(config, MobileNetConfig)
        else bit.init(config, key)
    )


def apply(
    config: NetworkConfig, params: Params, images_NHWC: jax.Array, remat: bool = False
) -> jax.Array:
    """Logits [N, classes], float32, of `images_NHWC`, in whose precision the network computes; remat: see bit.apply."""
    if isinstance(config, MobileNetConfig):
        return mobilenet.apply(config, params, images_NHWC, remat=remat)
    return bit.apply(config, params, images_NHWC, remat=remat)


def macs(config: NetworkConfig, image_size: int) -> int:
    """Multiply-accumulates of one image's forward pass."""
    return (
        mobilenet.macs(config, image_size)
        if isinstance(config, MobileNetConfig)
        else bit.macs(config, image_size)
    )
