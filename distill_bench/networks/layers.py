"""What the networks share: convolutions in the platform's fastest form, GroupNorm, the classifier, and pure functions of NNX modules."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

Params = dict  # nested dict of arrays, keyed by module attribute


def _slices(
    x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int, padding: int
) -> list[jax.Array]:
    """What each place of the kernel meets of the zero-padded images: arrays [N, rows, columns, C], in the order of the kernel's places."""
    kh, kw = kernel_HWIO.shape[:2]
    _, height, width, _ = x_NHWC.shape
    rows = (height + 2 * padding - kh) // stride + 1
    cols = (width + 2 * padding - kw) // stride + 1
    x_NHWC = jnp.pad(x_NHWC, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return [
        x_NHWC[
            :, i : i + (rows - 1) * stride + 1 : stride, j : j + (cols - 1) * stride + 1 : stride
        ]
        for i in range(kh)
        for j in range(kw)
    ]


def patches_conv(x_NHWI: jax.Array, kernel_HWIO: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolution as one matrix product over shifted slices.

    XLA:CPU runs a convolution inside a loop about 30 times slower than outside of one; a matrix product
    has no such cliff.
    """
    out = kernel_HWIO.shape[-1]
    slices = _slices(x_NHWI, kernel_HWIO, stride, padding)
    patches = slices[0] if len(slices) == 1 else jnp.concatenate(slices, axis=-1)
    flat = patches.reshape(-1, patches.shape[-1]) @ kernel_HWIO.reshape(-1, out)
    return flat.reshape(*patches.shape[:-1], out)


def shifted_conv(x_NHWC: jax.Array, kernel_HW1C: jax.Array, stride: int, padding: int) -> jax.Array:
    """Depthwise convolution as the sum of shifted slices, each times its place in the kernel; summed in float32.

    In a loop on XLA:CPU, a gradient takes a hundredth of the time of `lax.conv_general_dilated`'s (8 images of 8x8x120, 5x5: 1.6 and 148 ms).
    """
    places = kernel_HW1C.astype(jnp.float32).reshape(-1, 1, 1, 1, kernel_HW1C.shape[-1])
    slices = _slices(x_NHWC.astype(jnp.float32), kernel_HW1C, stride, padding)
    return sum(
        (x * place for x, place in zip(slices[1:], places[1:], strict=True)), slices[0] * places[0]
    ).astype(x_NHWC.dtype)


def xla_conv(x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolution, in as many groups as the kernel's I wants, by XLA's own operation."""
    return lax.conv_general_dilated(
        x_NHWC,
        kernel_HWIO,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x_NHWC.shape[-1] // kernel_HWIO.shape[2],
    )


def conv(x_NHWI: jax.Array, kernel_HWIO: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """2-D convolution (cross-correlation), zero-padded by `padding` on each side, in the platform's fastest form."""
    if jax.default_backend() == "cpu":
        return patches_conv(x_NHWI, kernel_HWIO, stride, padding)
    return xla_conv(x_NHWI, kernel_HWIO, stride, padding)


def depthwise_conv(
    x_NHWC: jax.Array, kernel_HW1C: jax.Array, stride: int = 1, padding: int = 0
) -> jax.Array:
    """2-D convolution of each channel with a kernel of its own, zero-padded by `padding` on each side, in the platform's fastest form."""
    if jax.default_backend() == "cpu":
        return shifted_conv(x_NHWC, kernel_HW1C, stride, padding)
    return xla_conv(x_NHWC, kernel_HW1C, stride, padding)


class GroupNorm(nnx.Module):
    """Group normalisation (Wu & He 2018), eps 1e-5, written as one affine map per image and channel.

    Sums per channel, then per group by a small matrix product, then x * a + b. On one CPU core the digits student's
    gradient takes 5.7 ms so, and 8.0 ms with the groups summed by reshaping.
    """

    def __init__(self, channels: int, groups: int):
        if channels % groups:
            raise ValueError(
                f"GroupNorm cannot split {channels} channels into {groups} groups: choose groups that divide them."
            )
        self.gamma = nnx.Param(jnp.ones(channels))
        self.beta = nnx.Param(jnp.zeros(channels))
        self.groups = groups

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        n, height, width, channels = x_NHWC.shape
        x_NPC = x_NHWC.reshape(n, height * width, channels).astype(jnp.float32)
        size = channels // self.groups
        member_CG = jnp.asarray(
            np.arange(channels)[:, None] // size == np.arange(self.groups), jnp.float32
        )
        count = height * width * size
        mean_NG = x_NPC.sum(1) @ member_CG / count
        square_NG = (x_NPC * x_NPC).sum(1) @ member_CG / count
        inverse_NG = lax.rsqrt(jnp.maximum(square_NG - mean_NG * mean_NG, 0.0) + 1e-5)
        a_NC = inverse_NG @ member_CG.T * self.gamma[...][None]
        b_NC = self.beta[...][None] - (mean_NG @ member_CG.T) * a_NC
        return (x_NPC * a_NC[:, None] + b_NC[:, None]).astype(x_NHWC.dtype).reshape(x_NHWC.shape)


class Dense(nnx.Module):
    """The classifier; its kernel starts at zero."""

    def __init__(self, cin: int, cout: int):
        self.kernel = nnx.Param(jnp.zeros((cin, cout)))
        self.bias = nnx.Param(jnp.zeros(cout))

    def __call__(self, x_NC: jax.Array) -> jax.Array:
        return x_NC @ self.kernel[...] + self.bias[...][None]


def fresh(network: nnx.Module, key: jax.Array) -> Params:
    """Fresh parameters: kernels of convolutions He-normal (std sqrt(2 / fan-in), a group's own for grouped ones), the others as the modules have them.

    All kernels are cut from one draw of normals, which compiles much faster than a draw for each.
    """
    params = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    leaves, tree = jax.tree.flatten(params)
    kernels = [i for i, leaf in enumerate(leaves) if leaf.ndim == 4]
    draw = jax.random.normal(key, (sum(leaves[i].size for i in kernels),))
    start = 0
    for i in kernels:
        shape, size = leaves[i].shape, leaves[i].size
        leaves[i] = math.sqrt(2 / math.prod(shape[:-1])) * draw[start : start + size].reshape(shape)
        start += size
    return jax.tree.unflatten(tree, leaves)


def call(network: nnx.Module, params: Params, images_NHWC: jax.Array) -> jax.Array:
    """What the network, which may be abstract, says of `images_NHWC` with these parameters."""
    graph, state = nnx.split(network, nnx.Param)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)(images_NHWC)
