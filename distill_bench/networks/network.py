"""The networks that a student can have, behind one interface: init, apply, macs."""

from __future__ import annotations

import jax

from distill_bench.networks import bit, mobilenet
from distill_bench.networks.bit import BiTConfig
from distill_bench.networks.layers import Params
from distill_bench.networks.mobilenet import MobileNetConfig

NetworkConfig = BiTConfig | MobileNetConfig


def init(config: NetworkConfig, key: jax.Array) -> Params:
    """Fresh parameters."""
    if isinstance(config, MobileNetConfig):
        return mobilenet.init(config, key)
    return bit.init(config, key)


def apply(
    config: NetworkConfig, params: Params, images_NHWC: jax.Array, remat: bool = False
) -> jax.Array:
    """Logits [N, classes], float32. The network computes in the images' dtype.

    remat: recompute activations in the backward pass instead of storing them; see `bit.apply`.
    """
    if isinstance(config, MobileNetConfig):
        return mobilenet.apply(config, params, images_NHWC, remat=remat)
    return bit.apply(config, params, images_NHWC, remat=remat)


def patch_bytes(config: NetworkConfig, image_size: int) -> int:
    """Bytes of the largest patches that a convolution makes of one image, see `bit.patch_bytes`.

    0 for a MobileNet, which is never cut: all its convolutions but the first are 1x1 or depthwise.
    """
    if isinstance(config, MobileNetConfig):
        return 0
    return bit.patch_bytes(config, image_size)


def macs(config: NetworkConfig, image_size: int) -> int:
    """Multiply-accumulates of one image's forward pass."""
    if isinstance(config, MobileNetConfig):
        return mobilenet.macs(config, image_size)
    return bit.macs(config, image_size)
