"""BiT ResNet-V2: bottleneck units with GroupNorm, weight standardisation and pre-activation.

Kolesnikov et al. 2020, *Big Transfer*, arXiv:1912.11370. One class covers every BiT network here:
the digits teacher and student have few channels and a small root, R50x1 is
`BiTConfig((3, 4, 6, 3), width=64, classes=K)`, and R152x2 is
`BiTConfig((3, 8, 36, 3), width=128, classes=K)`.

Module attributes have the names of the published weights, so that a parameter's path *is* its key
in the file (see weights/formats.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from distill_bench.networks import layers
from distill_bench.networks.layers import Dense, GroupNorm, Params, conv, max_pool

EXPANSION = 4  # a unit's output channels divided by its middle channels
REST = "rest"  # frozen parameters of a block's equal units, stacked; see `freeze`


@dataclass(frozen=True)
class BiTConfig:
    """Shape of a BiT network.

    Attributes:
      depths: number of units in each block. Every block except the first halves the resolution
        and doubles the width.
      width: middle channels of the first block's units (64 times BiT's width factor).
      classes: number of logits.
      channels: channels of the input image.
      groups: number of groups in every GroupNorm; must divide `width`.
      root: "imagenet" is a 7x7/2 convolution and a 3x3/2 max-pool; "small" is a 3x3/2 convolution.
      pool_padding: value with which the root's max-pool pads the border: "zero" (Big Transfer) or
        "inf" (minus infinity, big_vision). Use the one with which the weights were trained.
    """

    depths: tuple[int, ...]
    width: int
    classes: int
    channels: int = 3
    groups: int = 32
    root: Literal["imagenet", "small"] = "imagenet"
    pool_padding: Literal["zero", "inf"] = "zero"


def standardize(kernel_HWIO: jax.Array) -> jax.Array:
    """Weight standardisation: each output channel gets zero mean and unit variance over H, W, I.

    The variance is the biased one, plus 1e-10.
    """
    flat = kernel_HWIO.reshape(-1, kernel_HWIO.shape[-1])
    # Means as matrix products: XLA:CPU's reduction over rows costs several times as much.
    average = jnp.full((1, flat.shape[0]), 1 / flat.shape[0], flat.dtype)
    centred = flat - average @ flat
    variance = average @ (centred * centred)
    return (centred * lax.rsqrt(variance + 1e-10)).reshape(kernel_HWIO.shape)


class StdConv(nnx.Module):
    """Convolution without bias. Its kernel is standardised at each use, unless it is frozen."""

    def __init__(self, size: int, cin: int, cout: int, stride: int = 1):
        self.kernel = nnx.Param(jnp.zeros((size, size, cin, cout)))
        self.stride, self.padding = stride, size // 2
        self.frozen = False

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        kernel = self.kernel[...] if self.frozen else standardize(self.kernel[...])
        return conv(x_NHWC, kernel.astype(x_NHWC.dtype), self.stride, self.padding)


class Projection(nnx.Module):
    """The shortcut of a block's first unit: a strided 1x1 convolution."""

    def __init__(self, cin: int, cout: int, stride: int):
        self.standardized_conv2d = StdConv(1, cin, cout, stride)

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        return self.standardized_conv2d(x_NHWC)


class Stage(nnx.Module):
    """GroupNorm -> ReLU -> standardised convolution. `pre` returns the convolution's input."""

    def __init__(
        self,
        size: int,
        cin: int,
        cout: int,
        groups: int,
        stride: int = 1,
        proj: Projection | None = None,
    ):
        self.group_norm = GroupNorm(cin, groups)
        self.standardized_conv2d = StdConv(size, cin, cout, stride)
        self.proj = proj  # part of this stage, not of the unit, as in the published keys

    def pre(self, x_NHWC: jax.Array) -> jax.Array:
        return jax.nn.relu(self.group_norm(x_NHWC))

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        return self.standardized_conv2d(self.pre(x_NHWC))


class Unit(nnx.Module):
    """Pre-activation bottleneck: 1x1 (a), 3x3 with the stride (b), 1x1 (c), plus the shortcut.

    In a block's first unit, the shortcut is a projection of what the first GroupNorm and ReLU give.
    """

    def __init__(self, cin: int, middle: int, groups: int, stride: int, project: bool):
        proj = Projection(cin, EXPANSION * middle, stride) if project else None
        self.a = Stage(1, cin, middle, groups, proj=proj)
        self.b = Stage(3, middle, middle, groups, stride)
        self.c = Stage(1, middle, EXPANSION * middle, groups)

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        pre = self.a.pre(x_NHWC)
        shortcut = self.a.proj(pre) if self.a.proj is not None else x_NHWC
        return shortcut + self.c(self.b(self.a.standardized_conv2d(pre)))


class Root(nnx.Module):
    """From the image to the first features; see `BiTConfig.root`."""

    def __init__(self, config: BiTConfig):
        size = 7 if config.root == "imagenet" else 3
        self.standardized_conv2d = StdConv(size, config.channels, config.width, 2)
        self.pool = config.root == "imagenet"
        self.pad_value = 0.0 if config.pool_padding == "zero" else -jnp.inf

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        x_NHWC = self.standardized_conv2d(x_NHWC)
        if not self.pool:
            return x_NHWC
        border = ((0, 0), (1, 1), (1, 1), (0, 0))
        x_NHWC = jnp.pad(x_NHWC, border, constant_values=self.pad_value)
        return max_pool(x_NHWC, 3, 2)


class Head(nnx.Module):
    def __init__(self, cin: int, cout: int):
        self.conv2d = Dense(cin, cout)


