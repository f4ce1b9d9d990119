"""Dividing batches among devices or into parts, and remat, give the numbers of one device."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from distill_bench.errors import UserError
from distill_bench.networks import bit, network
from distill_bench.tasks.view_config import ViewConfig
from distill_bench.training.engine import open_engine
from distill_bench.training.evaluate import make_eval_set
from distill_bench.training.events import Finished, Losses
from distill_bench.training.lane_layout import BATCH, LayoutOptions, make_layout
from distill_bench.training.parts import accumulated
from distill_bench.training.rules import Contract, Lane
from distill_bench.training.source import open_source
from distill_bench.training.teacher_logits import make_forward
from distill_bench.training.train import train
from distill_bench.views import augment
from distill_bench.views.originals import Stacked
from optimizers.shampoo import scale_by_shampoo

STEPS = 10


def losses_of(engine, lanes):
    found = [[] for _ in lanes]
    for event in train(engine, lanes):
        if isinstance(event, Losses):
            found[event.lane] += event.values.tolist()
        elif isinstance(event, Finished):
            assert event.status == "ok", event.detail
    return np.array(found)


def sgd(hparams, horizon):
    return optax.sgd(hparams["lr"])


def descent_by_functions(hparams, horizon):
    """Gradient descent that takes its gradient and step length from the extra arguments."""

    def update(updates, state, params, value_fn, grad_fn):
        return jax.tree.map(
            lambda g: -hparams["lr"] * g / (1 + value_fn(params)), grad_fn(params)
        ), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


LANES = [
    Lane(sgd, {"lr": 0.1}, STEPS, 0),
    Lane(descent_by_functions, {"lr": 0.1}, STEPS, 0, Contract(frozenset({"value_fn", "grad_fn"}))),
]
"""Their rates are too low for rounding errors to grow within ten steps."""


@pytest.fixture(scope="module")
def one_device(tiny_task):
    return open_engine(tiny_task, make_layout(jax.devices()[:1]))


@pytest.mark.long
def test_parts_of_a_batch_give_the_losses_of_the_whole(tiny_task, one_device):
    layout = make_layout(
        jax.devices()[:1],
        LayoutOptions(mapping="vmap", lanes_per_device=2, microbatches=2, remat=True),
    )
    np.testing.assert_allclose(
        losses_of(open_engine(tiny_task, layout), LANES), losses_of(one_device, LANES), rtol=1e-5
    )


def quadratic(params, batch):
    return jnp.mean(jnp.sum((batch @ params) ** 4, axis=1))


def test_accumulated_losses_have_the_derivatives_of_the_mean():
    rng = np.random.default_rng(0)
    w, x, v = (rng.standard_normal(shape) for shape in ((5, 3), (12, 5), (5, 3)))
    y = x @ w
    value, gradient = np.mean(np.sum(y**4, 1)), 4 * x.T @ y**3 / 12
    curved = 12 * x.T @ (y**2 * (x @ v)) / 12
    loss = accumulated(quadratic, 3)
    found = jax.jit(jax.value_and_grad(loss))(jnp.float32(w), jnp.float32(x))
    hessian_v = jax.jvp(
        lambda p: jax.grad(loss)(p, jnp.float32(x)), (jnp.float32(w),), (jnp.float32(v),)
    )[1]
    for computed, expected in zip(
        (loss(jnp.float32(w), jnp.float32(x)), *found, hessian_v),
        (value, value, gradient, curved),
        strict=True,
    ):
        np.testing.assert_allclose(computed, expected, rtol=2e-5, atol=1e-4)


def test_no_image_moves_between_devices_when_a_sharded_batch_is_cut():
    mesh = Mesh(np.array(jax.devices()[:8]), (BATCH,))
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in (((5, 3), P()), ((64, 5), P(BATCH)))
    ]
    text = (
        jax.jit(jax.value_and_grad(accumulated(quadratic, 4))).lower(*arguments).compile().as_text()
    )
    assert "all-reduce" in text
    assert not re.search(r"all-gather|all-to-all|collective-permute", text)


def test_parts_must_be_equal_on_every_device(tiny_task):
    with pytest.raises(
        UserError, match=r"batch of 16 images cannot be cut into 3 equal parts.*--microbatches"
    ):
        open_engine(tiny_task, make_layout(jax.devices()[:1], LayoutOptions(microbatches=3)))
    with pytest.raises(UserError, match=r"share of 2 images cannot be cut into 4"):
        open_engine(
            tiny_task, make_layout(jax.devices()[:8], LayoutOptions(batch_shards=8, microbatches=4))
        )


def test_remat_keeps_the_inputs_of_units_and_little_more():
    config = bit.BiTConfig(depths=(2, 2), width=8, classes=5, groups=4, root="small")
    params = bit.init(config, jax.random.key(0))
    images = jnp.zeros((16, 32, 32, 3))

    def kept(remat):
        """How many numbers the forward pass keeps for the backward, besides parameters."""
        backward = jax.eval_shape(
            lambda p: jax.vjp(lambda p: network.apply(config, p, images, remat), p)[1], params
        )
        return sum(leaf.size for leaf in jax.tree.leaves(backward)) - sum(
            leaf.size for leaf in jax.tree.leaves(params)
        )

    assert kept(True) < kept(False) / 4


def preconditioned(**given):
    """Shampoo with a low rate and strong damping, so that roots do not magnify rounding errors.

    The damping is a thousandth of the largest eigenvalue.
    """

    def build(hparams, horizon):
        return optax.chain(
            scale_by_shampoo(block_size=8, update_every=2, epsilon=1e-3, **given),
            optax.scale(-0.01),
        )

    return build


@pytest.mark.long
def test_eight_devices_that_share_batch_and_roots_give_the_losses_of_one(tiny_task, one_device):
    layout = make_layout(jax.devices()[:8], LayoutOptions(batch_shards=8))
    one = losses_of(one_device, [LANES[0], Lane(preconditioned(), {}, STEPS, 0)])
    shared = losses_of(
        open_engine(tiny_task, layout),
        [LANES[0], Lane(preconditioned(mesh=layout.mesh, mesh_axis=BATCH), {}, STEPS, 0)],
    )
    np.testing.assert_allclose(shared, one, rtol=1e-5)


def test_mixup_across_devices_gives_the_same_bits():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3)), jnp.uint8)
    config = ViewConfig(size=8)
    for make in (
        lambda x: augment.mix(x.astype(jnp.float32), jnp.float32(0.3)),
        lambda x: augment.make_views(jax.random.key(1), Stacked(x), config),
    ):
        whole = jax.jit(make)(jax.device_put(images, jax.devices()[0]))
        sharding = NamedSharding(Mesh(np.array(jax.devices()[:8]), (BATCH,)), P(BATCH))
        cut = jax.jit(make, out_shardings=sharding)(jax.device_put(images, sharding))
        assert len(cut.sharding.device_set) == 8
        np.testing.assert_array_equal(cut, whole)
    mixed = augment.mix(images.astype(jnp.float32), jnp.float32(0.3))
    partner = images[np.arange(-1, 63)].astype(jnp.float32)
    np.testing.assert_allclose(mixed, 0.7 * images + 0.3 * partner, rtol=1e-5, atol=1e-3)


@pytest.mark.long
def test_eight_lanes_on_two_by_four_devices_equal_each_alone(tiny_task, one_device):
    """Each row of devices trains half the students; its four devices share every batch."""
    lanes = [Lane(sgd, {"lr": rate}, STEPS, 0) for rate in np.geomspace(0.01, 0.1, 8).tolist()]
    layout = make_layout(
        jax.devices()[:8], LayoutOptions(batch_shards=4, mapping="dispatch", microbatches=2)
    )
    assert dict(layout.mesh.shape) == {"lanes": 2, "batch": 4}
    together = losses_of(open_engine(tiny_task, layout), lanes)
    for found, lane in zip(together, lanes, strict=True):
        np.testing.assert_allclose(found, losses_of(one_device, [lane])[0], rtol=1e-5)


def test_devices_that_divide_a_batch_divide_the_evaluation_set(tiny_task):
    source = open_source(
        dataclasses.replace(tiny_task, batch_size=12),
        make_layout(jax.devices()[:3], LayoutOptions(batch_shards=3)),
    )
    eval_set = make_eval_set([source], [make_forward(source)], 1)[0]
    assert eval_set.images.shape[1] % 3 == 0
    np.testing.assert_array_equal(eval_set.labels, source.test.labels)
