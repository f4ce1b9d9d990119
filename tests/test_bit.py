"""BiT networks: published sizes, and the forward pass against a float64 reference."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from distill_bench.networks import bit, layers
from distill_bench.networks.bit import BiTConfig
from distill_bench.tasks import catalogue

PUBLISHED = [  # (network, image size, parameters, GMAC of a forward pass), FunMatch and BiT
    (BiTConfig((3, 4, 6, 3), 64, 102), 128, 23_709_350, 1.34),
    (BiTConfig((3, 4, 6, 3), 64, 37), 160, 23_576_165, 2.09),
    (BiTConfig((3, 4, 6, 3), 64, 1000), 224, 25_549_352, 4.09),
    (BiTConfig((3, 8, 36, 3), 128, 102), 128, 232_656_102, 14.96),
    (BiTConfig((3, 8, 36, 3), 128, 1000), 224, 236_335_208, 45.8),
]


@pytest.mark.parametrize(("config", "size", "parameters", "gmac"), PUBLISHED)
def test_published_networks_have_the_published_size(config, size, parameters, gmac):
    shapes = jax.eval_shape(lambda: bit.init(config, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters
    assert bit.macs(config, size) / 1e9 == pytest.approx(gmac, rel=5e-3)


# An independent float64 forward pass, written from the definition with explicit loops.


def conv64(x, kernel, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    k = kernel.shape[0]
    rows, cols = ((s - k) // stride + 1 for s in x.shape[1:3])
    out = np.zeros((x.shape[0], rows, cols, kernel.shape[-1]))
    for i in range(rows):
        for j in range(cols):
            out[:, i, j] = np.tensordot(
                x[:, i * stride : i * stride + k, j * stride : j * stride + k], kernel, 3
            )
    return out


def std64(kernel):
    return (kernel - kernel.mean((0, 1, 2))) / np.sqrt(kernel.var((0, 1, 2)) + 1e-10)


def norm_relu64(x, p, groups):
    n, h, w, c = x.shape
    g = x.reshape(n, h, w, groups, c // groups)
    g = (g - g.mean((1, 2, 4), keepdims=True)) / np.sqrt(g.var((1, 2, 4), keepdims=True) + 1e-5)
    return np.maximum(g.reshape(x.shape) * p["gamma"] + p["beta"], 0)


def forward64(config, p, x):
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)

    def kernel(stage):
        return std64(stage["standardized_conv2d"]["kernel"])

    if config.root == "imagenet":
        x = conv64(x, kernel(p["root_block"]), 2, 3)
        x = np.pad(
            x,
            ((0, 0), (1, 1), (1, 1), (0, 0)),
            constant_values=0.0 if config.pool_padding == "zero" else -np.inf,
        )
        rows, cols = ((s - 3) // 2 + 1 for s in x.shape[1:3])
        x = np.stack(
            [
                np.stack(
                    [x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(cols)], 1
                )
                for i in range(rows)
            ],
            1,
        )
    else:
        x = conv64(x, kernel(p["root_block"]), 2, 1)
    for b, depth in enumerate(config.depths):
        for u in range(depth):
            unit = p[f"block{b + 1}"][f"unit{u + 1:02d}"]
            stride = 2 if b and not u else 1
            y = norm_relu64(x, unit["a"]["group_norm"], config.groups)
            shortcut = x if u else conv64(y, kernel(unit["a"]["proj"]), stride, 0)
            y = conv64(y, kernel(unit["a"]), 1, 0)
            y = conv64(
                norm_relu64(y, unit["b"]["group_norm"], config.groups), kernel(unit["b"]), stride, 1
            )
            x = shortcut + conv64(
                norm_relu64(y, unit["c"]["group_norm"], config.groups), kernel(unit["c"]), 1, 0
            )
    x = norm_relu64(x, p["group_norm"], config.groups).mean((1, 2))
    return x @ p["head"]["conv2d"]["kernel"] + p["head"]["conv2d"]["bias"]


def random_params(config, seed):
    params = bit.init(config, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32), params
    )


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (BiTConfig((2, 2), 8, 5, channels=1, groups=4, root="small"), 8),
        (BiTConfig((1, 2), 4, 3, groups=2, pool_padding="zero"), 20),
        (BiTConfig((1, 2), 4, 3, groups=2, pool_padding="inf"), 20),
    ],
)
def test_forward_matches_float64(config, size):
    params = random_params(config, 0)
    images = (
        np.random.default_rng(1).uniform(-1, 1, (3, size, size, config.channels)).astype(np.float32)
    )
    expected = forward64(config, params, images.astype(np.float64))
    found = jax.jit(lambda p, x: bit.apply(config, p, x))(params, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("depths", [(2, 2), (3, 4)])
def test_frozen_parameters_give_the_same_logits(depths):
    """The units that a frozen network loops over follow the definition too."""
    config = BiTConfig(depths, 8, 5, channels=1, groups=4, root="small")
    params = random_params(config, 0)
    images = np.random.default_rng(1).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)
    frozen = jax.jit(bit.freeze)(params)
    found = jax.jit(lambda p, x: bit.apply(config, p, x, frozen=True))(frozen, images)
    unit_by_unit = jax.jit(lambda p, x: bit.apply(config, p, x))(params, images)
    np.testing.assert_allclose(found, unit_by_unit, atol=1e-6 * np.abs(unit_by_unit).max())
    expected = forward64(config, params, images.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frozen_parameters_are_stacked_instead_of_copied(dtype):
    config = BiTConfig((2, 5), 8, 5, groups=4)
    params = jax.eval_shape(lambda: bit.init(config, jax.random.key(0)))
    frozen = jax.eval_shape(lambda p: bit.freeze(p, dtype), params)
    held, given = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (frozen, params))
    assert held == given
    rest = frozen["block2"][bit.REST]
    assert {leaf.shape[0] for leaf in jax.tree.leaves(rest)} == {4}
    assert rest["a"]["standardized_conv2d"]["kernel"].dtype == dtype
    assert jax.tree.structure(frozen["block1"]) == jax.tree.structure(params["block1"])


@pytest.mark.slow
def test_pool_paddings_give_different_logits():
    zero, inf = (BiTConfig((1,), 4, 3, groups=2, pool_padding=p) for p in ("zero", "inf"))
    params, images = (
        random_params(zero, 0),
        jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (2, 20, 20, 3)), jnp.float32),
    )
    assert not np.allclose(bit.apply(zero, params, images), bit.apply(inf, params, images))


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (7, 2, 3)]
)
def test_cpu_convolution_equals_xla(size, stride, padding, channels):
    rng = np.random.default_rng(0)
    x, kernel = (
        rng.standard_normal((2, 9, 8, channels)).astype(np.float32),
        rng.standard_normal((size, size, channels, 5)).astype(np.float32),
    )
    expected = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(
        layers.patches_conv(jnp.asarray(x), jnp.asarray(kernel), stride, padding),
        expected,
        atol=1e-4,
    )


@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 12), (3, 4)])
def test_cpu_max_pool_equals_xla_also_where_values_tie(height, width):
    """Where several are the largest, both send the gradient to the first."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 3, (2, height, width, 5)), jnp.float32)
    values, gradients = zip(
        *(
            jax.value_and_grad(
                lambda x, pool=pool: (pool(x, 3, 2) ** 3).sum() + pool(x, 3, 2).sum()
            )(x)
            for pool in (layers.sliced_max_pool, layers.xla_max_pool)
        ),
        strict=True,
    )
    np.testing.assert_array_equal(layers.sliced_max_pool(x, 3, 2), layers.xla_max_pool(x, 3, 2))
    assert values[0] == values[1]
    np.testing.assert_array_equal(*gradients)