def _name(u: int) -> str:
    """The key of a block's unit `u`, counted from 0."""
    return f"unit{u + 1:02d}"


def _is_stacked(depth: int) -> bool:
    """Whether frozen parameters hold all units after a block's first in one stack."""
    return depth > 2


def _apply_in_turn(unit: Unit, x_NHWC: jax.Array) -> jax.Array:
    """Applies one unit after another; `unit` holds the parameters of all, stacked."""
    graph, params = nnx.split(unit, nnx.Param)
    return lax.scan(lambda x, own: (nnx.merge(graph, own)(x), None), x_NHWC, params)[0]


class BiT(nnx.Module):
    """Images [N, H, W, C] -> logits [N, classes], float32.

    A new instance has all-zero kernels; `init` draws them.

    frozen: take parameters from `freeze`.
    """

    def __init__(self, config: BiTConfig, frozen: bool = False):
        self.config, self.remat = config, False
        self.root_block = Root(config)
        cin = config.width
        for b, depth in enumerate(config.depths):
            middle = config.width * 2**b
            block = nnx.Module()
            stacked = frozen and _is_stacked(depth)
            for u in range(2 if stacked else depth):
                stride = 2 if b > 0 and u == 0 else 1
                unit = Unit(cin, middle, config.groups, stride, project=u == 0)
                setattr(block, REST if stacked and u else _name(u), unit)
                cin = EXPANSION * middle
            setattr(self, f"block{b + 1}", block)
        self.group_norm = GroupNorm(cin, config.groups)
        self.head = Head(cin, config.classes)

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        x_NHWC = self.root_block(x_NHWC)
        for b, depth in enumerate(self.config.depths):
            block = getattr(self, f"block{b + 1}")
            if hasattr(block, REST):
                x_NHWC = _apply_in_turn(getattr(block, REST), getattr(block, _name(0))(x_NHWC))
                continue
            for u in range(depth):
                unit = getattr(block, _name(u))
                x_NHWC = jax.checkpoint(unit.__call__)(x_NHWC) if self.remat else unit(x_NHWC)
        features_NC = jax.nn.relu(self.group_norm(x_NHWC)).astype(jnp.float32).mean((1, 2))
        return self.head.conv2d(features_NC)


def init(config: BiTConfig, key: jax.Array) -> Params:
    """Fresh parameters; see `layers.fresh`."""
    return layers.fresh(BiT(config), key)


def freeze(params: Params, dtype: str = "float32") -> Params:
    """Standardises all kernels once, for parameters that will not change.

    Use the result with `apply(..., frozen=True)`. In a block of three or more units, those after
    the first have equal shapes; their parameters are stacked under the key REST. So a network of
    50 units compiles as 8: each block's first unit, and a loop over the others.

    dtype: dtype of the convolutions' kernels; the one in which the network will compute.
    """

    def frozen(part: Params) -> Params:
        return jax.tree.map(
            lambda leaf: standardize(leaf).astype(dtype) if leaf.ndim == 4 else leaf, part
        )

    def frozen_block(units: Params) -> Params:
        if not _is_stacked(len(units)):
            return frozen(units)
        rest = [units[_name(u)] for u in range(1, len(units))]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rest)
        return {_name(0): frozen(units[_name(0)]), REST: lax.map(frozen, stacked)}

    return {
        name: frozen_block(part) if name.startswith("block") else frozen(part)
        for name, part in params.items()
    }


def apply(
    config: BiTConfig,
    params: Params,
    images_NHWC: jax.Array,
    frozen: bool = False,
    remat: bool = False,
) -> jax.Array:
    """Logits [N, classes], float32. A pure function; use it under `jax.jit`.

    The network computes in the dtype of `images_NHWC`.

    Args:
      frozen: `params` come from `freeze`.
      remat: the backward pass stores only the input of each unit and recomputes the unit's other
        activations (Chen et al. 2016, arXiv:1604.06174).
    """
    network = nnx.eval_shape(lambda: BiT(config, frozen))
    network.remat = remat
    for _, module in nnx.iter_modules(network):
        if isinstance(module, StdConv):
            module.frozen = frozen
    return layers.call(network, params, images_NHWC)


def products(config: BiTConfig, image_size: int) -> Iterator[tuple[int, int, int]]:
    """(rows, width, columns) of each matrix product of one image's forward pass.

    A convolution multiplies its patches [rows, width] by its kernel [width, columns]. No
    normalisation is counted.
    """
    size = math.ceil(image_size / 2)
    kernel = 7 if config.root == "imagenet" else 3
    yield size * size, kernel * kernel * config.channels, config.width
    size = math.ceil(size / 2) if config.root == "imagenet" else size
    cin = config.width
    for b, depth in enumerate(config.depths):
        middle = config.width * 2**b
        for u in range(depth):
            before = size
            size = math.ceil(size / 2) if b > 0 and u == 0 else size
            yield before * before, cin, middle
            yield size * size, 9 * middle, middle
            yield size * size, middle, EXPANSION * middle
            if u == 0:
                yield size * size, cin, EXPANSION * middle
            cin = EXPANSION * middle
    yield 1, cin, config.classes


def macs(config: BiTConfig, image_size: int) -> int:
    """Multiply-accumulates of one image's forward pass: convolutions and head, no normalisation."""
    return sum(math.prod(product) for product in products(config, image_size))


def patch_bytes(config: BiTConfig, image_size: int) -> int:
    """Bytes of the largest patches of one image, in float32; see `layers.patches_conv`."""
    return max(4 * rows * width for rows, width, _ in products(config, image_size))
