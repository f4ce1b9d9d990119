"""What the networks share: fast convolutions, GroupNorm, the classifier, init and apply."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

TRUNCATED_DEVIATION = 0.87962566103423978  # of a standard normal truncated at -2 and 2
_FEW = 4  # channels; images have three or one
Params = dict  # nested dict of arrays, keyed by module attribute


def _slices(
    x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int, padding: int
) -> list[jax.Array]:
    """For each position in the kernel, the pixels of the zero-padded images that it multiplies.

    A list of arrays [N, rows, columns, C], in the kernel's row-major order.
    """
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

    XLA:CPU runs a convolution about 30 times slower inside a loop than outside; a matrix product
    is equally fast in both.
    """
    out = kernel_HWIO.shape[-1]
    if x_NHWI.shape[-1] <= _FEW:
        patches = _patches_of_rows(x_NHWI, kernel_HWIO, stride, padding)
    else:
        slices = _slices(x_NHWI, kernel_HWIO, stride, padding)
        patches = slices[0] if len(slices) == 1 else jnp.concatenate(slices, axis=-1)
    flat = matrix_product(patches.reshape(-1, patches.shape[-1]), kernel_HWIO.reshape(-1, out))
    return flat.reshape(*patches.shape[:-1], out)


@jax.custom_jvp
def matrix_product(x_NI: jax.Array, kernel_IO: jax.Array) -> jax.Array:
    """`x_NI @ kernel_IO` for many rows, with a gradient that is fast on XLA:CPU.

    The kernel's gradient is a product over all rows, x^T g. XLA:CPU copies one of the two factors,
    number by number, before it multiplies them: the first, unless the product is written as g^T x.
    Here it copies the narrower one, which takes a half to a quarter of the time. For the student of
    `digits` the results are the same to the last digit.
    """
    return x_NI @ kernel_IO


@matrix_product.defjvp
def _(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x_NI, kernel_IO), (dx_NI, dkernel_IO) = primals, tangents
    if x_NI.shape[1] > kernel_IO.shape[1]:
        # Without a barrier in between, XLA swaps the factors back to spare the transposition.
        dkernel_IO = lax.optimization_barrier(dkernel_IO.T).T
    return x_NI @ kernel_IO, dx_NI @ kernel_IO + x_NI @ dkernel_IO