def test_groups_must_divide_channels():
    with pytest.raises(ValueError, match="cannot split 12 channels into 8 groups"):
        bit.init(BiTConfig((1,), 12, 3, groups=8), jax.random.key(0))


def test_a_fresh_classifier_is_zero_and_kernels_depend_on_the_key():
    params = bit.init(BiTConfig((1,), 64, 3, groups=4), jax.random.key(0))
    kernel = params["block1"]["unit01"]["b"]["standardized_conv2d"]["kernel"]
    assert not params["head"]["conv2d"]["kernel"].any()
    other = bit.init(BiTConfig((1,), 64, 3, groups=4), jax.random.key(1))
    assert (kernel != other["block1"]["unit01"]["b"]["standardized_conv2d"]["kernel"]).all()


def test_fresh_kernels_are_drawn_as_by_flaxs_default():
    """flax draws the kernels of the paper's code (big_vision, bit_paper) with lecun_normal."""
    params = bit.init(catalogue.DIGITS.teacher, jax.random.key(0))
    draw = jax.nn.initializers.lecun_normal()
    for path in (("block2", "unit02", "b"), ("block2", "unit01", "c"), ("block1", "unit01", "b")):
        stage = functools.reduce(lambda tree, name: tree[name], path, params)
        kernel = stage["standardized_conv2d"]["kernel"]
        expected = draw(jax.random.key(1), kernel.shape)
        assert stats.ks_2samp(kernel.ravel(), expected.ravel()).statistic < 0.02
        np.testing.assert_allclose(
            [kernel.std(), abs(kernel).max()], [expected.std(), abs(expected).max()], rtol=0.02
        )
