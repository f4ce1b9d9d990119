"""MobileNetV3: published sizes, and the forward pass against a float64 reference."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_bench.networks import layers, mobilenet, network
from distill_bench.networks.mobilenet import BottleneckConfig, MobileNetConfig
from test_bit import conv64

TINY = MobileNetConfig(
    classes=5,
    channels=2,
    groups=4,
    stem=8,
    rows=(
        BottleneckConfig(3, 8, 8, False, "relu", 1),
        BottleneckConfig(5, 40, 12, True, "relu", 2),
        BottleneckConfig(5, 48, 12, True, "hard_swish", 1),
        BottleneckConfig(3, 24, 16, False, "hard_swish", 2),
    ),
    features=32,
    hidden=24,
)
SMALL = dataclasses.replace(  # compiles quickly
    TINY, channels=1, classes=10, rows=(BottleneckConfig(3, 8, 8, True, "hard_swish", 1),)
)


def random_params(config, seed):
    params = mobilenet.init(config, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32), params
    )


def test_mobilenetv3_large_has_the_published_size():
    """The number of parameters is torchvision's; multiply-accumulates are Keras' and the paper's.

    For convolutions, squeeze-and-excite and head, Keras states 217 M; the paper states 219 M.
    """
    large = MobileNetConfig(1000)
    shapes = jax.eval_shape(lambda: network.init(large, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 5_483_032
    assert network.macs(large, 224) / 1e6 == pytest.approx(217, rel=5e-3)
    # The paper does not say what it counts. Biases, the weighting of channels and the means over
    # the image make up the difference.
    assert network.macs(large, 224) / 1e6 == pytest.approx(219, rel=0.0125)


def test_the_squeezed_widths_are_the_published_ones():
    widths = [mobilenet.squeezed(row.expanded) for row in mobilenet.LARGE if row.squeeze]
    assert widths == [24, 32, 32, 120, 168, 168, 240, 240]
    assert mobilenet.squeezed(16) == 8
    assert mobilenet.squeezed(88) == 24  # a quarter is 22; 16 would be less than nine tenths of it


# An independent float64 forward pass, written from the definition.


def depthwise64(x, kernel, stride, padding):
    return np.concatenate(
        [conv64(x[..., [c]], kernel[..., [c]], stride, padding) for c in range(x.shape[-1])],
        axis=-1,
    )


def group_norm64(x, p, groups):
    n, h, w, c = x.shape
    g = x.reshape(n, h, w, groups, c // groups)
    g = (g - g.mean((1, 2, 4), keepdims=True)) / np.sqrt(g.var((1, 2, 4), keepdims=True) + 1e-5)
    return g.reshape(x.shape) * p["gamma"] + p["beta"]


def gate64(x):
    return np.clip(x + 3, 0, 6) / 6


ACTIVATIONS64 = {
    "relu": lambda x: np.maximum(x, 0),
    "hard_swish": lambda x: x * gate64(x),
    None: lambda x: x,
}


def forward64(config, p, x):
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)

    def stage(x, p, activation, stride=1, convolve=conv64):
        kernel = p["conv"]["kernel"]
        return ACTIVATIONS64[activation](
            group_norm64(
                convolve(x, kernel, stride, len(kernel) // 2), p["group_norm"], config.groups
            )
        )

    def dense(x, p):
        return x @ p["kernel"].reshape(x.shape[-1], -1) + p["bias"]

    x = stage(x, p["stem"], "hard_swish", 2)
    for i, row in enumerate(config.rows):
        own = p[f"bottleneck{i + 1:02d}"]
        y = stage(x, own["expand"], row.activation) if row.expanded != x.shape[-1] else x
        assert ("expand" in own, "squeeze_excite" in own) == (
            row.expanded != x.shape[-1],
            row.squeeze,
        )
        y = stage(y, own["depthwise"], row.activation, row.stride, depthwise64)
        if row.squeeze:
            inner = np.maximum(dense(y.mean((1, 2)), own["squeeze_excite"]["reduce"]), 0)
            y = y * gate64(dense(inner, own["squeeze_excite"]["expand"]))[:, None, None]
        y = stage(y, own["project"], None)
        x = x + y if y.shape == x.shape else y
    x = stage(x, p["features"], "hard_swish").mean((1, 2))
    return dense(ACTIVATIONS64["hard_swish"](dense(x, p["hidden"])), p["head"])


@pytest.mark.parametrize("size", [16, 13])
def test_forward_matches_float64(size):
    params = random_params(TINY, 0)
    images = (
        np.random.default_rng(1).uniform(-1, 1, (3, size, size, TINY.channels)).astype(np.float32)
    )
    expected = forward64(TINY, params, images.astype(np.float64))
    found = jax.jit(network.apply, static_argnums=0)(TINY, params, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("size", "stride", "dtype"), [(3, 1, "float32"), (3, 2, "bfloat16"), (5, 2, "float32")]
)
def test_cpu_depthwise_convolution_equals_xla(size, stride, dtype):
    rng = np.random.default_rng(0)
    x, kernel = (
        jnp.asarray(rng.standard_normal(shape), dtype)
        for shape in ((2, 9, 8, 6), (size, size, 1, 6))
    )

    def both(function):
        def total(x, kernel):
            y = function(x, kernel, stride, size // 2)
            return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

        (_, y), gradients = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(x, kernel)
        return y, *gradients

    for found, expected in zip(both(layers.shifted_conv), both(layers.xla_conv), strict=True):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        exact = np.asarray(expected, np.float64)
        np.testing.assert_allclose(
            np.asarray(found, np.float64),
            exact,
            atol=(1e-5 if dtype == "float32" else 0.02) * np.abs(exact).max(),
        )


def test_bfloat16_logits_are_rounded_but_close():
    params, images = (
        random_params(TINY, 0),
        jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (8, 16, 16, 2)), jnp.float32),
    )
    exact, rounded = (
        jax.jit(network.apply, static_argnums=0)(TINY, params, images.astype(dtype))
        for dtype in ("float32", "bfloat16")
    )
    assert exact.dtype == rounded.dtype == jnp.float32
    error = float(jnp.linalg.norm(exact - rounded) / jnp.linalg.norm(exact))
    assert 1e-5 < error < 0.05  # bfloat16 has 8 significant bits


def test_init_is_lecun_normal_with_a_zero_classifier_and_every_kernel_learns():
    params = network.init(MobileNetConfig(3, rows=mobilenet.LARGE[-1:]), jax.random.key(0))
    assert float(params["bottleneck01"]["depthwise"]["conv"]["kernel"].std()) == pytest.approx(
        np.sqrt(1 / 25), rel=0.02
    )
    assert float(params["hidden"]["kernel"].std()) == pytest.approx(np.sqrt(1 / 960), rel=0.02)
    assert not params["head"]["kernel"].any()
    small, images = (
        network.init(SMALL, jax.random.key(0)),
        np.random.default_rng(1).uniform(-1, 1, (4, 16, 16, 1)).astype(np.float32),
    )
    # As after the first step: a zero classifier passes no gradient on.
    small["head"]["kernel"] = jax.random.normal(jax.random.key(1), small["head"]["kernel"].shape)
    gradients = jax.jit(jax.grad(lambda p: network.apply(SMALL, p, images)[:, 0].sum()))(small)
    assert all(
        np.abs(leaf).max() > 0
        for leaf in jax.tree.leaves(
            (gradients["bottleneck01"], gradients["hidden"], gradients["stem"])
        )
    )


def test_remat_changes_no_gradient_and_stores_less():
    def loss(config, params, remat):
        return jnp.sum(
            mobilenet.apply(
                config,
                params,
                jnp.linspace(-1, 1, 2 * 256 * config.channels).reshape(2, 16, 16, -1),
                remat,
            )
            ** 2
        )

    def stored(remat):
        shapes = jax.eval_shape(lambda: mobilenet.init(TINY, jax.random.key(0)))
        return sum(
            leaf.size
            for leaf in jax.tree.leaves(
                jax.eval_shape(lambda p: jax.vjp(lambda p: loss(TINY, p, remat), p)[1], shapes)
            )
        )

    assert stored(True) < 0.6 * stored(False)
    params, gradient = random_params(SMALL, 0), jax.jit(jax.grad(loss, 1), static_argnums=(0, 2))
    for found, expected in zip(
        *(jax.tree.leaves(gradient(SMALL, params, remat)) for remat in (True, False)), strict=True
    ):
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max())
        )


def test_networks_under_vmap_equal_each_network_alone():
    """Under vmap, a depthwise convolution becomes one that is grouped by network and channel."""
    images = jnp.asarray(
        np.random.default_rng(3).standard_normal((4, 16, 16, SMALL.channels)), jnp.float32
    )
    several = [random_params(SMALL, seed) for seed in (0, 1)]
    together = jax.jit(jax.vmap(lambda p: mobilenet.apply(SMALL, p, images)))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    )
    alone = jax.jit(lambda p: mobilenet.apply(SMALL, p, images))
    for found, params in zip(together, several, strict=True):
        np.testing.assert_allclose(found, alone(params), rtol=1e-4, atol=1e-5)