def _patches_of_rows(
    x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int, padding: int
) -> jax.Array:
    """The patches that `_slices` would give, side by side: [N, rows, columns, kernel's H * W * C].

    One row of a patch is copied at once, not one pixel. With one channel, that makes the patches of
    a 7x7 kernel on 28x28 images in a quarter of the time; with many, a pixel is long enough.
    """
    kh, kw = kernel_HWIO.shape[:2]
    n, height, width, channels = x_NHWC.shape
    rows = (height + 2 * padding - kh) // stride + 1
    cols = (width + 2 * padding - kw) // stride + 1
    x_NHWC = jnp.pad(x_NHWC, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    lines = [
        x_NHWC[:, i : i + (rows - 1) * stride + 1 : stride].reshape(n, rows, -1) for i in range(kh)
    ]
    bands = jnp.stack(lines, axis=2)
    windows = [
        bands[..., start : start + kw * channels]
        for start in range(0, cols * stride * channels, stride * channels)
    ]
    return jnp.stack(windows, axis=2).reshape(n, rows, cols, -1)


def shifted_conv(x_NHWC: jax.Array, kernel_HW1C: jax.Array, stride: int, padding: int) -> jax.Array:
    """Depthwise convolution as a sum of shifted slices times kernel weights, summed in float32.

    In a loop on XLA:CPU, its gradient takes about a hundredth of the time of
    `lax.conv_general_dilated`'s (8 images of 8x8x120, 5x5 kernel: 1.6 against 148 ms).
    """
    weights = kernel_HW1C.astype(jnp.float32).reshape(-1, 1, 1, 1, kernel_HW1C.shape[-1])
    slices = _slices(x_NHWC.astype(jnp.float32), kernel_HW1C, stride, padding)
    rest = (x * weight for x, weight in zip(slices[1:], weights[1:], strict=True))
    return sum(rest, slices[0] * weights[0]).astype(x_NHWC.dtype)


def xla_conv(x_NHWC: jax.Array, kernel_HWIO: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolution by XLA's own operation; the kernel's I axis determines the number of groups."""
    return lax.conv_general_dilated(
        x_NHWC,
        kernel_HWIO,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x_NHWC.shape[-1] // kernel_HWIO.shape[2],
    )


def conv(x_NHWI: jax.Array, kernel_HWIO: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """2-D convolution (cross-correlation), by the platform's fastest method.

    padding: number of zero pixels added on each side.
    """
    if jax.default_backend() == "cpu":
        return patches_conv(x_NHWI, kernel_HWIO, stride, padding)
    return xla_conv(x_NHWI, kernel_HWIO, stride, padding)


def depthwise_conv(
    x_NHWC: jax.Array, kernel_HW1C: jax.Array, stride: int = 1, padding: int = 0
) -> jax.Array:
    """2-D convolution of each channel with its own kernel, by the platform's fastest method.

    padding: number of zero pixels added on each side.
    """
    if jax.default_backend() == "cpu":
        return shifted_conv(x_NHWC, kernel_HW1C, stride, padding)
    return xla_conv(x_NHWC, kernel_HW1C, stride, padding)


def max_pool(x_NHWC: jax.Array, size: int, stride: int) -> jax.Array:
    """The largest value of each square window, by the platform's fastest method; no padding.

    Where several values are the largest, the gradient goes to the first of them, row by row.
    """
    if jax.default_backend() == "cpu":
        return sliced_max_pool(x_NHWC, size, stride)
    return xla_max_pool(x_NHWC, size, stride)


def sliced_max_pool(x_NHWC: jax.Array, size: int, stride: int) -> jax.Array:
    """Max-pool by comparing shifted slices, first along rows, then along columns.

    On XLA:CPU, the student of `fashion` then takes 6 ms less of 42 for a step than with
    `lax.reduce_window`, whose gradient is slow there.
    """

    def pooled(x: jax.Array, axis: int) -> jax.Array:
        span = (x.shape[axis] - size) // stride * stride + 1
        best, *others = (
            lax.slice_in_dim(x, start, start + span, stride, axis) for start in range(size)
        )
        for other in others:
            best = jnp.where(other > best, other, best)
        return best

    return pooled(pooled(x_NHWC, 2), 1)


def xla_max_pool(x_NHWC: jax.Array, size: int, stride: int) -> jax.Array:
    """Max-pool by XLA's own operation."""
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x_NHWC, -jnp.inf, lax.max, window, strides, "VALID")


class GroupNorm(nnx.Module):
    """Group normalisation (Wu & He 2018), eps 1e-5, as one affine map per image and channel.

    It sums over each channel, then over each group by a small matrix product, then computes
    x * a + b. On one CPU core, the digits student's gradient takes 5.7 ms this way, and 8.0 ms if
    the groups are summed by reshaping.
    """

    def __init__(self, channels: int, groups: int):
        if channels % groups:
            raise ValueError(
                f"GroupNorm cannot split {channels} channels into {groups} groups of equal size: "
                "choose a number of groups that divides the channels."
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
    """The classifier. Its kernel starts at zero."""

    def __init__(self, cin: int, cout: int):
        self.kernel = nnx.Param(jnp.zeros((cin, cout)))
        self.bias = nnx.Param(jnp.zeros(cout))

    def __call__(self, x_NC: jax.Array) -> jax.Array:
        return x_NC @ self.kernel[...] + self.bias[...][None]


def fresh(network: nnx.Module, key: jax.Array) -> Params:
    """Fresh parameters: convolution kernels are random, all others as the modules define them.

    A kernel is drawn as in the paper's code, by flax's default (LeCun et al. 1998): normal with
    standard deviation sqrt(1 / fan-in), after truncation at two standard deviations of the normal
    that is truncated. The fan-in of a grouped convolution is that of one group. All kernels are cut
    from one draw, which compiles much faster than one draw each.
    """
    params = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    leaves, tree = jax.tree.flatten(params)
    kernels = [i for i, leaf in enumerate(leaves) if leaf.ndim == 4]
    shape = (sum(leaves[i].size for i in kernels),)
    draw = jax.random.truncated_normal(key, -2.0, 2.0, shape) / TRUNCATED_DEVIATION
    start = 0
    for i in kernels:
        shape, size = leaves[i].shape, leaves[i].size
        leaves[i] = math.sqrt(1 / math.prod(shape[:-1])) * draw[start : start + size].reshape(shape)
        start += size
    return jax.tree.unflatten(tree, leaves)


def call(network: nnx.Module, params: Params, images_NHWC: jax.Array) -> jax.Array:
    """The network's output for `images_NHWC` with `params`; `network` may be abstract."""
    graph, state = nnx.split(network, nnx.Param)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)(images_NHWC)
