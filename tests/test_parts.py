"""Batches cut into parts that fit the cache: where, how many, and the same numbers."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_bench.networks import bit, layers, network
from distill_bench.networks.bit import BiTConfig
from distill_bench.networks.mobilenet import MobileNetConfig
from distill_bench.tasks import catalogue
from distill_bench.training import parts
from distill_bench.training.engine import open_engine
from distill_bench.training.events import Finished, Losses, Point
from distill_bench.training.lane_layout import BATCH, make_layout
from distill_bench.training.parts import accumulated, fitting, in_parts
from distill_bench.training.rules import Lane
from distill_bench.training.train import train

SMALL = BiTConfig(depths=(2, 1), width=8, classes=5, channels=1, groups=4, root="small")


def sgd(hparams, horizon):
    return optax.sgd(hparams["lr"])


def layout_of(platform, shards=1):
    """As much of a layout as the choice looks at."""
    devices = np.array([SimpleNamespace(platform=platform)])
    return SimpleNamespace(mesh=SimpleNamespace(devices=devices, shape={BATCH: shards}))


@pytest.mark.parametrize(
    ("config", "size"),
    [(SMALL, 11), (catalogue.get("fashion").teacher, 28), (BiTConfig((2, 2), 32, 7), 64)],
)
def test_patch_bytes_are_those_of_the_largest_factor_that_a_forward_pass_multiplies(
    config, size, monkeypatch
):
    factors = []
    product = layers.matrix_product

    def noted(x, kernel):
        factors.append(x.nbytes)
        return product(x, kernel)

    monkeypatch.setattr(layers, "matrix_product", noted)
    images = jnp.zeros((3, size, size, config.channels))
    params = jax.eval_shape(lambda: bit.init(config, jax.random.key(0)))
    jax.eval_shape(lambda p: bit.apply(config, p, images), params)
    assert max(factors) == 3 * network.patch_bytes(config, size)


@pytest.mark.parametrize(
    ("task", "teacher", "student"),
    [("digits", 4, 1), ("fashion", 16, 4)],
    ids=["digits", "fashion"],
)
def test_parts_of_the_embedded_tasks(task, teacher, student):
    """Within 6 % of the fastest that were measured."""
    task = catalogue.get(task)
    cpu, size = layout_of("cpu"), task.views.size
    assert fitting(cpu, task.teacher, size, 128) == teacher
    assert fitting(cpu, task.student, size, 128) == student
    for platform in ("gpu", "tpu"):
        assert fitting(layout_of(platform), task.teacher, size, 128) == 1
        assert fitting(layout_of(platform), task.teacher, size, 128, least=2) == 2


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(4, 96), st.sampled_from([1, 2, 4]))
def test_parts_are_the_fewest_that_fit_and_divide_each_devices_share(share, size, shards):
    found = fitting(layout_of("cpu", shards), SMALL, size, share * shards)
    assert share % found == 0
    one = network.patch_bytes(SMALL, size)
    if one > parts.CACHE:
        assert found == 1
    else:
        assert share // found * one <= parts.CACHE
        fewer = [n for n in range(1, found) if share % n == 0]
        assert all(share // n * one > parts.CACHE for n in fewer)


def test_networks_that_no_part_makes_faster_stay_whole():
    assert fitting(layout_of("cpu"), MobileNetConfig(10), 224, 128) == 1
    assert fitting(layout_of("cpu"), BiTConfig((3, 4, 6, 3), 64, 1000), 224, 128) == 1
    assert fitting(layout_of("cpu"), SMALL, 11, 128, least=4) == 4


@pytest.mark.parametrize("number", [2, 3, 6])
def test_a_network_gives_each_image_the_same_row_in_any_part(number):
    params = bit.init(SMALL, jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (12, 9, 9, 1))
    apply = functools.partial(bit.apply, SMALL, params)
    np.testing.assert_allclose(
        jax.jit(in_parts(apply, number))(images), jax.jit(apply)(images), rtol=1e-5, atol=1e-6
    )


def test_losses_in_parts_have_derivatives_in_forward_mode_and_of_second_order():
    """The loss is the mean of |x p|^4; its derivatives are written down in float64."""
    rng = np.random.default_rng(0)
    w, x, v = (rng.standard_normal(shape) for shape in ((5, 3), (12, 5), (5, 3)))
    y, z = x @ w, x @ v

    def loss(p):
        return accumulated(lambda p, x: jnp.mean(jnp.sum((x @ p) ** 4, 1)), 3)(p, jnp.float32(x))

    slope = np.mean(np.sum(4 * y**3 * z, 1))
    curved = 12 * x.T @ (y**2 * z) / 12
    w, v = jnp.float32(w), jnp.float32(v)
    np.testing.assert_allclose(jax.jvp(loss, (w,), (v,))[1], slope, rtol=2e-5)
    np.testing.assert_allclose(jax.jit(lambda w: jax.linearize(loss, w)[1](v))(w), slope, rtol=2e-5)
    along = jax.grad(lambda p: jnp.vdot(jax.grad(loss)(p), v))  # reverse over reverse
    np.testing.assert_allclose(along(w), curved, rtol=2e-5, atol=1e-4)


@pytest.mark.long
def test_the_engine_trains_and_measures_the_same_in_parts(tiny_task, monkeypatch):
    def run():
        engine = open_engine(tiny_task, make_layout(jax.devices()[:1]))
        losses, metrics = [], {}
        for event in train(engine, [Lane(sgd, {"lr": 0.1}, 5, 0)]):
            if isinstance(event, Losses):
                losses += event.values.tolist()
            elif isinstance(event, Finished):
                assert event.status == "ok", event.detail
            elif isinstance(event, Point):
                metrics = event.metrics
        return losses, metrics

    whole, whole_metrics = run()
    task = tiny_task
    one = network.patch_bytes(task.student, task.views.size)
    monkeypatch.setattr(parts, "CACHE", 4 * one)
    assert fitting(layout_of("cpu"), task.student, task.views.size, task.batch_size) > 1
    cut, cut_metrics = run()
    np.testing.assert_allclose(cut, whole, rtol=1e-5)
    assert cut_metrics == pytest.approx(whole_metrics, rel=1e-4)
