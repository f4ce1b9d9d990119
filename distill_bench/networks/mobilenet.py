"""MobileNetV3 with GroupNorm in place of batch normalisation.

Howard et al. 2019, *Searching for MobileNetV3*, arXiv:1905.02244: figures 3 and 4, table 1 (Large),
sections 5.2 and 5.3. Beyer et al. 2021, arXiv:2106.05237, section 3.5: GroupNorm with 8 groups.
`MobileNetConfig(K)` is MobileNetV3-Large with K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from distill_bench.networks import layers
from distill_bench.networks.layers import Dense, GroupNorm, Params, conv, depthwise_conv

Activation = Literal["relu", "hard_swish"]
_ACTIVATIONS = {"relu": jax.nn.relu, "hard_swish": jax.nn.hard_swish}


@dataclass(frozen=True)
class BottleneckConfig:
    """Shape of one bottleneck.

    Attributes:
      size: height and width of the depthwise kernel.
      expanded: channels between the two pointwise convolutions. If the input already has this many,
        the first pointwise convolution is left out.
      out: channels of the output.
      squeeze: whether squeeze-and-excite weights the expanded channels.
      activation: activation function of the expanded channels.
      stride: stride of the depthwise convolution.
    """

    size: int
    expanded: int
    out: int
    squeeze: bool
    activation: Activation
    stride: int


LARGE = (
    BottleneckConfig(3, 16, 16, False, "relu", 1),
    BottleneckConfig(3, 64, 24, False, "relu", 2),
    BottleneckConfig(3, 72, 24, False, "relu", 1),
    BottleneckConfig(5, 72, 40, True, "relu", 2),
    BottleneckConfig(5, 120, 40, True, "relu", 1),
    BottleneckConfig(5, 120, 40, True, "relu", 1),
    BottleneckConfig(3, 240, 80, False, "hard_swish", 2),
    BottleneckConfig(3, 200, 80, False, "hard_swish", 1),
    BottleneckConfig(3, 184, 80, False, "hard_swish", 1),
    BottleneckConfig(3, 184, 80, False, "hard_swish", 1),
    BottleneckConfig(3, 480, 112, True, "hard_swish", 1),
    BottleneckConfig(3, 672, 112, True, "hard_swish", 1),
    BottleneckConfig(5, 672, 160, True, "hard_swish", 2),
    BottleneckConfig(5, 960, 160, True, "hard_swish", 1),
    BottleneckConfig(5, 960, 160, True, "hard_swish", 1),
)
"""The bottlenecks of MobileNetV3-Large, table 1 of the paper."""


@dataclass(frozen=True)
class MobileNetConfig:
    """Shape of a MobileNetV3 network.

    Attributes:
      classes: number of logits.
      channels: channels of the input image.
      groups: number of groups in every GroupNorm; must divide every number of channels that is
        normalised.
      stem: channels of the first convolution, 3x3 with stride 2.
      rows: the bottlenecks, one for each row of the paper's table.
      features: number of channels that are averaged over the image.
      hidden: number of units between the averaged features and the logits.
    """

    classes: int
    channels: int = 3
    groups: int = 8
    stem: int = 16
    rows: tuple[BottleneckConfig, ...] = LARGE
    features: int = 960
    hidden: int = 1280


def squeezed(expanded: int) -> int:
    """Number of channels between the two layers of squeeze-and-excite.

    A quarter of `expanded`, rounded to the nearest multiple of 8, but at least 8 and at least 0.9
    times the quarter.
    """
    quarter = expanded // 4
    nearest = max(8, (quarter + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * quarter else nearest


class Conv(nnx.Module):
    """Convolution, ordinary or depthwise; without a bias by default."""

    def __init__(
        self,
        size: int,
        cin: int,
        cout: int,
        stride: int = 1,
        bias: bool = False,
        depthwise: bool = False,
    ):
        self.kernel = nnx.Param(jnp.zeros((size, size, 1 if depthwise else cin, cout)))
        self.bias = nnx.Param(jnp.zeros(cout)) if bias else None
        self.stride, self.padding, self.depthwise = stride, size // 2, depthwise

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        convolve = depthwise_conv if self.depthwise else conv
        y_NHWC = convolve(x_NHWC, self.kernel[...].astype(x_NHWC.dtype), self.stride, self.padding)
        if self.bias is None:
            return y_NHWC
        return y_NHWC + self.bias[...].astype(x_NHWC.dtype)[None, None, None]


class NormedConv(nnx.Module):
    """Convolution -> GroupNorm -> activation, if one is given."""

    def __init__(
        self,
        size: int,
        cin: int,
        cout: int,
        groups: int,
        activation: Activation | None,
        stride: int = 1,
        depthwise: bool = False,
    ):
        self.conv = Conv(size, cin, cout, stride, depthwise=depthwise)
        self.group_norm = GroupNorm(cout, groups)
        self.activation = activation

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        y_NHWC = self.group_norm(self.conv(x_NHWC))
        return y_NHWC if self.activation is None else _ACTIVATIONS[self.activation](y_NHWC)


class SqueezeExcite(nnx.Module):
    """Squeeze-and-excite (Hu et al. 2018) with a hard sigmoid.

    Weights each channel by a function of all channels' means over the image.
    """

    def __init__(self, channels: int):
        self.reduce = Conv(1, channels, squeezed(channels), bias=True)
        self.expand = Conv(1, squeezed(channels), channels, bias=True)

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        reduced_N11C = jax.nn.relu(self.reduce(_mean(x_NHWC).astype(x_NHWC.dtype)))
        return x_NHWC * jax.nn.hard_sigmoid(self.expand(reduced_N11C))


def _mean(x_NHWC: jax.Array) -> jax.Array:
    """Means over the image [N, 1, 1, C], float32."""
    return x_NHWC.astype(jnp.float32).mean((1, 2), keepdims=True)


class Bottleneck(nnx.Module):
    """Inverted residual: expansion, depthwise convolution, squeeze-and-excite, projection.

    The projection has no activation. The input is added if it has the output's shape.
    """

    def __init__(self, cin: int, row: BottleneckConfig, groups: int):
        self.expand = (
            NormedConv(1, cin, row.expanded, groups, row.activation)
            if row.expanded != cin
            else None
        )
        self.depthwise = NormedConv(
            row.size, row.expanded, row.expanded, groups, row.activation, row.stride, depthwise=True
        )
        self.squeeze_excite = SqueezeExcite(row.expanded) if row.squeeze else None
        self.project = NormedConv(1, row.expanded, row.out, groups, None)
        self.residual = row.stride == 1 and cin == row.out

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        y_NHWC = x_NHWC if self.expand is None else self.expand(x_NHWC)
        y_NHWC = self.depthwise(y_NHWC)
        if self.squeeze_excite is not None:
            y_NHWC = self.squeeze_excite(y_NHWC)
        y_NHWC = self.project(y_NHWC)
        return x_NHWC + y_NHWC if self.residual else y_NHWC


class MobileNet(nnx.Module):
    """Images [N, H, W, C] -> logits [N, classes], float32.

    A new instance has all-zero kernels; `init` draws them.
    """

    def __init__(self, config: MobileNetConfig):
        self.depth, self.remat = len(config.rows), False
        self.stem = NormedConv(
            3, config.channels, config.stem, config.groups, "hard_swish", stride=2
        )
        cin = config.stem
        for i, row in enumerate(config.rows):
            setattr(self, _name(i), Bottleneck(cin, row, config.groups))
            cin = row.out
        self.features = NormedConv(1, cin, config.features, config.groups, "hard_swish")
        # A convolution, as in table 1, so that its kernel is drawn like those of the others.
        self.hidden = Conv(1, config.features, config.hidden, bias=True)
        self.head = Dense(config.hidden, config.classes)

    def __call__(self, x_NHWC: jax.Array) -> jax.Array:
        x_NHWC = self.stem(x_NHWC)
        for i in range(self.depth):
            bottleneck = getattr(self, _name(i))
            x_NHWC = (
                jax.checkpoint(bottleneck.__call__)(x_NHWC) if self.remat else bottleneck(x_NHWC)
            )
        hidden_N11C = jax.nn.hard_swish(self.hidden(_mean(self.features(x_NHWC))))
        return self.head(hidden_N11C[:, 0, 0])


def _name(i: int) -> str:
    return f"bottleneck{i + 1:02d}"


def init(config: MobileNetConfig, key: jax.Array) -> Params:
    """Fresh parameters; see `layers.fresh`.

    The layers of squeeze-and-excite and the hidden layer count as 1x1 convolutions.
    """
    return layers.fresh(MobileNet(config), key)


def apply(
    config: MobileNetConfig, params: Params, images_NHWC: jax.Array, remat: bool = False
) -> jax.Array:
    """Logits [N, classes], float32. A pure function; use it under `jax.jit`.

    The network computes in the dtype of `images_NHWC` up to the features, then in float32.

    remat: the backward pass stores only the input of each bottleneck and recomputes its other
      activations (Chen et al. 2016, arXiv:1604.06174).
    """
    network = nnx.eval_shape(lambda: MobileNet(config))
    network.remat = remat
    return layers.call(network, params, images_NHWC)


def macs(config: MobileNetConfig, image_size: int) -> int:
    """Multiply-accumulates of one image's forward pass.

    Counts convolutions, the layers of squeeze-and-excite, and the head; no normalisation and no
    activation.
    """
    size = math.ceil(image_size / 2)
    total = size * size * 9 * config.channels * config.stem
    cin = config.stem
    for row in config.rows:
        if row.expanded != cin:
            total += size * size * cin * row.expanded
        size = math.ceil(size / row.stride)
        total += size * size * row.expanded * (row.size**2 + row.out)
        if row.squeeze:
            total += 2 * row.expanded * squeezed(row.expanded)
        cin = row.out
    total += size * size * cin * config.features
    return total + config.features * config.hidden + config.hidden * config.classes
